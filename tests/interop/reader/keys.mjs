// Wrapping keys, wrapped keys and draws: docs/format.md, "Wrapped keys", "Draw".
//
// ML-KEM is not in Node 18, so what is wrapped is not opened here.

import { createDecipheriv, scryptSync } from "node:crypto";

import { encodeFields, readDocument, Refused, refuseUnless, taggedDigest } from "./fields.mjs";
import { computeRoot, leafDigest } from "./merkle.mjs";

export function wrappedKeyInfo({ chainId, contract, epoch, node, contextDigest }) {
  return encodeFields("fedproof.wrapped-key.v1", chainId, contract, BigInt(epoch), node, contextDigest);
}

/** Return the root over wrapped keys, [node, ciphertext] each. */
export function wrappedKeysRoot(wrapped) {
  const nodes = wrapped.map(([node]) => node);
  refuseUnless(
    nodes.every((node, i) => i === 0 || Buffer.compare(nodes[i - 1], node) < 0),
    "nodes that do not ascend",
  );
  return computeRoot(wrapped.map(([node, ciphertext]) => leafDigest(encodeFields(node, ciphertext))));
}

/** Return the public key and the private key's 96 bytes in a wrapping key's file. */
export function openWrappingKeyFile(raw, password) {
  const types = ["bytes", "integer", "bytes", "bytes", "bytes"];
  const [publicKey, n, salt, nonce, sealed] = readDocument(raw, "fedproof.wrapping-key.v1", types);
  refuseUnless(n >= 2n && n <= 2n ** 20n && (n & (n - 1n)) === 0n, "a cost that is no power of two up to 2^20");
  const key = scryptSync(Buffer.from(password), salt, 32, { N: Number(n), r: 8, p: 1, maxmem: 2 ** 31 });
  const cipher = createDecipheriv("aes-256-gcm", key, nonce);
  cipher.setAAD(encodeFields("fedproof.wrapping-key.v1", publicKey, n, salt, nonce));
  cipher.setAuthTag(sealed.subarray(-16));
  try {
    return { publicKey, privateKey: Buffer.concat([cipher.update(sealed.subarray(0, -16)), cipher.final()]) };
  } catch {
    throw new Refused("another password");
  }
}

/** Return the chunks that a node recomputes, ascending. */
export function drawChunks(blockHash, node, round, chunks, count) {
  if (count >= chunks) return Array.from({ length: chunks }, (_, i) => i);
  const seed = taggedDigest("fedproof.draw.v1", blockHash, node, BigInt(round));
  const drawn = new Set();
  for (let i = 0n; drawn.size < count; i++) {
    const digest = taggedDigest("fedproof.draw-index.v1", seed, i);
    drawn.add(Number(BigInt(`0x${digest.toString("hex")}`) % BigInt(chunks)));
  }
  return [...drawn].sort((one, other) => one - other);
}
