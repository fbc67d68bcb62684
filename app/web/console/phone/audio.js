// The sound card: a microphone that gives frames, and a player of queues.
const CONSTRAINTS = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
};
const HERE = new URL(".", import.meta.url);

export function microphoneFault(error) {
  if (!window.isSecureContext) return "Browsers give the microphone to pages over HTTPS only, or at 127.0.0.1.";
  if (error.name === "NotAllowedError") return "The microphone is blocked for this page: allow it beside the address, and call again.";
  if (error.name === "NotFoundError") return "There is no microphone.";
  if (error.name === "NotReadableError") return "Another program has the microphone.";
  return `The microphone does not work: ${error.message}`;
}

// Call it in a click: browsers let no page make a sound before one.
export async function openAudio() {
  const context = new AudioContext({ latencyHint: "interactive" });
  await context.resume();
  return context;
}

export async function openPlayer(context, channels, onReport) {
  await context.audioWorklet.addModule(new URL("playout.worklet.js", HERE));
  const options = { numberOfInputs: 0, outputChannelCount: [channels], processorOptions: { channels } };
  const node = new AudioWorkletNode(context, "player", options);
  node.port.onmessage = ({ data }) => onReport(data);
  node.connect(context.destination);
  return {
    node,
    push: (bytes, channel = 0) => node.port.postMessage({ channel, bytes }, [bytes.buffer]),
    mark: (mark, channel = 0) => node.port.postMessage({ channel, mark }),
    clear: (channel = 0) => node.port.postMessage({ channel, clear: true }),
  };
}

export async function openMicrophone(context, onFrame) {
  if (!navigator.mediaDevices) throw new Error(microphoneFault({ name: "insecure" }));
  let source;
  try {
    source = await navigator.mediaDevices.getUserMedia(CONSTRAINTS);
  } catch (error) {
    throw new Error(microphoneFault(error));
  }
  await context.audioWorklet.addModule(new URL("capture.worklet.js", HERE));
  const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  node.port.onmessage = ({ data }) => onFrame(data);
  context.createMediaStreamSource(source).connect(node);
  return {
    mute: (muted) => node.port.postMessage({ muted }),
    close: () => source.getTracks().forEach((track) => track.stop()),
  };
}
