// Policy documents: docs/format.md, "Policy document".

import { encodeFields, readDocument, refuseUnless } from "./fields.mjs";

const COUNT = [1n, 2n ** 32n - 1n];
const SECONDS = [1n, 2n ** 24n - 1n];
const FINITE = Number.MAX_VALUE;

// Every field after the tag: its section and name, its type, and its lowest and highest value.
const FIELDS = [
  [null, "name", "text"],
  ["model", "architecture", "bytes"],
  ["model", "parameters", "integer", ...COUNT],
  ["model", "genesis", "bytes"],
  ["model", "seed", "integer", 0n, 2n ** 63n - 1n],
  ["codec", "bits", "integer", 8n, 24n],
  ["codec", "max_contributors", "integer", 2n, 1000n],
  ["codec", "clip", "float", 2 ** -64, 2 ** 64],
  ["codec", "clip_margin", "float", 0, 1024],
  ["codec", "keep_one_in", "integer", 1n, 1024n],
  ["codec", "error_feedback", "integer", 0n, 1n],
  ["rounds", "min_contributors", "integer", 2n, 1000n],
  ["rounds", "attestation_quorum", "integer", 1n, 1000n],
  ["rounds", "max_examples", "integer", ...COUNT],
  ["rounds", "commit_window_s", "integer", ...SECONDS],
  ["rounds", "aggregate_window_s", "integer", ...SECONDS],
  ["rounds", "attest_window_s", "integer", ...SECONDS],
  ["rounds", "batching", "integer", 0n, 1n],
  ["training", "epochs", "integer", ...COUNT],
  ["training", "batch_size", "integer", ...COUNT],
  ["training", "learning_rate", "float", Number.MIN_VALUE, FINITE],
  ["training", "momentum", "float", 0, 1 - 2 ** -53],
  ["training", "weight_decay", "float", 0, FINITE],
  ["privacy", "round_cost", "integer", 0n, 2n ** 63n - 1n],
  ["privacy", "budget", "integer", 0n, 2n ** 63n - 1n],
  ["evidence", "retention_days", "integer", 0n, 36500n],
];

const TYPES = FIELDS.map(([, , type]) => type);

/** Return the policy: fields by section, integers as BigInt. */
export function parsePolicy(raw) {
  const policy = { model: {}, codec: {}, rounds: {}, training: {}, privacy: {}, evidence: {} };
  readDocument(raw, "fedproof.policy.v1", TYPES).forEach((value, i) => {
    const [section, name, type, lowest, highest] = FIELDS[i];
    if (type === "bytes") refuseUnless(value.length === 32, `${name} is not 32 bytes`);
    else if (type !== "text") refuseUnless(value >= lowest && value <= highest, `${name} is out of range`);
    (section ? policy[section] : policy)[name] = value;
  });
  refuseUnless(/^[^\p{C}\p{Z}]*$/u.test(policy.name.replaceAll(" ", "")), "a character that is not printable");
  refuseUnless([...policy.name].length >= 1 && [...policy.name].length <= 200, "a name that is too short or long");
  refuseUnless(policy.codec.clip_margin === 0 || policy.codec.clip_margin >= 1, "a margin between 0 and 1");
  for (const name of ["min_contributors", "attestation_quorum"]) {
    refuseUnless(policy.rounds[name] <= policy.codec.max_contributors, `${name} is above max_contributors`);
  }
  const { batching, commit_window_s: commit, attest_window_s: attest } = policy.rounds;
  refuseUnless(batching === 0n || attest < commit, "no time to commit after a batch");
  const { round_cost: cost, budget } = policy.privacy;
  refuseUnless(cost === 0n || budget > 0n, "a privacy cost without a budget");
  return policy;
}

export function encodePolicy(policy) {
  const values = FIELDS.map(([section, name]) => (section ? policy[section] : policy)[name]);
  return encodeFields("fedproof.policy.v1", ...values);
}

export function updateLength(policy) {
  const { keep_one_in: m } = policy.codec;
  return Number((policy.model.parameters + m - 1n) / m);
}
