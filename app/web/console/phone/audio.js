// The sound card: a microphone that gives frames, and a player of queues.
const CONSTRAINTS = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
};
const HERE = new URL(".", import.meta.url);
// The only script that a page may make a worker of, where browsers ask (Trusted Types).
const ONE_WORKER = { createScriptURL: () => new URL("line.worker.js", HERE).href };
const workers = window.trustedTypes ? window.trustedTypes.createPolicy("line", ONE_WORKER) : ONE_WORKER;

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

// A port to a node, beside its own: what has it speaks with the worklet without this thread.
function portTo(node) {
  const { port1, port2 } = new MessageChannel();
  node.port.postMessage({ line: port1 }, [port1]);
  return port2;
}

// The line of `call` between a microphone and a player; `onClosed` is told the socket's code.
export function openLine(call, microphone, player, onClosed) {
  const worker = new Worker(workers.createScriptURL(""), { type: "module" });
  worker.onmessage = ({ data }) => {
    worker.terminate();
    onClosed(data.closed);
  };
  worker.onerror = () => onClosed(0);
  const ports = { microphone: portTo(microphone.node), player: portTo(player.node) };
  worker.postMessage({ call, ...ports }, Object.values(ports));
  return {
    press: (digit) => worker.postMessage({ digit }),
    hangUp: () => worker.postMessage({ hangUp: true }), // it ends when the socket has closed
  };
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
    clear: (channel = 0) => node.port.postMessage({ channel, clear: true }),
  };
}

// `onSound` is told levels, and frames as long as no line takes them.
export async function openMicrophone(context, onSound) {
  if (!navigator.mediaDevices) throw new Error(microphoneFault({ name: "insecure" }));
  let source;
  try {
    source = await navigator.mediaDevices.getUserMedia(CONSTRAINTS);
  } catch (error) {
    throw new Error(microphoneFault(error));
  }
  await context.audioWorklet.addModule(new URL("capture.worklet.js", HERE));
  const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  node.port.onmessage = ({ data }) => onSound(data);
  context.createMediaStreamSource(source).connect(node);
  return {
    node,
    mute: (muted) => node.port.postMessage({ muted }),
    close: () => source.getTracks().forEach((track) => track.stop()),
  };
}
