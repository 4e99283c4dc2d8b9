// Signed statements: docs/format.md, "Signed statements". Solidity's ABI encoding in its one strict form.

import { refuseUnless, splitFields } from "./fields.mjs";

const TAG = "fedproof.statements.v1";
const COMMITMENT = ["address", "bytes32", "uint32", "uint64", "bytes"];
const ATTESTATION = ["address", "bytes"];
const BYTES = { address: 20, bytes32: 32, uint32: 4, uint64: 8 };

export const parseBatch = (raw) => parse(raw, COMMITMENT);
export const parseProposal = (raw) => parse(raw, ATTESTATION);
export const encodeCommitment = (...values) => encodeLeaf(COMMITMENT, values);
export const encodeAttestation = (...values) => encodeLeaf(ATTESTATION, values);

/** Return each leaf's values: bytes as Buffers, numbers as BigInt. */
function parse(raw, types) {
  const [tag, ...leaves] = splitFields(raw);
  refuseUnless(tag?.equals(Buffer.from(TAG)), `another tag than ${TAG}`);
  return leaves.map((leaf) => decodeLeaf(types, leaf));
}

function decodeLeaf(types, leaf) {
  const head = 32 * types.length;
  refuseUnless(leaf.length >= head + 32, "a leaf is cut short");
  const values = types.map((type, i) => {
    const word = leaf.subarray(32 * i, 32 * i + 32);
    if (type === "bytes") {
      const length = Number(BigInt(`0x${leaf.subarray(head, head + 32).toString("hex")}`));
      refuseUnless(head + 32 + length <= leaf.length, "a signature is cut short");
      return leaf.subarray(head + 32, head + 32 + length);
    }
    const size = BYTES[type];
    refuseUnless(!word.subarray(0, 32 - size).some(Boolean), `more than ${size} bytes`);
    const bytes = word.subarray(32 - size);
    return type.startsWith("uint") ? BigInt(`0x${bytes.toString("hex")}`) : bytes;
  });
  refuseUnless(encodeLeaf(types, values).equals(leaf), "another encoding than the strict one");
  return values;
}

function encodeLeaf(types, values) {
  const words = types.map((type, i) => (type === "bytes" ? word(32n * BigInt(types.length)) : word(values[i])));
  const signature = values.at(-1);
  const padding = Buffer.alloc((32 - (signature.length % 32)) % 32);
  return Buffer.concat([...words, word(BigInt(signature.length)), signature, padding]);
}

function word(value) {
  const bytes = typeof value === "bigint" ? Buffer.from(value.toString(16).padStart(64, "0"), "hex") : value;
  return Buffer.concat([Buffer.alloc(32 - bytes.length), bytes]);
}
