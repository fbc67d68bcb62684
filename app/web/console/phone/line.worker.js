// The line of a call: its socket, between the microphone's worklet and the player's. In a worker, so
// that neither sound nor marks wait while the page draws.
import { MediaStream } from "./stream.js";

let stream = null;

function open({ call, microphone, player }) {
  stream = new MediaStream(call, {
    media: (bytes) => player.postMessage({ bytes }, [bytes.buffer]),
    mark: (mark) => player.postMessage({ mark }),
    clear: () => player.postMessage({ clear: true }),
    closed: (code) => postMessage({ closed: code }),
  });
  player.onmessage = ({ data }) => stream.returnMark(data.mark);
  microphone.onmessage = ({ data }) => stream.sendFrame(data.frame);
}

onmessage = ({ data }) => {
  if (data.call) open(data);
  else if (data.digit) stream.press(data.digit);
  else if (data.hangUp) stream.hangUp();
};
