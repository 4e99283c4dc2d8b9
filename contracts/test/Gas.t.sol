// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title What each call costs its sender
/// @notice Each call is a transaction here: 21,000 gas, its calldata, cold storage, refunds. The usual case is that of a
/// federation that runs: five nodes, in their second round or later. The committed figures are in snapshots, and `make gas`
/// writes them.
contract Gas is FederationTest {
    function setUp() public override {
        super.setUp();
        prepare();
        reachAggregated();
        for (uint256 i; i < 3; ++i) {
            attest(i, MODEL);
        }
        vm.warp(vm.getBlockTimestamp() + 1 days);
    }

    function test_membership() public {
        register(stranger);
        uint256 total = snap("register");
        admit(stranger);
        total += snap("admit");
        vm.snapshotValue("Gas", "join: register and admit", total);
        vm.prank(stranger);
        federation.rotateKeys(ROOT, ROOT);
        snap("rotateKeys");
        suspend(stranger);
        snap("suspend");
        admit(stranger);
        snap("admit, again");
        leave(stranger);
        snap("leave");
        register(stranger);
        snap("register, again");
    }

    function test_policy_and_keys() public {
        IFederation.Policy memory policy = makePolicy();
        policy.digest = keccak256("second policy");
        policy.maxExamples = 2_000;
        adopt(policy);
        snap("adoptPolicy");
        vm.prank(nodes[0].addr);
        federation.approvePolicy(2, policy.digest);
        snap("approvePolicy");
        vm.prank(admin);
        federation.requestEpoch(nodes[0].addr);
        snap("requestEpoch");
        vm.prank(nodes[0].addr);
        federation.publishEpoch(2, keccak256("context"), keccak256("keys"), 5);
        snap("publishEpoch");
        vm.prank(admin);
        federation.releaseCheckpoint(ROOT);
        snap("releaseCheckpoint");
        vm.prank(admin);
        federation.retire();
        snap("retire");
    }

    function test_openings() public {
        IFederation.Policy memory policy = makePolicy();
        (policy.privacyCost, policy.privacyBudget) = (1, 100);
        adopt(policy);
        reachFailed();
        open();
        snap("openRound, accounted for");
    }

    function test_firsts() public {
        federation = deploy(address(0));
        round = 0;
        join(nodes[0].addr);
        snap("admit, first");
        for (uint256 i = 1; i < nodes.length; ++i) {
            join(nodes[i].addr);
        }
        adopt(makePolicy());
        snap("adoptPolicy, first");
        renewEpoch();
        open();
        snap("openRound, first");
    }

    function test_failures() public {
        open();
        vm.prank(aggregator);
        federation.fail(round, 1);
        snap("fail");
        reachSealed();
        vm.prank(nodes[0].addr);
        federation.dispute(round, IFederation.Subject.Chunk, 7);
        snap("dispute");
        reachAggregated();
        attest(0, OTHER_MODEL);
        attest(1, MODEL);
        snap("attest, contradicting");
    }

    function test_direct_round_signed() public {
        uint256 total = measureDirect();
        finaliseBy(nodes.length);
        total += snap("finalise, signatures of 5");
        vm.snapshotValue("Gas", "round of 5, direct, attestations signed", total);
    }

    function test_direct_round_by_transaction() public {
        uint256 total = measureDirect();
        attest(0, OTHER_MODEL);
        total += snap("attest, first of the round");
        attest(1, OTHER_MODEL);
        total += snap("attest");
        attest(2, OTHER_MODEL);
        total += snap("attest, finalising");
        for (uint256 i = 3; i < 5; ++i) {
            attest(i, OTHER_MODEL);
            total += snap("attest, for the record");
        }
        vm.snapshotValue("Gas", "round of 5, direct, attestations by transaction", total);
    }

    function test_batched_round() public {
        measureBatched();
    }

    function test_rounds_of_ten() public {
        measureRoundsOf(10);
    }

    function test_rounds_of_a_hundred() public {
        measureRoundsOf(100);
    }

    /// @dev A direct round with signed attestations of all, and a batched one, after one that all took part in.
    function measureRoundsOf(uint16 count) private {
        createNodes(count);
        federation = deploy(address(0));
        round = 0;
        IFederation.Policy memory policy = makePolicy();
        policy.attestationQuorum = count;
        prepare(policy);
        reachAggregated();
        attest(0, MODEL);
        finalise(MODEL, 1, count);
        measureBatched();

        open();
        uint256 total = vm.lastCallGas().gasTotalUsed;
        for (uint256 i; i < count; ++i) {
            commit(i);
            total += vm.lastCallGas().gasTotalUsed;
        }
        seal(list(0, count), new bytes(count));
        total += vm.snapshotGasLastCall("Gas", named("seal", count));
        publish();
        total += vm.lastCallGas().gasTotalUsed;
        finaliseBy(count);
        total += vm.snapshotGasLastCall("Gas", named("finalise, signatures", count));
        vm.snapshotValue("Gas", string.concat(named("round", count), ", direct, attestations signed"), total);
    }

    /// @dev From the opening to the aggregate of a round in which all five commit by transaction.
    function measureDirect() private returns (uint256 total) {
        open();
        total = snap("openRound");
        for (uint256 i; i < nodes.length; ++i) {
            commit(i);
            total += snap("commit");
        }
        seal(list(0, nodes.length), new bytes(nodes.length));
        total += snap("seal");
        publish();
        total += snap("publishAggregate");
    }

    function measureBatched() private {
        uint16 count = uint16(nodes.length);
        open();
        uint256 total = vm.lastCallGas().gasTotalUsed;
        anchor(count);
        total += snap("anchorCommitments");
        seal(list(0, 0), "");
        total += snap("seal, all in the batch");
        publish();
        total += vm.lastCallGas().gasTotalUsed;
        propose(OTHER_MODEL, count);
        total += snap("proposeResult");
        vm.warp(federation.currentRound().deadline + 1);
        vm.prank(aggregator);
        federation.finalise(round, OTHER_MODEL, new address[](0), new bytes[](0));
        total += snap("finalise, a proposal");
        vm.snapshotValue("Gas", string.concat(named("round", count), ", batched"), total);
    }

    function finaliseBy(uint256 count) private {
        bytes[] memory signatures = signAll(0, count, OTHER_MODEL);
        vm.prank(aggregator);
        federation.finalise(round, OTHER_MODEL, list(0, count), signatures);
    }

    /// @dev Names what stands for the usual case, that of five nodes.
    function snap(string memory name) private returns (uint256) {
        if (nodes.length == 5) vm.snapshotGasLastCall("Gas", name);
        return vm.lastCallGas().gasTotalUsed;
    }

    function named(string memory what, uint256 count) private pure returns (string memory) {
        return string.concat(what, " of ", vm.toString(count));
    }
}
