#!/usr/bin/env node
// Speaks the part of solc's command line that py-solc-x uses, on top of the npm package `solc`.
// The package's own solcjs prints progress lines before its JSON, which py-solc-x cannot read.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const solc = require(path.join(__dirname, "..", "contracts", "node_modules", "solc"));

if (process.argv.includes("--version")) {
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}\n`);
} else if (process.argv.includes("--standard-json")) {
  process.stdout.write(solc.compile(fs.readFileSync(0, "utf8")));
} else {
  process.stderr.write("solc_shim.cjs: expected --version or --standard-json\n");
  process.exitCode = 1;
}
