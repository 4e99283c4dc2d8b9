// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Vm} from "forge-std/Vm.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title A ledger's running hash, computed from its events alone
abstract contract Replay {
    /// @dev Of one ledger, or of one after the other: set it to 0 before the next.
    bytes32 public replayedHash;
    mapping(address ledger => mapping(uint24 round => mapping(address node => bytes24))) private _commitments;

    function replay(Vm.Log[] memory logs, address ledger) internal {
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].emitter == ledger) replay(logs[i]);
        }
    }

    function replay(Vm.Log memory log) private {
        bytes32 topic = log.topics[0];
        if (topic == IFederation.UpdateCommitted.selector) return keep(log);
        bytes memory entry;
        if (topic == IFederation.RoundSealed.selector) {
            uint24 round = uint24(uint256(log.topics[1]));
            (address[] memory nodes, bytes memory reasons, uint40 deadline) =
                abi.decode(log.data, (address[], bytes, uint40));
            entry = abi.encode(topic, round, nodes, reasons, deadline, hashCommitments(log.emitter, round, nodes));
        } else if (topic == IFederation.RoundFinalised.selector) {
            (bytes32 model, uint16 attested, address[] memory signers) =
                abi.decode(log.data, (bytes32, uint16, address[]));
            entry = abi.encode(topic, log.topics[1], model, attested, signers);
        } else {
            // The indexed arguments come first in all events, and no other event has one of variable length.
            entry = bytes.concat(abi.encodePacked(log.topics), log.data);
        }
        replayedHash = keccak256(abi.encode(replayedHash, keccak256(entry)));
    }

    /// @dev A commitment enters with the seal of its round.
    function keep(Vm.Log memory log) private {
        uint24 round = uint24(uint256(log.topics[1]));
        address node = address(uint160(uint256(log.topics[2])));
        (bytes32 updateRoot, uint32 examples) = abi.decode(log.data, (bytes32, uint32));
        _commitments[log.emitter][round][node] = bytes24(keccak256(abi.encode(round, node, updateRoot, examples)));
    }

    function hashCommitments(address ledger, uint24 round, address[] memory nodes) private view returns (bytes32) {
        bytes24[] memory commitments = new bytes24[](nodes.length);
        for (uint256 i; i < nodes.length; ++i) {
            commitments[i] = _commitments[ledger][round][nodes[i]];
        }
        return keccak256(abi.encode(commitments));
    }
}
