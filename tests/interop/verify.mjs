// Checks tests/vectors with a reader that shares no code with the product: node tests/interop/verify.mjs
//
// Prints a line for each file, and ends with status 1 if a vector does not hold or a file has no check.

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { arithmetic } from "./checks/arithmetic.mjs";
import { ciphertexts } from "./checks/ciphertexts.mjs";
import { documents } from "./checks/documents.mjs";
import { encodings } from "./checks/encodings.mjs";
import { Expect } from "./checks/expect.mjs";
import { round } from "./checks/round.mjs";
import { statementChecks } from "./checks/statements.mjs";

const CHECKS = { ...encodings, ...documents, ...arithmetic, ...ciphertexts, ...round, ...statementChecks };

const folder = process.argv[2] ?? fileURLToPath(new URL("../vectors/", import.meta.url));
const readFile = (name) => readFileSync(`${folder}/${name}`);
const names = readdirSync(folder).filter((name) => name.endsWith(".json"));
const sections = [...new Set([...names.map((name) => name.slice(0, -5)), ...Object.keys(CHECKS)])].sort();

for (const section of sections) {
  const expect = new Expect();
  try {
    if (!(section in CHECKS)) throw new Error("no check reads this file");
    CHECKS[section](JSON.parse(readFile(`${section}.json`)), expect, readFile);
    console.log(`${section}.json: ${expect.held} hold, ${expect.refusals} of them refusals`);
  } catch (error) {
    console.log(`${section}.json: FAILS: ${error.message}`);
    process.exitCode = 1;
  }
}
