// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract LineageTest is FederationTest {
    /// @notice A release names the head model and the file.
    function test_releaseCheckpoint_records_the_file() public {
        adopt(makePolicy());
        vm.expectEmit(address(federation));
        emit IFederation.CheckpointReleased(GENESIS, ROOT);
        vm.prank(admin);
        federation.releaseCheckpoint(ROOT);
    }

    /// @notice There is no release without a model, nor without a file.
    function test_releaseCheckpoint_refuses_zero_digests() public {
        bytes memory reason = abi.encodeWithSelector(IFederation.ZeroDigest.selector);
        assertRefused(admin, abi.encodeCall(IFederation.releaseCheckpoint, (ROOT)), reason);
        adopt(makePolicy());
        assertRefused(admin, abi.encodeCall(IFederation.releaseCheckpoint, (0)), reason);
    }

    /// @notice A retired ledger opens no round, and keeps its head.
    function test_retire_ends_the_ledger() public {
        prepare();
        reachFinalised();
        vm.expectEmit(address(federation));
        emit IFederation.Retired(MODEL);
        vm.prank(admin);
        federation.retire();
        IFederation.Round memory current = federation.currentRound();
        assertEq(uint8(current.phase), uint8(IFederation.Phase.Retired));
        assertEq(current.number, 1);
        assertEq(federation.headModel(), MODEL);
    }

    /// @notice A retired ledger records nothing more, so that its successor's link to its history stays true.
    function test_retire_ends_the_history() public {
        prepare();
        reachRetired();
        address node = nodes[0].addr;
        assertRetired(stranger, abi.encodeCall(IFederation.register, (ROOT, ROOT, 0)));
        assertRetired(admin, abi.encodeCall(IFederation.suspend, (node)));
        assertRetired(node, abi.encodeCall(IFederation.leave, ()));
        assertRetired(node, abi.encodeCall(IFederation.rotateKeys, (ROOT, ROOT)));
        assertRetired(admin, abi.encodeCall(IFederation.adoptPolicy, (makePolicy(), GENESIS)));
        assertRetired(node, abi.encodeCall(IFederation.approvePolicy, (1, keccak256("policy"))));
        assertRetired(admin, abi.encodeCall(IFederation.requestEpoch, (node)));
        assertRetired(admin, abi.encodeCall(IFederation.releaseCheckpoint, (ROOT)));
        assertRetired(admin, abi.encodeCall(IFederation.retire, ()));
        assertRetired(admin, abi.encodeCall(IAccessControl.grantRole, (bytes32(0), stranger)));
        assertRetired(admin, abi.encodeCall(IAccessControl.renounceRole, (bytes32(0), admin)));
    }

    /// @notice Nor does one that retired with a node waiting for admission, or a key under way.
    function test_retire_ends_what_was_under_way() public {
        prepare();
        register(stranger);
        vm.startPrank(admin);
        federation.requestEpoch(nodes[0].addr);
        federation.retire();
        vm.stopPrank();
        assertRetired(admin, abi.encodeCall(IFederation.admit, (stranger)));
        assertRetired(nodes[0].addr, abi.encodeCall(IFederation.publishEpoch, (2, ROOT, ROOT, 5)));
        assertRetired(aggregator, abi.encodeCall(IFederation.openRound, (1)));
    }

    /// @notice A ledger may retire before its first round, and after a failed one.
    function test_retire_needs_no_round() public {
        vm.prank(admin);
        federation.retire();
        assertEq(uint8(federation.currentRound().phase), uint8(IFederation.Phase.Retired));
        federation = deploy(address(0));
        prepare();
        reachFailed();
        vm.prank(admin);
        federation.retire();
        assertEq(federation.headModel(), GENESIS);
    }

    /// @notice A successor goes on from the head and the history of a retired ledger.
    function test_constructor_links_back_to_a_retired_ledger() public {
        IFederation.Policy memory policy = makePolicy();
        (policy.privacyCost, policy.privacyBudget) = (7, 70);
        prepare(policy);
        reachRetired();
        IFederation before = federation;
        bytes32 finalHash = before.historyHash();
        vm.expectEmit();
        emit IFederation.Succeeded(address(before), finalHash, MODEL, 7);
        federation = deploy(address(before));
        assertEq(federation.predecessor(), address(before));
        assertEq(federation.headModel(), MODEL);
        bytes32 topic = IAccessControl.RoleGranted.selector;
        bytes32 history = chain(0, abi.encode(topic, bytes32(0), admin, address(this)));
        history = chain(history, abi.encode(topic, keccak256("AGGREGATOR_ROLE"), aggregator, address(this)));
        history = chain(history, abi.encode(IFederation.Succeeded.selector, before, finalHash, MODEL, 7));
        assertEq(federation.historyHash(), history);

        assertEq(federation.privacy().spent, 7);

        // Its first policy needs no model, and cannot replace the head.
        round = 0;
        vm.prank(admin);
        federation.adoptPolicy(makePolicy(), 0);
        assertEq(federation.headModel(), MODEL);
        prepare();
        open();
    }

    /// @notice Nobody goes on from a ledger that is not retired, in whatever phase.
    function test_constructor_refuses_other_predecessors() public {
        assertSuccessorRefused();
        prepare();
        open();
        assertSuccessorRefused();
        vm.prank(aggregator);
        federation.fail(1, 1);
        assertSuccessorRefused();
        reachFinalised();
        assertSuccessorRefused();
    }

    function assertRetired(address caller, bytes memory call) private {
        assertRefused(
            caller, call, abi.encodeWithSelector(IFederation.WrongPhase.selector, round, IFederation.Phase.Retired)
        );
    }

    function assertSuccessorRefused() private {
        bytes memory reason = abi.encodeWithSelector(IFederation.NotRetired.selector, address(federation));
        assertDeploymentRefused(admin, aggregator, address(federation), reason);
    }

    function chain(bytes32 history, bytes memory entry) private pure returns (bytes32) {
        return keccak256(abi.encode(history, keccak256(entry)));
    }
}
