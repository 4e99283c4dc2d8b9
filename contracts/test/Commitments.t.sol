// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract CommitmentsTest is FederationTest {
    function setUp() public override {
        super.setUp();
        prepare();
        open();
    }

    /// @notice A node binds itself to one update.
    function test_commit_records_the_commitment() public {
        address node = nodes[0].addr;
        vm.expectEmit(address(federation));
        emit IFederation.UpdateCommitted(1, node, ROOT, 7);
        vm.prank(node);
        federation.commit(1, ROOT, 7);
        IFederation.Member memory member = federation.member(node);
        assertEq(member.commitment, bytes24(keccak256(abi.encode(uint24(1), node, ROOT, uint32(7)))));
        assertEq(member.lastRound, 1);
        assertFalse(member.hasAttested);
        assertEq(federation.currentRound().committed, 1);
    }

    /// @notice Once per node and round.
    function test_commit_refuses_a_second_commitment() public {
        commit(0);
        assertCommitRefused(
            0, 1, ROOT, 7, abi.encodeWithSelector(IFederation.AlreadyCommitted.selector, 1, nodes[0].addr)
        );
        vm.prank(aggregator);
        federation.fail(1, 1);
        open();
        commit(0);
        assertEq(federation.currentRound().committed, 1);
    }

    /// @notice The last second of the commit window counts, the next does not.
    function test_commit_refuses_after_the_deadline() public {
        uint40 deadline = federation.currentRound().deadline;
        vm.warp(deadline + 1);
        assertCommitRefused(
            0, 1, ROOT, 7, abi.encodeWithSelector(IFederation.DeadlinePassed.selector, 1, deadline, deadline + 1)
        );
        vm.warp(deadline);
        commit(0);
    }

    /// @notice From 1 example to the policy's maximum.
    function test_commit_refuses_examples_out_of_range() public {
        assertCommitRefused(0, 1, ROOT, 0, abi.encodeWithSelector(IFederation.ExamplesOutOfRange.selector, 0, 1_000));
        assertCommitRefused(
            0, 1, ROOT, 1_001, abi.encodeWithSelector(IFederation.ExamplesOutOfRange.selector, 1_001, 1_000)
        );
        vm.prank(nodes[0].addr);
        federation.commit(1, ROOT, 1);
        vm.prank(nodes[1].addr);
        federation.commit(1, ROOT, 1_000);
    }

    /// @notice A commitment names its update, its round, and comes from the cohort.
    function test_commit_refuses_wrong_arguments_and_others() public {
        assertCommitRefused(0, 1, 0, 7, abi.encodeWithSelector(IFederation.ZeroDigest.selector));
        assertCommitRefused(0, 0, ROOT, 7, abi.encodeWithSelector(IFederation.WrongRound.selector, 1, 0));
        assertCommitRefused(0, 2, ROOT, 7, abi.encodeWithSelector(IFederation.WrongRound.selector, 1, 2));
        assertRefused(
            stranger,
            abi.encodeCall(IFederation.commit, (1, ROOT, 7)),
            abi.encodeWithSelector(IFederation.NotInCohort.selector, 1, stranger)
        );
    }

    /// @notice The aggregator anchors the root of signed commitments.
    function test_anchorCommitments_records_the_batch() public {
        vm.expectEmit(address(federation));
        emit IFederation.CommitmentsAnchored(1, ROOT, 4);
        anchor(4);
        assertEq(federation.currentRound().batched, 4);
    }

    /// @notice Once per round.
    function test_anchorCommitments_refuses_a_second_batch() public {
        anchor(1);
        assertAnchorRefused(1, ROOT, 1, abi.encodeWithSelector(IFederation.AlreadyAnchored.selector, 1));
    }

    /// @notice From one commitment to as many as the cohort has nodes.
    function test_anchorCommitments_refuses_counts_out_of_range() public {
        assertAnchorRefused(1, ROOT, 0, abi.encodeWithSelector(IFederation.CountOutOfRange.selector, 0, 1, 5));
        assertAnchorRefused(1, ROOT, 6, abi.encodeWithSelector(IFederation.CountOutOfRange.selector, 6, 1, 5));
        uint256 snapshot = vm.snapshotState();
        anchor(1);
        vm.revertToState(snapshot);
        anchor(5);
    }

    /// @notice A node that is left out keeps the attest window to commit by itself: not a second less.
    function test_anchorCommitments_refuses_late_batches() public {
        uint40 latest = federation.currentRound().deadline - ATTEST_WINDOW;
        vm.warp(latest + 1);
        assertAnchorRefused(
            1, ROOT, 1, abi.encodeWithSelector(IFederation.DeadlinePassed.selector, 1, latest, latest + 1)
        );
        vm.warp(latest);
        anchor(1);
    }

    /// @notice Where the policy allows no batches there are none.
    function test_anchorCommitments_refuses_without_batching() public {
        IFederation.Policy memory policy = makePolicy();
        policy.batching = false;
        adopt(policy);
        vm.prank(aggregator);
        federation.fail(1, 1);
        open();
        assertAnchorRefused(2, ROOT, 1, abi.encodeWithSelector(IFederation.BatchingNotAllowed.selector, 2));
    }

    /// @notice A batch names its root and its round.
    function test_anchorCommitments_refuses_wrong_arguments() public {
        assertAnchorRefused(1, 0, 1, abi.encodeWithSelector(IFederation.ZeroDigest.selector));
        assertAnchorRefused(0, ROOT, 1, abi.encodeWithSelector(IFederation.WrongRound.selector, 1, 0));
        assertAnchorRefused(2, ROOT, 1, abi.encodeWithSelector(IFederation.WrongRound.selector, 1, 2));
    }

    function assertCommitRefused(uint256 node, uint24 number, bytes32 root, uint32 examples, bytes memory reason)
        private
    {
        assertRefused(nodes[node].addr, abi.encodeCall(IFederation.commit, (number, root, examples)), reason);
    }

    function assertAnchorRefused(uint24 number, bytes32 root, uint16 count, bytes memory reason) private {
        assertRefused(aggregator, abi.encodeCall(IFederation.anchorCommitments, (number, root, count)), reason);
    }
}
