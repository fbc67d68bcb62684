// Changes the rate of mono samples, by any ratio: microphones run at 44.1 or 48 kHz, phones at 8.
// A windowed sinc (Kaiser) that passes 3.4 kHz and stops 4.6 kHz: what lies between may fold into
// the band above 3.4 kHz, which phones do not carry. The delay is HALF_S.
const HALF_S = 0.00175;
const CUTOFF_HZ = 4000;
const BETA = 5.65; // of the window: 60 dB
const PHASES = 256;

function bessel0(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; k < 30; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function kernel(time, rate) {
  const place = time / HALF_S;
  if (Math.abs(place) >= 1) return 0;
  const angle = 2 * CUTOFF_HZ * time * Math.PI;
  const sinc = angle === 0 ? 1 : Math.sin(angle) / angle;
  const window = bessel0(BETA * Math.sqrt(1 - place * place)) / bessel0(BETA);
  return ((2 * CUTOFF_HZ) / rate) * sinc * window;
}

export class Resampler {
  constructor(fromHz, toHz) {
    this.step = fromHz / toHz;
    this.half = Math.ceil(HALF_S * fromHz);
    this.taps = 2 * this.half;
    this.table = Array.from({ length: PHASES + 1 }, (_, phase) =>
      Float32Array.from({ length: this.taps }, (_, tap) =>
        kernel((tap + 1 - this.half - phase / PHASES) / fromHz, fromHz),
      ),
    );
    this.held = new Float32Array(this.taps); // the end of what came before
    this.at = 0; // of the next sample, in held: tap 0 of its kernel
  }

  // The samples that these make possible; the rest comes with the next.
  push(samples) {
    const { taps, step } = this;
    const all = new Float32Array(this.held.length + samples.length);
    all.set(this.held);
    all.set(samples, this.held.length);
    const count = Math.max(0, Math.floor((all.length - taps - this.at) / step) + 1);
    const out = new Float32Array(count);
    let made = 0;
    while (Math.floor(this.at) + taps <= all.length && made < count) {
      const first = Math.floor(this.at);
      const phase = (this.at - first) * PHASES;
      const low = Math.floor(phase);
      const part = phase - low;
      const [a, b] = [this.table[low], this.table[low + 1] || this.table[low]];
      let sum = 0;
      for (let tap = 0; tap < taps; tap++) sum += all[first + tap] * (a[tap] + part * (b[tap] - a[tap]));
      out[made++] = sum;
      this.at += step;
    }
    const used = Math.min(Math.floor(this.at), all.length);
    this.held = all.slice(used);
    this.at -= used;
    return made === count ? out : out.slice(0, made);
  }
}
