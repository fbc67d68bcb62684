// Plays queues of mu-law, one for each channel of the output, and reports marks and levels.
import { Playout } from "./playout.js";
import { Resampler } from "./resampler.js";

const REPORT_EVERY = 6_000; // samples

class Player extends AudioWorkletProcessor {
  constructor({ processorOptions: { channels } }) {
    super();
    this.parts = Array.from({ length: channels }, () => ({
      playout: new Playout((mark) => this.line.postMessage({ mark })),
      resampler: new Resampler(8000, sampleRate),
      made: new Float32Array(0),
      peak: 0,
    }));
    this.until = REPORT_EVERY;
    this.line = this.port;
    const take = ({ data }) => {
      if (data.line) {
        this.line = data.line;
        this.line.onmessage = take;
        return;
      }
      const { playout } = this.parts[data.channel || 0];
      if (data.bytes) playout.push(data.bytes);
      else if (data.mark !== undefined) playout.mark(data.mark);
      else if (data.clear) playout.clear();
    };
    this.port.onmessage = take;
  }

  process(_inputs, [output]) {
    this.parts.forEach((part, n) => this.fill(part, output[n]));
    this.until -= 128;
    if (this.until <= 0) {
      this.until = REPORT_EVERY;
      const levels = this.parts.map((part) => part.peak);
      const underruns = this.parts.map((part) => part.playout.underruns);
      const queuedMs = this.parts.map((part) => part.playout.queued / 8);
      this.parts.forEach((part) => (part.peak = 0));
      this.port.postMessage({ levels, underruns, queuedMs });
    }
    return true;
  }

  fill(part, out) {
    while (part.made.length < out.length) {
      const more = part.resampler.push(part.playout.pull(8));
      const all = new Float32Array(part.made.length + more.length);
      all.set(part.made);
      all.set(more, part.made.length);
      part.made = all;
    }
    out.set(part.made.subarray(0, out.length));
    part.made = part.made.slice(out.length);
    for (const sample of out) part.peak = Math.max(part.peak, Math.abs(sample));
  }
}

registerProcessor("player", Player);
