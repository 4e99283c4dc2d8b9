// Manifests: docs/format.md, "Manifests".

import { encodeFields, readDocument, refuseUnless, splitFields } from "./fields.mjs";
import { computeRoot, leafDigest } from "./merkle.mjs";
import { decodeClips, encodeClips, modelDigest } from "./model.mjs";

const UPDATE = {
  tag: "fedproof.update-manifest.v1",
  fields: {
    chain_id: "integer", contract: "address", round: "integer", node: "address", epoch: "integer",
    policy_digest: "digest", base_model: "digest", base_values: "digest", clips: "clips",
    parameters: "integer", chunks: "integer", examples: "integer",
  },
};
const AGGREGATE = {
  tag: "fedproof.aggregate-manifest.v1",
  fields: {
    chain_id: "integer", contract: "address", round: "integer", epoch: "integer", policy_digest: "digest",
    contributors: "contributors", parameters: "integer", chunks: "integer",
  },
};

export const parseUpdateManifest = (raw) => parse(raw, UPDATE);
export const parseAggregateManifest = (raw) => parse(raw, AGGREGATE);
export const encodeUpdateManifest = (manifest) => encode(manifest, UPDATE);
export const encodeAggregateManifest = (manifest) => encode(manifest, AGGREGATE);

/** Return the manifest under a root, which may be an update's or an aggregate's. */
export function verifyHeader(raw, chunkDigests, root) {
  refuseUnless(computeRoot([leafDigest(raw), ...chunkDigests]).equals(root), "another root");
  const isUpdate = raw.subarray(4).indexOf(UPDATE.tag) === 0;
  const manifest = isUpdate ? parseUpdateManifest(raw) : parseAggregateManifest(raw);
  refuseUnless(manifest.chunks === BigInt(chunkDigests.length), "another number of chunks");
  return manifest;
}

/** Refuse a manifest whose values and clips are not those of its base model. */
export function verifyBase(manifest, layoutDigest) {
  const { parameters, base_values: values, clips } = manifest;
  const came = modelDigest(layoutDigest, parameters, values, clips);
  refuseUnless(came.equals(manifest.base_model), "not the base model's values and clips");
}

function parse(raw, { tag, fields }) {
  const names = Object.keys(fields);
  const types = names.map((name) => (fields[name] === "integer" ? "integer" : "bytes"));
  const manifest = {};
  readDocument(raw, tag, types).forEach((value, i) => {
    manifest[names[i]] = readers[fields[names[i]]](value, names[i]);
  });
  return manifest;
}

function encode(manifest, { tag, fields }) {
  const writers = { clips: encodeClips, contributors: encodeContributors };
  const values = Object.entries(fields).map(([name, kind]) => (writers[kind] ?? ((value) => value))(manifest[name]));
  return encodeFields(tag, ...values);
}

const readers = {
  integer(value, name) {
    const highest = name === "chain_id" ? 2n ** 64n - 1n : 2n ** 32n - 1n;
    refuseUnless(value >= 1n && value <= highest, `${name} is out of range`);
    return value;
  },
  address: (value, name) => readBytes(value, 20, name),
  digest: (value, name) => readBytes(value, 32, name),
  clips: decodeClips,
  contributors(value) {
    const fields = splitFields(value);
    refuseUnless(fields.length > 0 && fields.length % 3 === 0, "contributors that are not of three fields each");
    const contributors = [];
    for (let i = 0; i < fields.length; i += 3) {
      const [node, root] = [readBytes(fields[i], 20, "node"), readBytes(fields[i + 1], 32, "update root")];
      const examples = readers.integer(readBytes(fields[i + 2], 8, "examples").readBigUInt64BE(), "examples");
      const before = contributors.at(-1);
      refuseUnless(!before || Buffer.compare(before.node, node) < 0, "contributors that do not ascend");
      contributors.push({ node, root, examples });
    }
    return contributors;
  },
};

function readBytes(value, size, name) {
  refuseUnless(value.length === size, `${name} is not ${size} bytes`);
  return value;
}

function encodeContributors(contributors) {
  return Buffer.concat(contributors.map(({ node, root, examples }) => encodeFields(node, root, examples)));
}
