// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Quorum} from "./Quorum.sol";

/// @title Each node's wallet signature, recovered on chain
contract Ecdsa is Quorum {
    /// @notice All have signed the same attestation; signers ascend by address.
    function proveAttestation(uint32 round, bytes32 modelDigest, Signature[] calldata signatures) external {
        _requireQuorum(round, signatures.length);
        bytes32 digest = _hashAttestation(round, modelDigest);
        address previous;
        for (uint256 i; i < signatures.length; ++i) {
            address node = _recover(digest, signatures[i]);
            _requireNext(round, previous, node);
            previous = node;
        }
        _record(round, modelDigest, signatures.length);
    }

    /// @notice Each has signed a commitment of its own; nodes ascend by address.
    function proveCommitments(uint32 round, Commitment[] calldata said, Signature[] calldata signatures) external {
        _requireQuorum(round, said.length);
        address previous;
        for (uint256 i; i < said.length; ++i) {
            address node = said[i].node;
            _requireNext(round, previous, node);
            if (_recover(_hashCommitment(round, said[i]), signatures[i]) != node) revert WrongSignature();
            previous = node;
        }
        _record(round, keccak256(abi.encode(said)), said.length);
    }
}
