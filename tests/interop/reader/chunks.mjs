// Chunks of frames: docs/format.md, "Frames and chunks".

import { addPolynomials, expandSeed } from "./bfv.mjs";
import { refuseUnless } from "./fields.mjs";
import { aggregateFrameBytes, framesInChunk, N, SEED_BYTES, updateFrameBytes } from "./parameters.mjs";

/** Return the frames { c0, seed } of chunk `index` of an update of `length` values. */
export function parseUpdateChunk(raw, parameters, index, length) {
  return splitFrames(raw, updateFrameBytes(parameters), framesInChunk(parameters, index, length)).map((frame) => ({
    c0: unpackPolynomial(frame.subarray(0, -SEED_BYTES), parameters),
    seed: frame.subarray(-SEED_BYTES),
  }));
}

/** Return the frames { c0, c1 } of chunk `index` of a sum of updates of `length` values. */
export function parseAggregateChunk(raw, parameters, index, length) {
  return splitFrames(raw, aggregateFrameBytes(parameters), framesInChunk(parameters, index, length)).map((frame) => {
    const [c0, c1] = [frame.subarray(0, frame.length / 2), frame.subarray(frame.length / 2)];
    refuseUnless(c1.some((octet) => octet !== 0), "a second polynomial of zeros");
    return { c0: unpackPolynomial(c0, parameters), c1: unpackPolynomial(c1, parameters) };
  });
}

/** Return the aggregate's chunk of several updates' parsed chunks. */
export function sumChunks(updates, parameters) {
  const frames = updates[0].map((_, i) => {
    const whole = updates.map((frames) => ({ c0: frames[i].c0, c1: expandSeed(frames[i].seed, parameters.q) }));
    return whole.reduce((sum, each) => ({
      c0: addPolynomials(sum.c0, each.c0, parameters.q),
      c1: addPolynomials(sum.c1, each.c1, parameters.q),
    }));
  });
  return Buffer.concat(frames.flatMap(({ c0, c1 }) => [c0, c1]).map((each) => packPolynomial(each, parameters)));
}

/** Refuse frames of which two have the same seed. */
export function refuseCopies(updates) {
  const seeds = updates.flat().map((frame) => frame.seed.toString("hex"));
  refuseUnless(new Set(seeds).size === seeds.length, "two frames with one seed");
}

function splitFrames(raw, frameBytes, frames) {
  refuseUnless(raw.length === frames * frameBytes, `${raw.length} bytes instead of ${frames * frameBytes}`);
  return Array.from({ length: frames }, (_, i) => raw.subarray(i * frameBytes, (i + 1) * frameBytes));
}

function unpackPolynomial(packed, { q, w }) {
  const padded = Buffer.concat([packed, Buffer.alloc(9)]);
  const mask = (1n << BigInt(w)) - 1n;
  return Array.from({ length: N }, (_, i) => {
    const [at, shift] = [Math.floor((i * w) / 8), BigInt((i * w) % 8)];
    const window = padded.readBigUInt64LE(at) | (BigInt(padded[at + 8]) << 64n);
    const coefficient = (window >> shift) & mask;
    refuseUnless(coefficient < q, `coefficient ${i} is not below q`);
    return coefficient;
  });
}

function packPolynomial(coefficients, { w }) {
  const packed = Buffer.alloc((N * w) / 8);
  let [window, held, at] = [0n, 0, 0];
  for (const coefficient of coefficients) {
    window |= coefficient << BigInt(held);
    for (held += w; held >= 8; held -= 8, window >>= 8n) packed[at++] = Number(window & 255n);
  }
  return packed;
}
