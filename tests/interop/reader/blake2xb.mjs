// BLAKE2Xb for outputs of 4096 bytes: docs/format.md, "Encryption". Node's own BLAKE2b takes no key and no parameters.

const OUTPUT_BYTES = 4096;
const BLOCK_BYTES = 128;
const IV = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
const SIGMA = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
  "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
  "0123456789abcdef", "ea489fd61c02b753",
].map((row) => Array.from(row, (digit) => parseInt(digit, 16)));
const MIXES = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];

/** Return the 4096 bytes of a message under a key of 64 bytes. */
export function blake2xb(message, key) {
  const padded = Buffer.alloc(BLOCK_BYTES);
  key.copy(padded);
  const root = blake2b(Buffer.concat([padded, message]), parameterBlock({ keySize: 64, fanout: 1, depth: 1 }));
  const parts = Array.from({ length: OUTPUT_BYTES / 64 }, (_, j) =>
    blake2b(root, parameterBlock({ leafSize: 64, nodeOffset: j, innerSize: 64 })),
  );
  return Buffer.concat(parts);
}

function parameterBlock({ keySize = 0, fanout = 0, depth = 0, leafSize = 0, nodeOffset = 0, innerSize = 0 }) {
  const block = Buffer.alloc(64);
  block.set([64, keySize, fanout, depth]);
  block.writeUInt32LE(leafSize, 4);
  block.writeUInt32LE(nodeOffset, 8);
  block.writeUInt32LE(OUTPUT_BYTES, 12);
  block[17] = innerSize;
  return block;
}

/** Return BLAKE2b (RFC 7693) of the data under a parameter block. */
function blake2b(data, block) {
  const state = BigUint64Array.from(IV, (word, i) => word ^ block.readBigUInt64LE(8 * i));
  for (let start = 0; start < data.length; start += BLOCK_BYTES) {
    const piece = Buffer.alloc(BLOCK_BYTES);
    const size = data.copy(piece, 0, start, start + BLOCK_BYTES);
    compress(state, piece, { count: start + size, isLast: start + size === data.length });
  }
  const digest = Buffer.alloc(64);
  state.forEach((word, i) => digest.writeBigUInt64LE(word, 8 * i));
  return digest;
}

function compress(state, piece, { count, isLast }) {
  const message = Array.from({ length: 16 }, (_, i) => piece.readBigUInt64LE(8 * i));
  const v = BigUint64Array.from([...state, ...IV]); // stores modulo 2^64
  v[12] ^= BigInt(count);
  if (isLast) v[14] = ~v[14];
  for (const row of SIGMA) {
    MIXES.forEach(([a, b, c, d], i) => {
      v[a] += v[b] + message[row[2 * i]];
      v[d] = rotate(v[d] ^ v[a], 32n);
      v[c] += v[d];
      v[b] = rotate(v[b] ^ v[c], 24n);
      v[a] += v[b] + message[row[2 * i + 1]];
      v[d] = rotate(v[d] ^ v[a], 16n);
      v[c] += v[d];
      v[b] = rotate(v[b] ^ v[c], 63n);
    });
  }
  for (let i = 0; i < 8; i++) state[i] ^= v[i] ^ v[i + 8];
}

function rotate(word, bits) {
  return (word >> bits) | (word << (64n - bits));
}
