// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Inclusion proofs in Merkle trees that keep their leaves' order
/// @notice RFC 6962, section 2.1: leaves and inner nodes are hashed with different first bytes, and pairs are not sorted,
/// so that a root fixes each leaf's position.
library InclusionProof {
    /// @notice Return whether a leaf stands at an index of a tree.
    /// @dev The algorithm of RFC 9162, section 2.1.3.2, in its order.
    /// @param root The tree's root.
    /// @param size How many leaves the tree has.
    /// @param index Where the leaf stands, from 0.
    /// @param leaf Its bytes.
    /// @param path The siblings on the way to the root, the lowest first.
    function verify(
        bytes32 root,
        uint256 size,
        uint256 index,
        bytes calldata leaf,
        bytes32[] calldata path
    ) internal pure returns (bool) {
        if (index >= size) return false;
        uint256 position = index;
        uint256 last = size - 1;
        bytes32 digest = sha256(bytes.concat(hex"00", leaf));
        for (uint256 i; i < path.length; ++i) {
            if (last == 0) return false;
            if (position & 1 == 1 || position == last) {
                digest = sha256(bytes.concat(hex"01", path[i], digest));
                while (position & 1 == 0 && position != 0) {
                    position >>= 1;
                    last >>= 1;
                }
            } else {
                digest = sha256(bytes.concat(hex"01", digest, path[i]));
            }
            position >>= 1;
            last >>= 1;
        }
        return last == 0 && digest == root;
    }
}
