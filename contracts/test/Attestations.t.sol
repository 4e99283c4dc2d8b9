// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract AttestationsTest is FederationTest {
    function setUp() public override {
        super.setUp();
        prepare();
    }

    /// @notice The root of the encrypted sum starts the attest window.
    function test_publishAggregate_records_the_root() public {
        reachSealed();
        uint40 deadline = uint40(vm.getBlockTimestamp() + ATTEST_WINDOW);
        vm.expectEmit(address(federation));
        emit IFederation.AggregatePublished(1, ROOT, deadline);
        publish();
        IFederation.Round memory current = federation.currentRound();
        assertEq(uint8(current.phase), uint8(IFederation.Phase.Aggregated));
        assertEq(current.deadline, deadline);
    }

    /// @notice The last second of the aggregate window counts, the next does not.
    function test_publishAggregate_refuses_after_the_deadline() public {
        reachSealed();
        uint40 deadline = federation.currentRound().deadline;
        vm.warp(deadline + 1);
        assertRefused(aggregator, abi.encodeCall(IFederation.publishAggregate, (1, ROOT)), deadlinePassed(deadline));
        vm.warp(deadline);
        publish();
    }

    /// @notice A publication names its root and its round.
    function test_publishAggregate_refuses_wrong_arguments() public {
        reachSealed();
        assertRefused(aggregator, abi.encodeCall(IFederation.publishAggregate, (1, 0)), zeroDigest());
        assertRefused(aggregator, abi.encodeCall(IFederation.publishAggregate, (2, ROOT)), wrongRound(2));
    }

    /// @notice Attestations by transaction finalise the round with the quorum, and not before.
    function test_attest_finalises_with_the_quorum() public {
        reachAggregated();
        for (uint256 i; i < 2; ++i) {
            vm.expectEmit(address(federation));
            emit IFederation.ModelAttested(1, nodes[i].addr, MODEL);
            attest(i, MODEL);
            assertEq(federation.candidate(), MODEL);
            assertEq(federation.currentRound().attested, i + 1);
            assertTrue(federation.member(nodes[i].addr).hasAttested);
            assertEq(uint8(federation.currentRound().phase), uint8(IFederation.Phase.Aggregated));
        }
        assertEq(federation.headModel(), GENESIS);
        vm.expectEmit(address(federation));
        emit IFederation.ModelAttested(1, nodes[2].addr, MODEL);
        vm.expectEmit(address(federation));
        emit IFederation.RoundFinalised(1, MODEL, 3, new address[](0));
        attest(2, MODEL);
        assertEnded(IFederation.Phase.Finalised);
        assertEq(federation.headModel(), MODEL);
    }

    /// @notice A node of the batch attests without having committed by transaction.
    function test_attest_takes_nodes_of_the_batch() public {
        reachFailed();
        open();
        anchor(5);
        seal(list(0, 0), "");
        publish();
        attest(0, MODEL);
        IFederation.Member memory member = federation.member(nodes[0].addr);
        assertEq(member.lastRound, 2);
        assertEq(member.commitment, bytes24(0));
        assertTrue(member.hasAttested);
        assertRefused(nodes[0].addr, abi.encodeCall(IFederation.attest, (2, MODEL)), alreadyAttested(2, nodes[0].addr));
    }

    /// @notice A commitment of an earlier round does not outlive the attestation of a later one.
    function test_attest_drops_the_commitment_of_an_earlier_round() public {
        reachFinalised();
        open();
        anchor(5);
        seal(list(0, 0), "");
        publish();
        assertNotEq(federation.member(nodes[0].addr).commitment, bytes24(0));
        attest(0, MODEL);
        assertEq(federation.member(nodes[0].addr).commitment, bytes24(0));
    }

    /// @notice Two models in one round: it fails, and the head stays.
    function test_attest_fails_the_round_on_disagreement() public {
        reachAggregated();
        attest(0, MODEL);
        vm.expectEmit(address(federation));
        emit IFederation.ModelAttested(1, nodes[1].addr, OTHER_MODEL);
        vm.expectEmit(address(federation));
        emit IFederation.RoundFailed(1, IFederation.Phase.Aggregated, 5);
        attest(1, OTHER_MODEL);
        assertEnded(IFederation.Phase.Failed);
        assertEq(federation.headModel(), GENESIS);
        assertEq(federation.candidate(), MODEL);
    }

    /// @notice The candidate of an earlier round binds nobody.
    function test_attest_ignores_the_candidate_of_an_earlier_round() public {
        reachAggregated();
        attest(0, MODEL);
        vm.prank(aggregator);
        federation.fail(1, 1);
        reachAggregated();
        attest(0, OTHER_MODEL);
        assertEq(federation.candidate(), OTHER_MODEL);
        assertEq(uint8(federation.currentRound().phase), uint8(IFederation.Phase.Aggregated));
    }

    /// @notice The last second of the attest window counts, the next does not.
    function test_attest_refuses_after_the_deadline() public {
        reachAggregated();
        uint40 deadline = federation.currentRound().deadline;
        vm.warp(deadline + 1);
        assertRefused(nodes[0].addr, abi.encodeCall(IFederation.attest, (1, MODEL)), deadlinePassed(deadline));
        vm.warp(deadline);
        attest(0, MODEL);
    }

    /// @notice A node attests one model of this round once, and nobody outside the cohort does.
    function test_attest_refuses_wrong_arguments_and_others() public {
        reachAggregated();
        assertRefused(nodes[0].addr, abi.encodeCall(IFederation.attest, (1, 0)), zeroDigest());
        assertRefused(nodes[0].addr, abi.encodeCall(IFederation.attest, (2, MODEL)), wrongRound(2));
        assertRefused(
            stranger,
            abi.encodeCall(IFederation.attest, (1, MODEL)),
            abi.encodeWithSelector(IFederation.NotInCohort.selector, 1, stranger)
        );
        attest(0, MODEL);
        assertRefused(nodes[0].addr, abi.encodeCall(IFederation.attest, (1, MODEL)), alreadyAttested(1, nodes[0].addr));
        assertRefused(
            nodes[0].addr, abi.encodeCall(IFederation.attest, (1, OTHER_MODEL)), alreadyAttested(1, nodes[0].addr)
        );
    }

    /// @notice After the finalisation nodes attest for the record: any model, once, and nothing changes.
    function test_attest_records_after_the_finalisation() public {
        reachFinalised();
        bytes memory before = abi.encode(federation.currentRound());
        vm.warp(vm.getBlockTimestamp() + 365 days);
        vm.expectEmit(address(federation));
        emit IFederation.ModelAttested(1, nodes[4].addr, OTHER_MODEL);
        attest(4, OTHER_MODEL);
        assertEq(abi.encode(federation.currentRound()), before);
        assertEq(federation.headModel(), MODEL);
        assertRefused(nodes[4].addr, abi.encodeCall(IFederation.attest, (1, MODEL)), alreadyAttested(1, nodes[4].addr));
    }

    function alreadyAttested(uint24 number, address node) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IFederation.AlreadyAttested.selector, number, node);
    }
}
