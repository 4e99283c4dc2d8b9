// Canonical fields and digests: docs/format.md, "Canonical fields" and "Digests".
//
// A field's type follows from the value's: Buffer is bytes, string is text, BigInt is an integer, number is a float.

import { createHash } from "node:crypto";

/** Bytes that a reader must refuse; the message says why. */
export class Refused extends Error {}

export function refuseUnless(holds, why) {
  if (!holds) throw new Refused(why);
}

export function sha256(...parts) {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

export function encodeFields(...fields) {
  return Buffer.concat(
    fields.flatMap((field) => {
      const bytes = encodeField(field);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(bytes.length);
      return [length, bytes];
    }),
  );
}

export function taggedDigest(tag, ...fields) {
  return sha256(encodeFields(tag, ...fields));
}

/** Return the fields' bytes. */
export function splitFields(raw) {
  const fields = [];
  for (let position = 0; position < raw.length; ) {
    refuseUnless(position + 4 <= raw.length, "a length is cut short");
    const end = position + 4 + raw.readUInt32BE(position);
    refuseUnless(end <= raw.length, "a field is cut short");
    fields.push(raw.subarray(position + 4, end));
    position = end;
  }
  return fields;
}

/** Return the values of exactly these types: "bytes", "text", "integer" or "float". */
export function readFields(raw, types) {
  const fields = splitFields(raw);
  refuseUnless(fields.length === types.length, `${fields.length} fields instead of ${types.length}`);
  return fields.map((field, i) => decoders[types[i]](field));
}

/** Return the fields after the tag of a document. */
export function readDocument(raw, tag, types) {
  const [came, ...values] = readFields(raw, ["bytes", ...types]);
  refuseUnless(came.equals(Buffer.from(tag)), `another tag than ${tag}`);
  return values;
}

export function decodeFloats(raw) {
  refuseUnless(raw.length % 8 === 0, "a float is cut short");
  return Array.from({ length: raw.length / 8 }, (_, i) => raw.readDoubleBE(8 * i));
}

const decoders = {
  bytes: (field) => field,
  text: decodeText,
  integer(field) {
    refuseUnless(field.length === 8, "an integer that is not 8 bytes");
    return field.readBigUInt64BE();
  },
  float(field) {
    refuseUnless(field.length === 8, "a float that is not 8 bytes");
    return field.readDoubleBE();
  },
};

export function decodeText(field) {
  try {
    // ignoreBOM: a byte order mark is a character like others, and not skipped.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(field);
  } catch {
    throw new Refused("text that is not UTF-8");
  }
}

function encodeField(field) {
  if (typeof field === "string") return Buffer.from(field);
  const bytes = Buffer.alloc(8);
  if (typeof field === "bigint") bytes.writeBigUInt64BE(field);
  else if (typeof field === "number") bytes.writeDoubleBE(field);
  else return field;
  return bytes;
}
