// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract SealTest is FederationTest {
    bytes1 private constant MISSING = 0x01;
    bytes1 private constant LEAF_TOO = 0x80;

    function setUp() public override {
        super.setUp();
        prepare();
        open();
    }

    /// @notice The whole cohort can be sealed at once.
    function test_seal_fixes_the_contributors() public {
        commitFirst(5);
        uint40 deadline = uint40(vm.getBlockTimestamp() + AGGREGATE_WINDOW);
        vm.expectEmit(address(federation));
        emit IFederation.RoundSealed(1, list(0, 5), new bytes(5), deadline);
        seal(list(0, 5), new bytes(5));
        IFederation.Round memory current = federation.currentRound();
        assertEq(uint8(current.phase), uint8(IFederation.Phase.Sealed));
        assertEq(current.deadline, deadline);
        assertEq(current.committed, 5);
    }

    /// @notice What the nodes committed to enters the history with the seal.
    function test_seal_chains_the_commitments() public {
        commitFirst(5);
        bytes32 before = federation.historyHash();
        seal(list(0, 5), new bytes(5));
        bytes24[] memory commitments = new bytes24[](5);
        for (uint256 i; i < 5; ++i) {
            commitments[i] = bytes24(keccak256(abi.encode(uint24(1), nodes[i].addr, makeUpdateRoot(i), uint32(100))));
        }
        bytes32 entry = keccak256(
            abi.encode(
                IFederation.RoundSealed.selector,
                uint24(1),
                list(0, 5),
                new bytes(5),
                uint40(vm.getBlockTimestamp() + AGGREGATE_WINDOW),
                keccak256(abi.encode(commitments))
            )
        );
        assertEq(federation.historyHash(), keccak256(abi.encode(before, entry)));
    }

    /// @notice Fewer than the cohort contribute only once the commit window is over.
    function test_seal_waits_for_the_cohort() public {
        commitFirst(4);
        uint40 deadline = federation.currentRound().deadline;
        vm.warp(deadline);
        assertSealRefused(
            list(0, 4),
            new bytes(4),
            abi.encodeWithSelector(IFederation.DeadlineNotReached.selector, 1, deadline, deadline)
        );
        vm.warp(deadline + 1);
        seal(list(0, 4), new bytes(4));
    }

    /// @notice An exclusion, too, leaves less than the whole cohort.
    function test_seal_waits_where_a_node_is_excluded() public {
        commitFirst(5);
        uint40 deadline = federation.currentRound().deadline;
        vm.warp(deadline);
        bytes memory reasons = mark(5, 2, MISSING);
        assertSealRefused(
            list(0, 5), reasons, abi.encodeWithSelector(IFederation.DeadlineNotReached.selector, 1, deadline, deadline)
        );
        vm.warp(deadline + 1);
        vm.expectEmit(address(federation));
        emit IFederation.RoundSealed(1, list(0, 5), reasons, deadline + 1 + AGGREGATE_WINDOW);
        seal(list(0, 5), reasons);
    }

    /// @notice The policy's fewest contributors pass, one less does not.
    function test_seal_refuses_too_few_contributors() public {
        commitFirst(3);
        vm.warp(federation.currentRound().deadline + 1);
        bytes memory reasons = mark(3, 0, MISSING);
        reasons[1] = MISSING;
        assertSealRefused(list(0, 3), reasons, quorumNotReached(1));
        reasons[1] = 0;
        seal(list(0, 3), reasons);
    }

    /// @notice A round in which nobody committed cannot be sealed.
    function test_seal_refuses_an_empty_round() public {
        vm.warp(federation.currentRound().deadline + 1);
        assertSealRefused(list(0, 0), "", quorumNotReached(0));
    }

    /// @notice All that committed by transaction are listed, and once.
    function test_seal_refuses_other_lists() public {
        commitFirst(4);
        address[] memory listed = list(0, 3);
        assertSealRefused(
            listed, new bytes(3), abi.encodeWithSelector(IFederation.CommitmentsMissing.selector, 1, 4, 3)
        );
        listed[1] = listed[0];
        assertSealRefused(
            listed, new bytes(3), abi.encodeWithSelector(IFederation.NotAscending.selector, listed[0], listed[0])
        );
        (listed[1], listed[2]) = (nodes[2].addr, nodes[1].addr);
        assertSealRefused(
            listed, new bytes(3), abi.encodeWithSelector(IFederation.NotAscending.selector, listed[1], listed[2])
        );
        listed[0] = address(0);
        assertSealRefused(
            listed, new bytes(3), abi.encodeWithSelector(IFederation.NotAscending.selector, address(0), address(0))
        );
        assertSealRefused(
            list(0, 5), new bytes(5), abi.encodeWithSelector(IFederation.NotCommitted.selector, 1, nodes[4].addr)
        );
    }

    /// @notice Each listed node has a reason.
    function test_seal_refuses_other_lengths() public {
        commitFirst(2);
        assertSealRefused(list(0, 2), new bytes(1), abi.encodeWithSelector(IFederation.LengthMismatch.selector, 2, 1));
        assertSealRefused(list(0, 2), new bytes(3), abi.encodeWithSelector(IFederation.LengthMismatch.selector, 2, 3));
    }

    /// @notice Nodes of the batch count without being listed, beside those that committed by transaction.
    function test_seal_counts_the_batch() public {
        anchor(3);
        commitFirst(2);
        seal(list(0, 2), new bytes(2));
        assertEq(uint8(federation.currentRound().phase), uint8(IFederation.Phase.Sealed));
    }

    /// @notice A batch of the whole cohort can be sealed at once, with nobody listed.
    function test_seal_takes_a_batch_alone() public {
        anchor(5);
        vm.expectEmit(address(federation));
        emit IFederation.RoundSealed(1, list(0, 0), "", uint40(vm.getBlockTimestamp() + AGGREGATE_WINDOW));
        seal(list(0, 0), "");
    }

    /// @notice Nodes of the batch that do not count are listed, with a reason.
    function test_seal_excludes_nodes_of_the_batch() public {
        anchor(4);
        vm.warp(federation.currentRound().deadline + 1);
        bytes memory reasons = mark(3, 0, MISSING);
        (reasons[1], reasons[2]) = (MISSING, bytes1(0x7f));
        assertSealRefused(list(0, 3), reasons, quorumNotReached(1));
        seal(list(0, 2), mark(2, 0, MISSING, 1, 0x7f));
    }

    /// @notice A node of the batch alone is listed only to be excluded.
    function test_seal_refuses_to_list_batched_contributors() public {
        anchor(4);
        bytes memory reason = abi.encodeWithSelector(IFederation.NotCommitted.selector, 1, nodes[0].addr);
        vm.warp(federation.currentRound().deadline + 1);
        assertSealRefused(list(0, 1), new bytes(1), reason);
        assertSealRefused(list(0, 1), mark(1, 0, LEAF_TOO), reason);
        assertSealRefused(list(0, 1), mark(1, 0, 0xff), reason);
        seal(list(0, 1), mark(1, 0, 0x7f));
    }

    /// @notice Without a batch nobody can be excluded who did not commit.
    function test_seal_refuses_exclusions_without_a_batch() public {
        commitFirst(4);
        vm.warp(federation.currentRound().deadline + 1);
        assertSealRefused(
            list(0, 5), mark(5, 4, MISSING), abi.encodeWithSelector(IFederation.CountOutOfRange.selector, 1, 0, 0)
        );
    }

    /// @notice The leaf of a node that committed by transaction as well does not count: there are no more contributors
    /// than nodes.
    function test_seal_counts_doubled_nodes_once() public {
        anchor(4);
        commitFirst(2);
        assertSealRefused(
            list(0, 2), new bytes(2), abi.encodeWithSelector(IFederation.CountOutOfRange.selector, 6, 0, 5)
        );
        seal(list(0, 2), mark(2, 0, LEAF_TOO));
    }

    /// @notice As many leaves can be doubled as the batch has, and no more; without a batch, none.
    function test_seal_refuses_more_doubled_nodes_than_leaves() public {
        commitFirst(5);
        assertSealRefused(
            list(0, 5), mark(5, 0, LEAF_TOO), abi.encodeWithSelector(IFederation.CountOutOfRange.selector, 1, 0, 0)
        );
        anchor(1);
        assertSealRefused(
            list(0, 5),
            mark(5, 0, LEAF_TOO, 1, LEAF_TOO),
            abi.encodeWithSelector(IFederation.CountOutOfRange.selector, 2, 0, 1)
        );
        seal(list(0, 5), mark(5, 0, LEAF_TOO));
    }

    /// @notice A doubled node that is excluded loses both, its leaf and its transaction.
    function test_seal_excludes_doubled_nodes_twice() public {
        anchor(2);
        commitFirst(2);
        vm.warp(federation.currentRound().deadline + 1);
        assertSealRefused(list(0, 2), mark(2, 0, 0x81, 1, LEAF_TOO), quorumNotReached(1));
        assertSealRefused(list(0, 2), mark(2, 0, 0xff, 1, 0xff), quorumNotReached(0));
        seal(list(0, 2), mark(2, 0, 0x81));
    }

    /// @notice No more leaves can be excluded than the batch has.
    function test_seal_refuses_more_exclusions_than_leaves() public {
        anchor(1);
        commitFirst(2);
        vm.warp(federation.currentRound().deadline + 1);
        bytes memory reasons = mark(4, 2, MISSING, 3, MISSING);
        assertSealRefused(list(0, 4), reasons, abi.encodeWithSelector(IFederation.CountOutOfRange.selector, 2, 0, 1));
        seal(list(0, 3), mark(3, 2, MISSING));
    }

    /// @notice Once the overdue window has passed anyone may seal, and not a second before.
    function test_seal_is_anyones_once_overdue() public {
        commitFirst(2);
        uint40 overdue = federation.currentRound().deadline + AGGREGATE_WINDOW;
        bytes memory call = abi.encodeCall(IFederation.seal, (1, list(0, 2), new bytes(2)));
        vm.warp(overdue);
        assertRefused(
            stranger, call, abi.encodeWithSelector(IFederation.DeadlineNotReached.selector, 1, overdue, overdue)
        );
        vm.warp(overdue + 1);
        vm.prank(stranger);
        federation.seal(1, list(0, 2), new bytes(2));
        assertEq(federation.currentRound().deadline, overdue + 1 + AGGREGATE_WINDOW);
    }

    /// @notice Only the aggregator excludes, also then.
    function test_seal_refuses_exclusions_by_others() public {
        commitFirst(3);
        vm.warp(federation.currentRound().deadline + AGGREGATE_WINDOW + 1);
        bytes memory reason = abi.encodeWithSelector(IFederation.ExclusionNotAllowed.selector, 1, stranger);
        assertRefused(stranger, abi.encodeCall(IFederation.seal, (1, list(0, 3), mark(3, 0, MISSING))), reason);
        vm.prank(stranger);
        federation.seal(1, list(0, 3), new bytes(3));
    }

    /// @notice Only the aggregator says whose the leaves of its batch are, also then.
    function test_seal_refuses_batches_by_others() public {
        anchor(1);
        commitFirst(3);
        vm.warp(federation.currentRound().deadline + AGGREGATE_WINDOW + 1);
        bytes memory reason = abi.encodeWithSelector(IFederation.AlreadyAnchored.selector, 1);
        assertRefused(stranger, abi.encodeCall(IFederation.seal, (1, list(0, 3), new bytes(3))), reason);
        assertRefused(stranger, abi.encodeCall(IFederation.seal, (1, list(0, 3), mark(3, 0, LEAF_TOO))), reason);
        vm.prank(stranger);
        federation.fail(1, 2);
    }

    /// @notice A seal names its round.
    function test_seal_refuses_other_rounds() public {
        assertRefused(
            aggregator,
            abi.encodeCall(IFederation.seal, (2, list(0, 0), "")),
            abi.encodeWithSelector(IFederation.WrongRound.selector, 1, 2)
        );
    }

    function assertSealRefused(address[] memory listed, bytes memory reasons, bytes memory reason) private {
        assertRefused(aggregator, abi.encodeCall(IFederation.seal, (1, listed, reasons)), reason);
    }

    /// @dev The reasons of `count` nodes: none but one.
    function mark(uint256 count, uint256 node, bytes1 reason) private pure returns (bytes memory reasons) {
        reasons = new bytes(count);
        reasons[node] = reason;
    }

    function mark(uint256 count, uint256 node, bytes1 reason, uint256 other, bytes1 otherReason)
        private
        pure
        returns (bytes memory reasons)
    {
        reasons = mark(count, node, reason);
        reasons[other] = otherReason;
    }

    function quorumNotReached(uint256 contributors) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IFederation.QuorumNotReached.selector, 1, contributors, 2);
    }
}
