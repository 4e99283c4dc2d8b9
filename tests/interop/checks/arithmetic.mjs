import { decodeClips, decodeValues, encodeClips, encodeValues } from "../reader/model.mjs";
import { decodeFloats, sha256 } from "../reader/fields.mjs";
import * as rounding from "../reader/rounding.mjs";
import { fromHex, toHex } from "./expect.mjs";

export const limitOf = (bits) => 2 ** (bits - 1) - 1;

/** Return the SHA-256 of integers as 8 bytes each, little-endian. */
export function hashIntegers(integers) {
  const raw = Buffer.alloc(8 * integers.length);
  integers.forEach((each, i) => raw.writeBigInt64LE(BigInt(each), 8 * i));
  return toHex(sha256(raw));
}

/** Return the clip of each position. */
export function clipsAt(groupSizes, clips, positions) {
  return rounding.findGroups(groupSizes, positions).map((group) => clips[group]);
}

export const arithmetic = {
  selection(vectors, expect) {
    for (const each of vectors.selections) {
      const seed = rounding.selectionSeed(
        BigInt(vectors.chain_id), fromHex(vectors.contract), each.round, fromHex(each.base_model),
      );
      expect.equal(toHex(seed), each.seed, "seed");
      const positions = rounding.selectPositions(each.parameters, each.keep_one_in, seed);
      expect.equal(positions.length, each.length, "length");
      expect.equal(positions.slice(0, 10), each.first, "first positions");
      expect.equal(positions.slice(-3), each.last, "last positions");
      expect.equal(hashIntegers(positions), each.sha256, "positions");
    }
  },

  quantisation(vectors, expect) {
    const [delta, drawn] = [decodeValues(fromHex(vectors.delta)), decodeFloats(fromHex(vectors.u))];
    const clips = clipsAt(vectors.group_sizes, decodeClips(fromHex(vectors.clips)), vectors.positions);
    for (const { bits, examples, max_examples: most, values, residual } of vectors.updates) {
      const [limit, weight] = [limitOf(bits), rounding.computeWeight(examples, most)];
      expect.equal(rounding.quantise(delta, clips, drawn, limit, weight), values, `values of ${bits} bits`);
      const left = rounding.computeResidual(delta, values, clips, limit, weight);
      expect.equal(toHex(encodeValues(left)), residual, `residual of ${bits} bits`);
    }
    for (const { delta: raw, why } of vectors.refused) {
      expect.refused(() => rounding.quantise(decodeValues(fromHex(raw)), clips, drawn, limitOf(15), 1), why);
    }
  },

  next_model(vectors, expect) {
    const apply = ({ base, group_sizes: sizes, clips, positions, sums, bits, ...examples }) =>
      rounding.applySums(
        decodeValues(fromHex(base)),
        positions,
        sums,
        clipsAt(sizes, decodeClips(fromHex(clips)), positions),
        { limit: limitOf(bits), maxExamples: examples.max_examples, totalExamples: examples.total_examples },
      );
    for (const each of vectors.models) {
      const flat = apply({ ...vectors, ...each });
      expect.equal(toHex(encodeValues(flat)), each.model, `model of ${each.total_examples} examples`);
    }
    for (const each of vectors.refused) expect.refused(() => apply(each), each.why);
  },

  next_clips(vectors, expect) {
    for (const each of vectors.rounds) {
      const groups = rounding.measureGroups(each.group_sizes, each.positions, each.sums);
      expect.equal(groups.map(({ count }) => count), each.counts, "counts");
      expect.equal(groups.map(({ squares }) => String(squares)), each.squares, "squares");
      const clips = decodeClips(fromHex(each.clips));
      for (const { clip_margin: margin, total_examples: totalExamples, clips: after } of each.following) {
        const following = rounding.nextClips(clips, groups, {
          limit: limitOf(each.bits),
          maxExamples: each.max_examples,
          totalExamples,
          contributors: each.contributors,
          margin,
          clipMax: each.clip_max,
        });
        expect.equal(toHex(encodeClips(following)), after, `clips of ${each.bits} bits with margin ${margin}`);
      }
    }
  },
};
