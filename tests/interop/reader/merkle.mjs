// RFC 6962 trees: docs/format.md, "Merkle tree".

import { sha256 } from "./fields.mjs";

export function leafDigest(leaf) {
  return sha256(Buffer.of(0), leaf);
}

export function nodeDigest(left, right) {
  return sha256(Buffer.of(1), left, right);
}

/** Return the root over leaf digests, by the definition of RFC 6962. */
export function computeRoot(digests) {
  if (digests.length === 0) return sha256();
  if (digests.length === 1) return digests[0];
  let split = 1;
  while (2 * split < digests.length) split *= 2;
  return nodeDigest(computeRoot(digests.slice(0, split)), computeRoot(digests.slice(split)));
}
