// Selection, quantisation, the next model and the next clips: docs/format.md, sections of these names.
//
// A number in JavaScript is an IEEE 754 binary64, each operation is rounded once, and Math.fround rounds to binary32.

import { createHash } from "node:crypto";

import { encodeFields, refuseUnless, taggedDigest } from "./fields.mjs";

const BLOCK = 65536;

export function selectionSeed(chainId, contract, round, baseModel) {
  return taggedDigest("fedproof.selection.v1", chainId, contract, BigInt(round), baseModel);
}

/** Return the positions that travel of d values, one in m. */
export function selectPositions(d, m, seed) {
  const positions = [];
  let words;
  for (let j = 0; j * m < d; j++) {
    if (m > 1 && j % BLOCK === 0) words = expandSelection(seed, j / BLOCK);
    const offset = m > 1 ? words.readUInt32LE(4 * (j % BLOCK)) % Math.min(m, d - j * m) : 0;
    positions.push(j * m + offset);
  }
  return positions;
}

/** Return the group that each position belongs to. */
export function findGroups(groupSizes, positions) {
  const ends = [];
  groupSizes.reduce((start, size) => (ends.push(start + size), start + size), 0);
  return positions.map((position) => ends.findIndex((end) => position < end));
}

export function computeWeight(examples, maxExamples) {
  return Math.min(examples, maxExamples) / maxExamples;
}

/** Return the integers of an update's values, given each value's clip and its u. */
export function quantise(delta, clips, drawn, limit, weight) {
  refuseUnless(delta.every(Number.isFinite), "a value that is not finite");
  return Array.from(delta, (value, j) => {
    const y = Math.max(-limit, Math.min(limit, value * (limit / clips[j]))) * weight;
    return Math.min(limit, Math.floor(y + drawn[j])) + 0; // + 0: no -0 among integers
  });
}

export function computeResidual(delta, values, clips, limit, weight) {
  return Float32Array.from(delta, (value, j) => value - (values[j] * (clips[j] / limit)) / weight);
}

/** Return the next model's flat vector. */
export function applySums(base, positions, sums, clips, { limit, maxExamples, totalExamples }) {
  const flat = Float32Array.from(base);
  positions.forEach((position, j) => {
    flat[position] = base[position] + sums[j] * (((clips[j] / limit) * maxExamples) / totalExamples);
  });
  refuseUnless(flat.every(Number.isFinite), "a value of the next model that is not finite");
  return flat;
}

/** Return for each group how many values of it travelled, and the sum of their sums' squares, a BigInt. */
export function measureGroups(groupSizes, positions, sums) {
  const groups = groupSizes.map(() => ({ count: 0, squares: 0n }));
  findGroups(groupSizes, positions).forEach((group, j) => {
    groups[group].count += 1;
    groups[group].squares += BigInt(sums[j]) ** 2n;
  });
  return groups;
}

export function nextClips(clips, groups, { limit, maxExamples, totalExamples, contributors, margin, clipMax }) {
  if (margin === 0) return clips.map(() => clipMax);
  return clips.map((clip, group) => {
    const { count, squares } = groups[group];
    if (count === 0) return Math.min(clipMax, clip);
    const scale = ((clip / limit) * maxExamples) / totalExamples;
    const spread = scale * Math.sqrt(Number(BigInt(contributors) * squares) / count);
    return Math.min(clipMax, Math.max(margin * spread, clip / 2, clipMax * 2 ** -40));
  });
}

function expandSelection(seed, block) {
  return createHash("shake256", { outputLength: 4 * BLOCK })
    .update(encodeFields("fedproof.selection-block.v1", seed, BigInt(block)))
    .digest();
}
