// Codec parameters and sizes of chunks: docs/format.md, "Codec parameters", "Frames and chunks".

import { refuseUnless, taggedDigest } from "./fields.mjs";

export const N = 4096;
export const FRAMES_PER_CHUNK = 16;
export const SEED_BYTES = 64;

/** Return { bits, contributors, limit, fieldBits, v, t, q, w, exact, contextDigest }; t and q are BigInt. */
export function plan(bits, contributors) {
  refuseUnless(bits >= 8 && bits <= 24, "bits out of range");
  refuseUnless(contributors >= 2 && contributors <= 1000, "contributors out of range");
  const fieldBits = bits + bitLength(contributors - 1);
  let best = null;
  for (let v = 1; v <= 60 / fieldBits; v++) {
    const t = 1n << BigInt(v * fieldBits);
    const q = PRIMES.find((prime) => prime >= 86n * BigInt(contributors) * t);
    if (q === undefined) continue;
    const w = q.toString(2).length;
    const bytesPerSlotValue = (512 * w + 64) / v;
    if (best === null || bytesPerSlotValue < best.bytesPerSlotValue) best = { v, t, q, w, bytesPerSlotValue };
  }
  const { v, t, q, w } = best;
  return {
    bits, contributors, fieldBits, v, t, q, w,
    limit: 2 ** (bits - 1) - 1,
    exact: Number(q / (86n * t)),
    contextDigest: taggedDigest(
      "fedproof.codec.v1", BigInt(N), q, t, BigInt(fieldBits), BigInt(v), BigInt(FRAMES_PER_CHUNK),
    ),
  };
}

export const updateFrameBytes = ({ w }) => 512 * w + SEED_BYTES;
export const aggregateFrameBytes = ({ w }) => 1024 * w;

export function chunkCount({ v }, length) {
  return Math.ceil(length / (FRAMES_PER_CHUNK * v * N));
}

export function framesInChunk(parameters, index, length) {
  refuseUnless(index >= 0 && index < chunkCount(parameters, length), "no chunk of that index");
  const frames = Math.ceil(length / (parameters.v * N)) - FRAMES_PER_CHUNK * index;
  return Math.min(FRAMES_PER_CHUNK, frames);
}

function bitLength(integer) {
  return integer === 0 ? 0 : integer.toString(2).length;
}

/** The largest prime of each length from 16 to 60 bits that is 1 modulo 2 n. */
const PRIMES = Array.from({ length: 45 }, (_, i) => largestPrime(BigInt(16 + i)));

function largestPrime(bits) {
  const step = BigInt(2 * N);
  let candidate = (1n << bits) - step + 1n;
  while (!isPrime(candidate)) candidate -= step;
  return candidate;
}

/** Miller-Rabin with the witnesses that decide below 2^64 (Sorenson and Webster 2017). */
function isPrime(number) {
  let odd = number - 1n;
  let halvings = 0;
  for (; odd % 2n === 0n; odd /= 2n) halvings++;
  return [2n, 3n, 5n, 7n, 11n, 13n, 17n, 19n, 23n, 29n, 31n, 37n].every((witness) => {
    let power = powerModulo(witness, odd, number);
    if (power === 1n) return true;
    for (let i = 0; i < halvings; i++) {
      if (power === number - 1n) return true;
      power = (power * power) % number;
    }
    return false;
  });
}

function powerModulo(base, exponent, modulus) {
  let result = 1n;
  for (let square = base, rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % modulus;
    square = (square * square) % modulus;
  }
  return result;
}
