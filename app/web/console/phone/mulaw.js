// G.711 mu-law (ITU-T G.711, 1988), one byte for a 16-bit sample.
const BIAS = 33;
const CLIP = 8158;

// A sample of -32768 to 32767 as a byte. The lowest two bits are cut off, as the server does.
export function encode(sample) {
  const sign = sample < 0 ? 0x80 : 0;
  const biased = Math.min((sample < 0 ? ~sample : sample) >> 2, CLIP) + BIAS;
  const exponent = 26 - Math.clz32(biased);
  const mantissa = (biased >> (exponent + 1)) & 0x0f;
  return ~(sign | (exponent << 4) | mantissa) & 0xff;
}

export function decode(byte) {
  const code = ~byte & 0xff;
  const magnitude = ((((code & 0x0f) << 1) + BIAS) << ((code >> 4) & 7)) - BIAS;
  return code & 0x80 ? -magnitude * 4 : magnitude * 4;
}

const SAMPLES = Float32Array.from({ length: 256 }, (_, byte) => decode(byte) / 32768);

// Bytes as samples of -1 to 1.
export function decoded(bytes) {
  const samples = new Float32Array(bytes.length);
  for (let n = 0; n < bytes.length; n++) samples[n] = SAMPLES[bytes[n]];
  return samples;
}

// Samples of -1 to 1, which may go beyond, as bytes.
export function encoded(samples) {
  const bytes = new Uint8Array(samples.length);
  for (let n = 0; n < samples.length; n++) {
    const sample = Math.round(samples[n] * 32768);
    bytes[n] = encode(Math.max(-32768, Math.min(32767, sample)));
  }
  return bytes;
}
