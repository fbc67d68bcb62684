// A recording as two lines of peaks: the caller above, the agent below. Plays and seeks.
import { clock, html, useDark, useEffect, useRef, useState } from "./ui.js";

const BINS = 1200;
const STEP_S = 5; // of an arrow key
const MAX_BYTES = 60_000_000; // an hour of two channels at 8 kHz

// The size of a mu-law byte, 0 to 1.
const MU_LAW = Float32Array.from({ length: 256 }, (_, byte) => {
  const bits = ~byte & 0x7f;
  return ((((bits & 15) << 3) + 132) * 2 ** (bits >> 4) - 132) / 32768;
});

// The peaks of both channels of a WAV of mu-law or 16-bit samples, each 0 to 1.
export function peaksOf(buffer) {
  const view = new DataView(buffer);
  const peaks = [new Float32Array(BINS), new Float32Array(BINS)];
  let [at, law] = [12, false];
  while (at + 8 <= view.byteLength && view.getUint32(at) !== 0x64617461) {
    if (view.getUint32(at) === 0x666d7420) law = view.getUint16(at + 8, true) === 7;
    const size = view.getUint32(at + 4, true);
    at += 8 + size + (size % 2);
  }
  const start = at + 8;
  const wide = law ? 2 : 4;
  const frames = Math.floor((view.byteLength - start) / wide);
  const size = law
    ? (frame, side) => MU_LAW[view.getUint8(start + frame * 2 + side)]
    : (frame, side) => Math.abs(view.getInt16(start + frame * 4 + side * 2, true)) / 32768;
  for (let bin = 0; bin < BINS; bin += 1) {
    const end = Math.floor(((bin + 1) * frames) / BINS);
    for (let frame = Math.floor((bin * frames) / BINS); frame < end; frame += 1) {
      for (const side of [0, 1]) peaks[side][bin] = Math.max(peaks[side][bin], size(frame, side));
    }
  }
  return peaks;
}

function draw(canvas, peaks, part) {
  const style = getComputedStyle(document.documentElement);
  const scale = devicePixelRatio || 1;
  const width = (canvas.width = canvas.clientWidth * scale);
  const height = (canvas.height = canvas.clientHeight * scale);
  const pen = canvas.getContext("2d");
  ["--caller", "--agent"].forEach((color, side) => {
    pen.fillStyle = style.getPropertyValue(color);
    const middle = height * (side ? 0.75 : 0.25);
    for (let x = 0; x < width; x += 1) {
      const size = Math.sqrt(peaks[side][Math.floor((x * BINS) / width)]) * height * 0.23;
      pen.globalAlpha = x / width <= part ? 1 : 0.45;
      pen.fillRect(x, middle - size, 1, Math.max(1, size * 2));
    }
  });
  pen.globalAlpha = 1;
  pen.fillStyle = style.getPropertyValue("--text");
  pen.fillRect(part * width, 0, 2 * scale, height);
}

// `player` is a ref to the audio element; `onTime` is told the place in milliseconds.
export function Recording({ callId, player, onTime }) {
  const canvas = useRef(null);
  const [peaks, setPeaks] = useState(null);
  const [error, setError] = useState("");
  const [at, setAt] = useState({ now: 0, of: 0 }); // in seconds
  const dark = useDark();
  const address = `/api/v1/calls/${encodeURIComponent(callId)}/recording`;
  useEffect(() => {
    let over = false;
    fetch(address)
      .then((answer) => {
        if (!answer.ok) throw new Error("The recording cannot be read");
        if (Number(answer.headers.get("content-length")) > MAX_BYTES) throw new Error("Too long to draw");
        return answer.arrayBuffer();
      })
      .then((buffer) => !over && setPeaks(peaksOf(buffer)))
      .catch((problem) => !over && setError(problem.message));
    return () => {
      over = true;
    };
  }, [callId]);
  const show = () => {
    const audio = player.current;
    if (canvas.current && peaks && audio) draw(canvas.current, peaks, audio.duration ? audio.currentTime / audio.duration : 0);
    if (!audio) return;
    setAt({ now: audio.currentTime, of: audio.duration || 0 });
    onTime(audio.currentTime * 1000);
  };
  useEffect(() => {
    show();
    addEventListener("resize", show);
    return () => removeEventListener("resize", show);
  }, [peaks, dark]);
  const seek = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const audio = player.current;
    if (audio.duration) audio.currentTime = ((event.clientX - box.left) / box.width) * audio.duration;
  };
  const press = (event) => {
    const audio = player.current;
    const places = { ArrowLeft: audio.currentTime - STEP_S, ArrowRight: audio.currentTime + STEP_S, Home: 0, End: audio.duration };
    if (event.key === " ") audio[audio.paused ? "play" : "pause"]();
    else if (event.key in places && audio.duration) audio.currentTime = Math.min(Math.max(0, places[event.key]), audio.duration);
    else return;
    event.preventDefault(); // the page would scroll
  };
  return html`
    <section class="panel" aria-label="Recording">
      <canvas class="wave" ref=${canvas} onPointerDown=${seek} onKeyDown=${press} tabindex="0" role="slider" aria-label="Place in the recording: the caller's sound above, the agent's below" aria-valuemin="0" aria-valuemax=${Math.ceil(at.of)} aria-valuenow=${Math.floor(at.now)} aria-valuetext=${`${clock(at.now * 1000)} of ${clock(at.of * 1000)}`}></canvas>
      <div class="row">
        <audio class="wide" controls preload="metadata" ref=${player} src=${address} onTimeUpdate=${show} onSeeked=${show} onLoadedMetadata=${show}></audio>
        <span class="legend"><span class="speaks caller">caller</span><span class="speaks agent">agent</span></span>
        <a class="button" href=${address} download>Download</a>
      </div>
      ${error && html`<p class="quiet">${error}</p>`}
    </section>`;
}
