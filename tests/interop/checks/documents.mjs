import { sha256 } from "../reader/fields.mjs";
import { openWrappingKeyFile, wrappedKeyInfo, wrappedKeysRoot } from "../reader/keys.mjs";
import * as manifests from "../reader/manifest.mjs";
import { leafDigest } from "../reader/merkle.mjs";
import * as model from "../reader/model.mjs";
import { chunkCount, plan } from "../reader/parameters.mjs";
import { encodePolicy, parsePolicy, updateLength } from "../reader/policy.mjs";
import { fromHex, toHex } from "./expect.mjs";

export const documents = {
  layout(vectors, expect) {
    const tensors = model.describeStateDict(vectors.state_dict);
    expect.equal(toHex(model.encodeLayout(tensors)), vectors.layout, "layout");
    expect.equal(model.parseLayout(fromHex(vectors.layout)), tensors, "parsed layout");
    expect.equal(toHex(sha256(fromHex(vectors.layout))), vectors.layout_digest, "layout digest");
    expect.equal(model.groupSizes(tensors), vectors.group_sizes, "groups");
    expect.equal(toHex(model.encodeValues(model.flatten(vectors.state_dict))), vectors.flat, "flat vector");
    for (const { layout, why } of vectors.refused) expect.refused(() => model.parseLayout(fromHex(layout)), why);
  },

  model(vectors, expect) {
    for (const each of vectors.models) {
      const [layout, values, clips] = [each.layout, each.flat, each.clips].map(fromHex);
      const digest = model.modelDigest(
        sha256(layout), values.length / 4, sha256(values), model.decodeClips(clips),
      );
      expect.equal(toHex(sha256(values)), each.values_digest, "values digest");
      expect.equal(toHex(digest), each.model_digest, "model digest");
      const parsed = model.parseModelFile(fromHex(each.file));
      expect.equal(parsed, { layout, values, clips: model.decodeClips(clips), digest }, "parsed file");
      expect.equal(toHex(model.encodeModelFile(parsed)), each.file, "file");
    }
    for (const { clips, why } of vectors.refused_clips) expect.refused(() => model.decodeClips(fromHex(clips)), why);
    for (const { file, why } of vectors.refused) expect.refused(() => model.parseModelFile(fromHex(file)), why);
  },

  policy(vectors, expect) {
    for (const { document, canonical, digest, update_length: length, chunks } of vectors.policies) {
      const policy = parsePolicy(fromHex(canonical));
      expect.equal(spell(policy), spell(document), "document");
      expect.equal(toHex(encodePolicy(policy)), canonical, "canonical bytes");
      expect.equal(toHex(sha256(fromHex(canonical))), digest, "digest");
      expect.equal(updateLength(policy), length, "update length");
      const parameters = plan(Number(policy.codec.bits), Number(policy.codec.max_contributors));
      expect.equal(chunkCount(parameters, length), chunks, "chunks");
    }
    for (const { canonical, why } of vectors.refused) expect.refused(() => parsePolicy(fromHex(canonical)), why);
  },

  manifests(vectors, expect) {
    const digests = vectors.chunk_digests.map(fromHex);
    const { parseUpdateManifest, encodeUpdateManifest, parseAggregateManifest, encodeAggregateManifest } = manifests;
    const check = (each, parse, encode) => {
      const manifest = parse(fromHex(each.encoded));
      expect.equal(spell(manifest), spell(each.manifest), "manifest");
      expect.equal(toHex(encode(manifest)), each.encoded, "encoded manifest");
      expect.equal(toHex(leafDigest(fromHex(each.encoded))), each.leaf, "leaf");
      manifests.verifyHeader(fromHex(each.encoded), digests, fromHex(each.root));
    };
    for (const each of vectors.updates) {
      check(each, parseUpdateManifest, encodeUpdateManifest);
      manifests.verifyBase(parseUpdateManifest(fromHex(each.encoded)), fromHex(vectors.layout_digest));
    }
    for (const each of vectors.aggregates) check(each, parseAggregateManifest, encodeAggregateManifest);
    for (const { encoded, why } of vectors.refused_updates) {
      expect.refused(() => parseUpdateManifest(fromHex(encoded)), why);
    }
    for (const { encoded, why } of vectors.refused_aggregates) {
      expect.refused(() => parseAggregateManifest(fromHex(encoded)), why);
    }
    for (const { encoded, why } of vectors.refused_bases) {
      const manifest = parseUpdateManifest(fromHex(encoded)); // in order by itself
      expect.refused(() => manifests.verifyBase(manifest, fromHex(vectors.layout_digest)), why);
    }
    for (const { encoded, chunk_digests: leaves, root, why } of vectors.refused_headers) {
      expect.refused(() => manifests.verifyHeader(fromHex(encoded), leaves.map(fromHex), fromHex(root)), why);
    }
  },

  wrapped_keys(vectors, expect, readFile) {
    const { publicKey, privateKey } = openWrappingKeyFile(readFile(vectors.file), vectors.password);
    expect.equal(toHex(publicKey), vectors.public_key, "public key");
    expect.equal(privateKey.length, 96, "private key");
    expect.equal(toHex(sha256(publicKey)), vectors.digest, "wrapping key digest");
    expect.refused(() => openWrappingKeyFile(readFile(vectors.file), "another password"), "another password");
    const info = wrappedKeyInfo({
      chainId: BigInt(vectors.for.chain_id),
      contract: fromHex(vectors.for.contract),
      epoch: vectors.for.epoch,
      node: fromHex(vectors.for.node),
      contextDigest: fromHex(vectors.for.context_digest),
    });
    expect.equal(toHex(info), vectors.info, "info");
    const others = vectors.others.map((each) => each.map(fromHex));
    const wrapped = [[fromHex(vectors.for.node), readFile(vectors.wrapped)], ...others];
    expect.equal(toHex(wrappedKeysRoot(wrapped)), vectors.root, "root");
    expect.refused(() => wrappedKeysRoot([...wrapped].reverse()), "nodes out of order");
    expect.refused(() => wrappedKeysRoot([wrapped[0], wrapped[0]]), "a node twice");
  },
};

/** Return a document as the vectors spell it: bytes in hexadecimal, integers as text, clips as bytes. */
function spell(value, name = "") {
  if (name === "clips" && Array.isArray(value)) return toHex(model.encodeClips(value));
  if (Buffer.isBuffer(value)) return toHex(value);
  if (name === "error_feedback" || name === "batching") return Boolean(value);
  if (name === "contributors") return value.map((each) => Object.values(each).map((field) => spell(field)));
  if (typeof value === "bigint" || Number.isInteger(value)) return String(value);
  if (typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, spell(value[key], key)]));
}
