import * as bfv from "../reader/bfv.mjs";
import * as chunks from "../reader/chunks.mjs";
import { sha256 } from "../reader/fields.mjs";
import { leafDigest } from "../reader/merkle.mjs";
import { aggregateFrameBytes, chunkCount, framesInChunk, plan, updateFrameBytes } from "../reader/parameters.mjs";
import { hashIntegers } from "./arithmetic.mjs";
import { fromHex, toHex } from "./expect.mjs";

export const ciphertexts = {
  parameters(vectors, expect) {
    for (const row of vectors.rows) {
      const [bits, contributors] = row;
      const { v, fieldBits, q, w, exact, contextDigest } = plan(bits, contributors);
      const came = [bits, contributors, v, fieldBits, String(q), w, exact, toHex(contextDigest)];
      expect.equal(came, row, `${bits} bits, ${contributors} contributors`);
    }
    for (const [bits, contributors, why] of vectors.refused) expect.refused(() => plan(bits, contributors), why);
    for (const each of vectors.chunks) {
      const parameters = plan(each.bits, each.max_contributors);
      const frames = framesInChunk(parameters, each.index, each.length);
      expect.equal(chunkCount(parameters, each.length), each.chunks, "number of chunks");
      expect.equal(frames * updateFrameBytes(parameters), each.update_bytes, "size of an update's chunk");
      expect.equal(frames * aggregateFrameBytes(parameters), each.aggregate_bytes, "size of a sum's chunk");
    }
  },

  packing(vectors, expect) {
    for (const { bits, max_contributors: contributors, length, step, start, frames } of vectors.packings) {
      const parameters = plan(bits, contributors);
      const packed = bfv.packValues(makeValues(length, parameters.limit, step, start), parameters);
      expect.equal(packed.map(spellPolynomial), frames, `${length} values of ${bits} bits`);
    }
  },

  keys_and_seeds(vectors, expect) {
    for (const { context_digest: context, first, sha256: hash } of vectors.expanded) {
      const residues = bfv.expandSecretKey(fromHex(vectors.secret_key), fromHex(context));
      expect.equal(residues.slice(0, first.length), first, "first residues");
      expect.equal(toHex(sha256(Buffer.from(residues))), hash, "residues");
    }
    for (const { seed, q, ...polynomial } of vectors.seeds) {
      expect.equal(spellPolynomial(bfv.expandSeed(fromHex(seed), BigInt(q))), polynomial, `seed under ${q}`);
    }
  },

  chunks(vectors, expect, readFile) {
    const { length } = vectors;
    const parameters = plan(vectors.bits, vectors.max_contributors);
    const secret = bfv.expandSecretKey(fromHex(vectors.secret_key), parameters.contextDigest);
    const values = vectors.updates.map(({ step, start }) => makeValues(length, parameters.limit, step, start));
    const updates = vectors.updates.map(({ file, leaf }) => {
      expect.equal(toHex(leafDigest(readFile(file))), leaf, `leaf of ${file}`);
      return chunks.parseUpdateChunk(readFile(file), parameters, 0, length);
    });
    updates.forEach((frames, i) => checkUpdate(expect, frames, values[i], secret, parameters));
    chunks.refuseCopies(updates);

    const total = readFile(vectors.sum.file);
    expect.equal(toHex(leafDigest(total)), vectors.sum.leaf, "leaf of the sum");
    expect.equal(chunks.sumChunks(updates, parameters).equals(total), true, "recomputed sum");
    const plaintexts = decryptSum(total, parameters, length, secret);
    const sums = bfv.unpackSums(plaintexts, length, updates.length, parameters);
    expect.equal(sums, values[0].map((each, j) => each + values[1][j]), "decrypted sums");
    expect.equal(hashIntegers(sums), vectors.sum.sha256, "digest of the decrypted sums");

    const refuse = (parse, raw) => ({ change, index, length: stated, why }) =>
      expect.refused(() => parse(applyChange(raw, change), parameters, index, stated), why);
    vectors.refused_updates.forEach(refuse(chunks.parseUpdateChunk, readFile(vectors.updates[0].file)));
    vectors.refused_aggregates.forEach(refuse(chunks.parseAggregateChunk, total));
    for (const { contributors, length: stated, why } of vectors.refused_sums) {
      expect.refused(() => bfv.unpackSums(plaintexts, stated, contributors, parameters), why);
    }
    for (const { files, why } of vectors.refused_pairs) {
      const pair = files.map((file) => chunks.parseUpdateChunk(readFile(file), parameters, 0, length));
      expect.refused(() => chunks.refuseCopies(pair), why);
    }
    checkHostile(expect, vectors, readFile);
  },
};

/** Check that the frames of one update hold these values, under noise that is within its bound. */
export function checkUpdate(expect, frames, values, secret, parameters) {
  bfv.packValues(values, parameters).forEach((plaintext, i) => {
    const phase = bfv.computePhase(
      frames[i].c0, bfv.expandSeed(frames[i].seed, parameters.q), secret, parameters.q,
    );
    const noise = bfv.computeNoise(phase, plaintext, parameters);
    expect.equal(noise.every((each) => each >= -21n && each <= 21n), true, `noise of frame ${i}`);
    expect.equal(new Set(noise).size > 21, true, `frame ${i} has noise`);
  });
}

/** Return the plaintext polynomials of a sum's first chunk. */
export function decryptSum(raw, parameters, length, secret) {
  return chunks
    .parseAggregateChunk(raw, parameters, 0, length)
    .map(({ c0, c1 }) => bfv.decrypt(bfv.computePhase(c0, c1, secret, parameters.q), parameters));
}

/** What honest nodes never send must decrypt alike, too. */
function checkHostile(expect, vectors, readFile) {
  const { file, bits, max_contributors: most, contributors, length, sha256: hash } = vectors.hostile;
  const parameters = plan(bits, most);
  const secret = bfv.expandSecretKey(fromHex(vectors.secret_key), parameters.contextDigest);
  const plaintexts = decryptSum(readFile(file), parameters, length, secret);
  expect.equal(hashIntegers(bfv.unpackSums(plaintexts, length, contributors, parameters)), hash, "hostile sum");
}

function makeValues(length, limit, step, start) {
  return Array.from({ length }, (_, j) => ((start + j * step) % (2 * limit + 1)) - limit);
}

function applyChange(raw, [kind, ...what]) {
  const changed = Buffer.from(raw);
  if (kind === "cut") return changed.subarray(0, raw.length - what[0]);
  if (kind === "append") return Buffer.concat([changed, fromHex(what[0])]);
  if (kind === "zero") return changed.fill(0, what[0], what[0] + what[1]);
  fromHex(what[1]).copy(changed, what[0]);
  return changed;
}

function spellPolynomial(coefficients) {
  return {
    sha256: hashIntegers(coefficients),
    first: String(coefficients[0]),
    last: String(coefficients.at(-1)),
  };
}

