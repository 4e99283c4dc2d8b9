import { encodeFields, readFields, taggedDigest } from "../reader/fields.mjs";
import { drawChunks } from "../reader/keys.mjs";
import { computeRoot, leafDigest } from "../reader/merkle.mjs";
import { fromHex, toHex } from "./expect.mjs";

const values = {
  bytes: fromHex,
  text: (text) => text,
  integer: BigInt,
  float: (bits) => fromHex(bits).readDoubleBE(),
};

export const encodings = {
  fields(vectors, expect) {
    const parse = (fields) => fields.map(([type, value]) => values[type](value));
    for (const { fields, encoded } of vectors.encodings) {
      expect.equal(toHex(encodeFields(...parse(fields))), encoded, "encoding");
      expect.equal(readFields(fromHex(encoded), fields.map(([type]) => type)), parse(fields), "decoding");
    }
    for (const { tag, fields, digest } of vectors.tagged_digests) {
      expect.equal(toHex(taggedDigest(tag, ...parse(fields))), digest, "tagged digest");
    }
    for (const { types, encoded, why } of vectors.refused) {
      expect.refused(() => readFields(fromHex(encoded), types), why);
    }
  },

  merkle(vectors, expect) {
    for (const { leaves, leaf_digests: digests, root } of vectors.trees) {
      expect.equal(leaves.map((leaf) => toHex(leafDigest(fromHex(leaf)))), digests, "leaf digests");
      expect.equal(toHex(computeRoot(digests.map(fromHex))), root, `root of ${leaves.length}`);
      if (leaves.length === 8) expect.equal(root, vectors.public_root_of_eight, "public root");
    }
  },

  draw(vectors, expect) {
    for (const { block_hash: block, node, round, chunks, count, drawn } of vectors.draws) {
      expect.equal(drawChunks(fromHex(block), fromHex(node), round, chunks, count), drawn, "drawn chunks");
    }
  },
};
