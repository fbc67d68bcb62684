// The microphone as frames of 20 ms mu-law at 8 kHz, with their level.
import { encoded } from "./mulaw.js";
import { Resampler } from "./resampler.js";

const FRAME = 160;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, 8000);
    this.samples = new Float32Array(FRAME);
    this.filled = 0;
    this.muted = false;
    this.port.onmessage = ({ data }) => {
      this.muted = data.muted;
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
    let peak = 0;
    for (const sample of this.samples) peak = Math.max(peak, Math.abs(sample));
    const frame = encoded(this.samples);
    this.port.postMessage({ frame, peak }, [frame.buffer]);
  }
}

registerProcessor("capture", Capture);
