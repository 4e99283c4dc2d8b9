// Layouts, flat vectors, models and their files: docs/format.md, "Model layout and model digest", "Model file".

import {
  decodeFloats, decodeText, encodeFields, readDocument, refuseUnless, sha256, splitFields, taggedDigest,
} from "./fields.mjs";

const FLOATING = { float16: 2, bfloat16: 2, float32: 4, float64: 8 }; // bytes of one value
const OTHER = ["bool", "uint8", "int8", "int16", "int32", "int64"];

/** Return the tensors of a layout's bytes: name, type, frozen (a digest or null), shape. */
export function parseLayout(raw) {
  const [tag, ...encoded] = splitFields(raw);
  refuseUnless(tag?.equals(Buffer.from("fedproof.layout.v1")), "another tag");
  const tensors = encoded.map(parseTensor);
  refuseUnless(new Set(tensors.map((each) => each.name)).size === tensors.length, "two tensors of one name");
  refuseUnless(groupSizes(tensors).some((size) => size > 0), "no value travels");
  return tensors;
}

export function encodeLayout(tensors) {
  return encodeFields(
    "fedproof.layout.v1",
    ...tensors.map(({ name, type, frozen, shape }) =>
      encodeFields(name, type, frozen ?? Buffer.alloc(0), ...shape.map(BigInt)),
    ),
  );
}

/** Return the layout of a state dict, as tests/vectors/layout.json describes one. */
export function describeStateDict(entries) {
  return entries
    .filter((entry) => entry.tied_to === null)
    .map((entry) => ({
      name: entry.name,
      type: entry.type,
      shape: entry.shape,
      frozen: entry.kind === "parameter" && !entry.requires_grad ? sha256(Buffer.from(entry.values, "hex")) : null,
    }));
}

/** Return the flat vector of a state dict. */
export function flatten(entries) {
  const travelling = new Set(describeStateDict(entries).filter(travels).map((tensor) => tensor.name));
  return Float32Array.from(
    entries
      .filter((entry) => travelling.has(entry.name))
      .flatMap((entry) => readFloats(Buffer.from(entry.values, "hex"), entry.type)),
  );
}

export function groupSizes(tensors) {
  return tensors.filter(travels).map((tensor) => tensor.shape.reduce((size, each) => size * each, 1));
}

export function decodeClips(raw) {
  const clips = decodeFloats(raw);
  refuseUnless(clips.length > 0, "no clip");
  refuseUnless(clips.every((clip) => clip > 0 && clip < Infinity), "a clip that is not positive and finite");
  return clips;
}

export function encodeClips(clips) {
  const raw = Buffer.alloc(8 * clips.length);
  clips.forEach((clip, i) => raw.writeDoubleBE(clip, 8 * i));
  return raw;
}

/** Return float32 values as little-endian bytes, whatever this machine's order. */
export function encodeValues(flat) {
  const raw = Buffer.alloc(4 * flat.length);
  flat.forEach((value, i) => raw.writeFloatLE(value, 4 * i));
  return raw;
}

export function decodeValues(raw) {
  return Float32Array.from({ length: raw.length / 4 }, (_, i) => raw.readFloatLE(4 * i));
}

/** Return a model's digest; parameters is d. */
export function modelDigest(layoutDigest, parameters, valuesDigest, clips) {
  return taggedDigest("fedproof.model.v1", layoutDigest, BigInt(parameters), valuesDigest, encodeClips(clips));
}

/** Return the layout's bytes, the values' bytes, the clips and the digest in a model file. */
export function parseModelFile(raw) {
  let end = 0;
  for (let i = 0; i < 4; i++) {
    refuseUnless(end + 4 <= raw.length, "a length is cut short");
    end += 4 + raw.readUInt32BE(end);
  }
  const head = raw.subarray(0, end);
  const [layout, digest, clipsField] = readDocument(head, "fedproof.model-file.v1", ["bytes", "bytes", "bytes"]);
  const sizes = groupSizes(parseLayout(layout));
  const clips = decodeClips(clipsField);
  const values = raw.subarray(end);
  const parameters = sizes.reduce((sum, size) => sum + size, 0);
  refuseUnless(values.length === 4 * parameters, "values too few or too many");
  refuseUnless(clips.length === sizes.length, "clips too few or too many");
  const came = modelDigest(sha256(layout), parameters, sha256(values), clips);
  refuseUnless(came.equals(digest), "another digest");
  return { layout, values, clips, digest };
}

export function encodeModelFile({ layout, values, clips, digest }) {
  return Buffer.concat([encodeFields("fedproof.model-file.v1", layout, digest, encodeClips(clips)), values]);
}

function parseTensor(raw) {
  const [name, type, frozen, ...sizes] = splitFields(raw);
  refuseUnless(frozen !== undefined, "a tensor of fewer than three fields");
  refuseUnless(frozen.length === 0 || frozen.length === 32, "a digest that is not 32 bytes");
  const tensor = {
    name: decodeText(name),
    type: decodeText(type),
    frozen: frozen.length ? frozen : null,
    shape: sizes.map((size) => {
      refuseUnless(size.length === 8 && size.readBigUInt64BE() < 1n << 32n, "a size that is not below 2^32");
      return Number(size.readBigUInt64BE());
    }),
  };
  refuseUnless(tensor.type in FLOATING || OTHER.includes(tensor.type), "an unknown type");
  return tensor;
}

function travels(tensor) {
  return tensor.type in FLOATING && tensor.frozen === null;
}

function readFloats(raw, type) {
  const read = {
    float16: (at) => halfToNumber(raw.readUInt16LE(at)),
    bfloat16: (at) => bitsToNumber(raw.readUInt16LE(at) << 16),
    float32: (at) => raw.readFloatLE(at),
    float64: (at) => Math.fround(raw.readDoubleLE(at)),
  }[type];
  const size = FLOATING[type];
  return Array.from({ length: raw.length / size }, (_, i) => read(size * i));
}

function bitsToNumber(bits) {
  const raw = Buffer.alloc(4);
  raw.writeInt32BE(bits);
  return raw.readFloatBE();
}

function halfToNumber(bits) {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}
