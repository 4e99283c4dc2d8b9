// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Quorum} from "./Quorum.sol";

/// @title One root for all; whoever finds a leaf wrong proves it before the deadline, and the round fails
contract Optimistic is Quorum {
    /// @notice One leaf, so that the root binds signatures too and a forged one can be shown.
    struct Leaf {
        Commitment said;
        Signature signature;
    }

    error DeadlinePassed(uint32 round, uint40 deadline);
    error WrongInclusion();
    error SoundLeaf(uint256 index);

    uint40 private constant WINDOW_S = 3600;

    /// @notice Root of the current round's batch. Nothing reads an earlier one: history has it.
    bytes32 public batchRoot;

    /// @notice Anchors the root of `count` leaves (RFC 6962, SHA-256).
    function anchor(uint32 round, bytes32 root, uint16 count) external {
        _requireQuorum(round, count);

        Round storage current = _rounds[round];
        current.count = count;
        current.deadline = uint40(block.timestamp) + WINDOW_S;
        batchRoot = root;
        _record(round, root, count);
    }

    /// @notice Fails the round, whose batch has at `index` a leaf that its node has not signed.
    function challenge(uint32 round, uint256 index, Leaf calldata leaf, bytes32[] calldata proof) external {
        Round storage current = _rounds[round];
        if (current.phase != Phase.Open) revert WrongPhase(round, current.phase);
        if (block.timestamp > current.deadline) revert DeadlinePassed(round, current.deadline);
        bytes32 digest = sha256(abi.encodePacked(hex"00", abi.encode(leaf)));
        if (_computeRoot(digest, index, current.count, proof) != batchRoot) revert WrongInclusion();
        Member memory member = _members[leaf.said.node];
        bool sound = _recover(_hashCommitment(round, leaf.said), leaf.signature) == leaf.said.node;
        if (sound && member.admitted && member.firstRound <= round) revert SoundLeaf(index);

        current.phase = Phase.Failed;
        _record(round, digest, index);
    }

    /// @dev RFC 9162, section 2.1.3.2: the root that a proof leads to from the leaf at `index` of `count`.
    function _computeRoot(bytes32 digest, uint256 index, uint256 count, bytes32[] calldata proof)
        private
        pure
        returns (bytes32)
    {
        if (index >= count) revert WrongInclusion();
        uint256 last = count - 1;
        for (uint256 i; i < proof.length; ++i) {
            if (last == 0) revert WrongInclusion();
            if (index & 1 == 1 || index == last) {
                digest = sha256(abi.encodePacked(hex"01", proof[i], digest));
                // The last node of an uneven level has moved up as it is.
                while (index & 1 == 0 && index != 0) {
                    index >>= 1;
                    last >>= 1;
                }
            } else {
                digest = sha256(abi.encodePacked(hex"01", digest, proof[i]));
            }
            index >>= 1;
            last >>= 1;
        }
        if (last != 0) revert WrongInclusion();
        return digest;
    }
}
