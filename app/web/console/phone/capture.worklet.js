// The microphone as frames of 20 ms mu-law at 8 kHz, with their level.
import { encoded } from "./mulaw.js";
import { Resampler } from "./resampler.js";

const FRAME = 160;
const LEVEL_EVERY = 5; // frames

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, 8000);
    this.samples = new Float32Array(FRAME);
    this.filled = 0;
    this.muted = false;
    this.line = this.port;
    this.frames = 0;
    this.peak = 0;
    this.port.onmessage = ({ data }) => {
      if (data.line) this.line = data.line;
      else this.muted = data.muted;
    };
  }

  process([[channel]]) {
    const quantum = channel && !this.muted ? channel : new Float32Array(128);
    for (const sample of this.resampler.push(quantum)) {
      this.samples[this.filled++] = sample;
      if (this.filled === FRAME) this.send();
    }
    return true;
  }

  send() {
    this.filled = 0;
    for (const sample of this.samples) this.peak = Math.max(this.peak, Math.abs(sample));
    const frame = encoded(this.samples);
    this.line.postMessage({ frame }, [frame.buffer]);
    this.frames += 1;
    if (this.frames % LEVEL_EVERY) return;
    this.port.postMessage({ peak: this.peak });
    this.peak = 0;
  }
}

registerProcessor("capture", Capture);
