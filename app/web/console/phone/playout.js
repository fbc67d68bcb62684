// What the caller hears: mu-law that is queued and played in time, with its marks, as a carrier
// does it. Positions count samples at 8 kHz. It decides; the worklet has the sound card.
import { decoded } from "./mulaw.js";

const PER_MS = 8;
export const FADE_MS = 8;
export const TARGET_MS = 30; // leaves 10 of the 40 ms that a mark may be late
export const MOST_TARGET_MS = 200;
const LATE_MS = 300; // sound that follows a gap shorter than this came too late

export class Playout {
  // `onMark` takes the name of a mark that was passed or cleared.
  constructor(onMark) {
    this.onMark = onMark;
    this.queue = []; // Float32Array or the name of a mark
    this.offset = 0; // in the first of them
    this.queued = 0;
    this.idle = true; // nothing plays; what comes waits until there is enough of it
    this.waited = 0;
    this.dry = Infinity; // samples of silence since it ran dry
    this.targetMs = TARGET_MS;
    this.underruns = 0;
    this.fading = 0;
    this.faded = null;
  }

  push(bytes) {
    if (bytes.length === 0) return;
    if (this.idle && this.queued === 0 && this.dry < LATE_MS * PER_MS && this.dry > 0) {
      this.underruns++;
      this.targetMs = Math.min(MOST_TARGET_MS, this.targetMs + 20);
    }
    this.queue.push(decoded(bytes));
    this.queued += bytes.length;
  }

  mark(name) {
    if (this.queue.length === 0) this.onMark(name);
    else this.queue.push(name);
  }

  // Drops what was not heard, behind a short fade; every mark comes back at once.
  clear() {
    const marks = this.queue.filter((entry) => typeof entry === "string");
    if (!this.idle) this.faded = this._take(Math.min(this.queued, FADE_MS * PER_MS), false);
    this.fading = this.faded ? this.faded.length : 0;
    this.queue = [];
    this.offset = this.queued = 0;
    this.idle = true;
    this.waited = 0;
    this.dry = Infinity;
    marks.forEach((name) => this.onMark(name));
  }

  // The next samples, of -1 to 1.
  pull(count) {
    const out = new Float32Array(count);
    let filled = this._fade(out);
    if (this.idle && this.queued > 0) {
      this.waited += count;
      const enough = this.queued >= this.targetMs * PER_MS;
      if (enough || this.waited >= this.targetMs * PER_MS) this.idle = false;
    }
    if (!this.idle) {
      const played = this._take(count - filled, true);
      out.set(played, filled);
      filled += played.length;
      if (this.queued === 0) {
        this.idle = true;
        this.waited = this.dry = 0;
      }
    }
    this.dry += count - filled;
    return out;
  }

  _fade(out) {
    if (!this.faded) return 0;
    const count = Math.min(out.length, this.faded.length);
    for (let n = 0; n < count; n++) out[n] = this.faded[n] * ((this.faded.length - n) / this.fading);
    this.faded = count < this.faded.length ? this.faded.subarray(count) : null;
    return count;
  }

  _take(count, marks) {
    const out = new Float32Array(Math.min(count, this.queued));
    let filled = 0;
    let at = 0;
    while (at < this.queue.length) {
      const entry = this.queue[at];
      if (typeof entry === "string") {
        if (marks) this.onMark(entry);
        at++;
        continue;
      }
      if (filled === out.length) break;
      const piece = entry.subarray(this.offset, this.offset + out.length - filled);
      out.set(piece, filled);
      filled += piece.length;
      this.offset += piece.length;
      if (this.offset < entry.length) break;
      this.offset = 0;
      at++;
    }
    this.queue.splice(0, at);
    this.queued -= filled;
    return out;
  }
}
