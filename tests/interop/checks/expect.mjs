// Counts what holds, and throws at the first thing that does not.

import { deepStrictEqual } from "node:assert/strict";

import { Refused } from "../reader/fields.mjs";

export const fromHex = (text) => Buffer.from(text, "hex");
export const toHex = (bytes) => Buffer.from(bytes).toString("hex");

export class Expect {
  held = 0;
  refusals = 0;

  equal(came, expected, what) {
    try {
      deepStrictEqual(came, expected);
    } catch (error) {
      throw new Error(`${what}: ${error.message}`);
    }
    this.held += 1;
  }

  /** Expect that reading is refused, and not that it fails in another way. */
  refused(read, why) {
    try {
      read();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.held += 1;
      this.refusals += 1;
      return;
    }
    throw new Error(`not refused: ${why}`);
  }
}
