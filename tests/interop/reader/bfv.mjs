// Keys, seeds, ciphertexts and plaintexts: docs/format.md, "Packing", "Secret key", "Encryption", "Decrypted sums".
//
// Polynomials are arrays of 4096 BigInt.

import { createHash } from "node:crypto";

import { blake2xb } from "./blake2xb.mjs";
import { encodeFields, refuseUnless } from "./fields.mjs";
import { N } from "./parameters.mjs";

const HALF_BITS = 30n;
const HALF = 1n << HALF_BITS;

/** Return the secret polynomial's residues modulo 3, of which 2 stands for -1. */
export function expandSecretKey(key, contextDigest) {
  const stream = createHash("shake256", { outputLength: 2 * N })
    .update(encodeFields("fedproof.secret-key.v1", contextDigest, key))
    .digest();
  return Array.from(stream.filter((octet) => octet < 255).subarray(0, N), (octet) => octet % 3);
}

/** Return the polynomial that a seed stands for. */
export function expandSeed(seed, q) {
  const words = streamWords(seed);
  const largest = 2n ** 64n - 1n;
  const bound = largest - (largest % q) - 1n;
  const coefficients = Array.from({ length: N }, () => words.next().value);
  return coefficients.map((word) => {
    while (word >= bound) word = words.next().value;
    return word % q;
  });
}

export function addPolynomials(one, other, q) {
  return one.map((coefficient, i) => (coefficient + other[i]) % q);
}

/** Return p = (c0 + c1 s) mod q. */
export function computePhase(c0, c1, secret, q) {
  return addPolynomials(c0, multiplyBySecret(c1, secret, q), q);
}

/** Return the plaintext polynomial behind p. */
export function decrypt(phase, { q, t }) {
  return phase.map((p) => divideRounded(t * p, q) % t);
}

/** Return how far p is off the plaintext m: the noise, each coefficient from -q/2 to q/2. */
export function computeNoise(phase, plaintext, { q, t }) {
  return phase.map((p, i) => {
    const difference = (p - divideRounded(q * plaintext[i], t) + q) % q;
    return difference > q / 2n ? difference - q : difference;
  });
}

/** Return the plaintext polynomials of values. */
export function packValues(values, { bits, fieldBits, v }) {
  const offset = 2 ** (bits - 1);
  const frames = [];
  for (let start = 0; start < values.length; start += v * N) {
    const field = (j) => BigInt((values[start + j] ?? 0) + offset);
    frames.push(
      Array.from({ length: N }, (_, i) => {
        let slot = 0n;
        for (let k = 0; k < v; k++) slot += field(N * k + i) << BigInt(k * fieldBits);
        return slot;
      }),
    );
  }
  return frames;
}

/** Return the sums of so many contributors that plaintext polynomials hold, without the padding. */
export function unpackSums(frames, length, contributors, { bits, contributors: most, fieldBits, limit, v }) {
  refuseUnless(contributors >= 1 && contributors <= most, "more contributors than the policy allows, or none");
  const mask = (1n << BigInt(fieldBits)) - 1n;
  const sums = [];
  for (const frame of frames) {
    for (let k = 0; k < v; k++) {
      for (const slot of frame) {
        const field = (slot >> BigInt(k * fieldBits)) & mask;
        sums.push(Number(field) - contributors * 2 ** (bits - 1));
      }
    }
  }
  const padding = sums.splice(length);
  refuseUnless(sums.every((sum) => Math.abs(sum) <= contributors * limit), "a sum that cannot be reached");
  refuseUnless(padding.every((sum) => sum === 0), "padding that is not zero");
  return sums;
}

function* streamWords(seed) {
  for (let counter = 0n; ; counter++) {
    const message = Buffer.alloc(8);
    message.writeBigUInt64LE(counter);
    const block = blake2xb(message, seed);
    for (let at = 0; at < block.length; at += 8) yield block.readBigUInt64LE(at);
  }
}

/** Return the product modulo X^4096 + 1 and q, in halves whose sums a double holds exactly. */
function multiplyBySecret(polynomial, secret, q) {
  const low = multiplyHalf(polynomial.map((each) => Number(each % HALF)), secret);
  const high = multiplyHalf(polynomial.map((each) => Number(each / HALF)), secret);
  return low.map((each, i) => modulo(BigInt(each) + (BigInt(high[i]) << HALF_BITS), q));
}

function multiplyHalf(half, secret) {
  const product = new Array(N).fill(0);
  secret.forEach((residue, degree) => {
    if (residue === 0) return;
    const sign = residue === 1 ? 1 : -1;
    for (let i = 0; i < N - degree; i++) product[i + degree] += sign * half[i];
    for (let i = N - degree; i < N; i++) product[i + degree - N] -= sign * half[i]; // X^4096 is -1
  });
  return product;
}

function modulo(number, q) {
  return ((number % q) + q) % q;
}

/** Return floor(numerator / denominator + 1/2); both are positive. */
function divideRounded(numerator, denominator) {
  return (2n * numerator + denominator) / (2n * denominator);
}
