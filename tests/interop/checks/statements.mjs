import { computeRoot, leafDigest, nodeDigest } from "../reader/merkle.mjs";
import * as statements from "../reader/statements.mjs";
import { fromHex, toHex } from "./expect.mjs";

export const statementChecks = {
  statements(vectors, expect) {
    const { batch, proposal } = vectors;
    const parsed = statements.parseBatch(fromHex(batch.document));
    const vouched = statements.parseProposal(fromHex(proposal.document));
    vectors.statements.forEach((each, i) => {
      const values = [each.node, each.update_root, each.examples, each.nonce, each.commitment_signature];
      const [node, root, examples, nonce, signature] = parsed[i];
      const came = [toHex(node), toHex(root), Number(examples), String(nonce), toHex(signature)];
      expect.equal(came, values, "commitment");
      expect.equal(vouched[i].map(toHex), [each.node, each.attestation_signature], "attestation");
      expect.equal(toHex(statements.encodeCommitment(...parsed[i])), batch.leaves[i], "commitment's leaf");
      expect.equal(toHex(statements.encodeAttestation(...vouched[i])), proposal.leaves[i], "attestation's leaf");
    });
    for (const { leaves, root, paths } of [batch, proposal]) {
      const digests = leaves.map((leaf) => leafDigest(fromHex(leaf)));
      expect.equal(toHex(computeRoot(digests)), root, "root");
      paths.forEach((path, i) => expect.equal(toHex(follow(digests[i], i, leaves.length, path)), root, "path"));
    }
    for (const { document, why } of vectors.refused) {
      expect.refused(() => statements.parseBatch(fromHex(document)), why);
    }
  },
};

/** Return where a path leads from a leaf: RFC 9162, section 2.1.3.2. */
function follow(leaf, index, size, path) {
  let [fn, sn, digest] = [index, size - 1, leaf];
  for (const sibling of path.map(fromHex)) {
    if (fn % 2 === 1 || fn === sn) {
      digest = nodeDigest(sibling, digest);
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [fn >> 1, sn >> 1];
    } else {
      digest = nodeDigest(digest, sibling);
    }
    [fn, sn] = [fn >> 1, sn >> 1];
  }
  return sn === 0 ? digest : Buffer.alloc(0);
}
