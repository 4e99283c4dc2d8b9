// A whole round: what a node, an aggregator and an auditor do with it, one after the other.

import * as bfv from "../reader/bfv.mjs";
import { parseUpdateChunk, refuseCopies, sumChunks } from "../reader/chunks.mjs";
import { decodeFloats, sha256 } from "../reader/fields.mjs";
import { parseAggregateManifest, parseUpdateManifest, verifyBase, verifyHeader } from "../reader/manifest.mjs";
import { leafDigest } from "../reader/merkle.mjs";
import {
  decodeClips, decodeValues, encodeClips, encodeValues, groupSizes, modelDigest, parseLayout,
} from "../reader/model.mjs";
import { plan } from "../reader/parameters.mjs";
import { parsePolicy, updateLength } from "../reader/policy.mjs";
import * as rounding from "../reader/rounding.mjs";
import { clipsAt } from "./arithmetic.mjs";
import { checkUpdate, decryptSum } from "./ciphertexts.mjs";
import { fromHex, toHex } from "./expect.mjs";

export const round = {
  round(vectors, expect, readFile) {
    const policy = parsePolicy(fromHex(vectors.policy));
    const layout = fromHex(vectors.layout);
    const sizes = groupSizes(parseLayout(layout));
    const parameters = plan(Number(policy.codec.bits), Number(policy.codec.max_contributors));
    const maxExamples = Number(policy.rounds.max_examples);
    const digestOf = (flat, clips) =>
      toHex(modelDigest(sha256(layout), flat.length, sha256(encodeValues(flat)), clips));
    expect.equal(toHex(sha256(layout)), toHex(policy.model.architecture), "architecture");

    // The base model, and what of it travels.
    const [base, clips] = [decodeValues(fromHex(vectors.base.flat)), decodeClips(fromHex(vectors.base.clips))];
    expect.equal(digestOf(base, clips), vectors.base.digest, "base model");
    const seed = rounding.selectionSeed(
      BigInt(vectors.chain_id), fromHex(vectors.contract), vectors.round, fromHex(vectors.base.digest),
    );
    const positions = rounding.selectPositions(base.length, Number(policy.codec.keep_one_in), seed);
    expect.equal(positions, vectors.positions, "positions");
    const length = updateLength(policy);
    const clipOf = clipsAt(sizes, clips, positions);

    // Each node's update.
    const secret = bfv.expandSecretKey(fromHex(vectors.secret_key), parameters.contextDigest);
    const updates = vectors.updates.map((each) => {
      const weight = rounding.computeWeight(each.examples, maxExamples);
      const [delta, drawn] = [decodeValues(fromHex(each.delta)), decodeFloats(fromHex(each.u))];
      const values = rounding.quantise(delta, clipOf, drawn, parameters.limit, weight);
      expect.equal(values, each.values, "quantised values");
      const chunk = readFile(each.chunk);
      const manifest = verifyHeader(fromHex(each.manifest), [leafDigest(chunk)], fromHex(each.root));
      expect.equal(toHex(manifest.node), each.node, "node in the manifest");
      expect.equal(Number(manifest.examples), each.examples, "examples in the manifest");
      expect.equal(toHex(manifest.base_model), vectors.base.digest, "base model in the manifest");
      expect.equal(toHex(manifest.policy_digest), toHex(sha256(fromHex(vectors.policy))), "policy in the manifest");
      verifyBase(manifest, policy.model.architecture);
      const frames = parseUpdateChunk(chunk, parameters, 0, length);
      checkUpdate(expect, frames, values, secret, parameters);
      return frames;
    });
    refuseCopies(updates);

    // Their sum.
    const total = readFile(vectors.aggregate.chunk);
    expect.equal(sumChunks(updates, parameters).equals(total), true, "recomputed sum");
    const aggregate = verifyHeader(
      fromHex(vectors.aggregate.manifest), [leafDigest(total)], fromHex(vectors.aggregate.root),
    );
    const named = aggregate.contributors.map(({ node, root, examples }) => ({
      node: toHex(node), root: toHex(root), examples: Number(examples),
    }));
    expect.equal(named, vectors.updates.map(({ node, root, examples }) => ({ node, root, examples })), "contributors");
    const sums = bfv.unpackSums(decryptSum(total, parameters, length, secret), length, updates.length, parameters);
    expect.equal(sums, vectors.aggregate.sums, "decrypted sums");

    // What follows from it.
    const totalExamples = vectors.updates.reduce((sum, each) => sum + Math.min(each.examples, maxExamples), 0);
    const scale = { limit: parameters.limit, maxExamples, totalExamples, contributors: updates.length };
    const flat = rounding.applySums(base, positions, sums, clipOf, scale);
    expect.equal(toHex(encodeValues(flat)), vectors.next.flat, "next model");
    const { clip_margin: margin, clip: clipMax } = policy.codec;
    const groups = rounding.measureGroups(sizes, positions, sums);
    const following = rounding.nextClips(clips, groups, { ...scale, margin, clipMax });
    expect.equal(toHex(encodeClips(following)), vectors.next.clips, "next clips");
    expect.equal(digestOf(flat, following), vectors.next.digest, "the digest that nodes attest");

    // A manifest of the one kind is none of the other.
    expect.refused(() => parseUpdateManifest(fromHex(vectors.aggregate.manifest)), "a sum's manifest");
    expect.refused(() => parseAggregateManifest(fromHex(vectors.updates[0].manifest)), "an update's manifest");
  },
};
