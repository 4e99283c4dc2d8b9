// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract FailuresTest is FederationTest {
    function setUp() public override {
        super.setUp();
        prepare();
    }

    /// @notice Any node of the cohort ends a round whose sum, batch or proposal it finds wrong.
    function test_dispute_fails_the_round() public {
        reachSealed();
        assertDisputed(IFederation.Subject.Commitment, IFederation.Phase.Sealed);
        reachAggregated();
        assertDisputed(IFederation.Subject.Chunk, IFederation.Phase.Aggregated);
        reachProposed();
        assertDisputed(IFederation.Subject.Attestation, IFederation.Phase.Proposed);
        assertEq(federation.headModel(), GENESIS);
    }

    /// @notice Nobody outside the cohort objects, and nobody to another round.
    function test_dispute_refuses_others() public {
        reachSealed();
        assertRefused(
            stranger,
            abi.encodeCall(IFederation.dispute, (1, IFederation.Subject.Chunk, 0)),
            abi.encodeWithSelector(IFederation.NotInCohort.selector, 1, stranger)
        );
        assertRefused(
            nodes[0].addr,
            abi.encodeCall(IFederation.dispute, (2, IFederation.Subject.Chunk, 0)),
            abi.encodeWithSelector(IFederation.WrongRound.selector, 1, 2)
        );
    }

    /// @notice The aggregator gives up in any phase, at once.
    function test_fail_is_the_aggregators_at_any_time() public {
        open();
        assertFailed(IFederation.Phase.Open, 1);
        reachSealed();
        assertFailed(IFederation.Phase.Sealed, 0);
        reachAggregated();
        assertFailed(IFederation.Phase.Aggregated, 4);
        reachProposed();
        assertFailed(IFederation.Phase.Proposed, 255);
        assertEq(federation.headModel(), GENESIS);
    }

    /// @notice Anyone gives up a round once the overdue window after any deadline has passed, and not a second before.
    function test_fail_is_anyones_once_overdue() public {
        open();
        assertFailedOnceOverdue(IFederation.Phase.Open);
        reachSealed();
        assertFailedOnceOverdue(IFederation.Phase.Sealed);
        reachAggregated();
        assertFailedOnceOverdue(IFederation.Phase.Aggregated);
        reachProposed();
        assertFailedOnceOverdue(IFederation.Phase.Proposed);
    }

    /// @notice Nobody gives a round up for a disagreement or a dispute that there was not.
    function test_fail_refuses_the_contracts_own_reasons() public {
        open();
        for (uint8 reason = 5; reason < 7; ++reason) {
            assertRefused(
                aggregator,
                abi.encodeCall(IFederation.fail, (1, reason)),
                abi.encodeWithSelector(IFederation.ReservedReason.selector, reason)
            );
        }
        vm.prank(aggregator);
        federation.fail(1, 7);
    }

    /// @notice Nobody gives up another round than the newest, and none before the first.
    function test_fail_refuses_other_rounds() public {
        assertRefused(
            aggregator,
            abi.encodeCall(IFederation.fail, (0, 1)),
            abi.encodeWithSelector(IFederation.WrongRound.selector, 0, 0)
        );
        open();
        assertRefused(
            aggregator,
            abi.encodeCall(IFederation.fail, (0, 1)),
            abi.encodeWithSelector(IFederation.WrongRound.selector, 1, 0)
        );
        assertRefused(
            aggregator,
            abi.encodeCall(IFederation.fail, (2, 1)),
            abi.encodeWithSelector(IFederation.WrongRound.selector, 1, 2)
        );
    }

    function assertDisputed(IFederation.Subject subject, IFederation.Phase phase) private {
        vm.expectEmit(address(federation));
        emit IFederation.RoundDisputed(round, nodes[3].addr, subject, 42);
        vm.expectEmit(address(federation));
        emit IFederation.RoundFailed(round, phase, 6);
        vm.prank(nodes[3].addr);
        federation.dispute(round, subject, 42);
        assertEnded(IFederation.Phase.Failed);
    }

    function assertFailed(IFederation.Phase phase, uint8 reason) private {
        vm.expectEmit(address(federation));
        emit IFederation.RoundFailed(round, phase, reason);
        vm.prank(aggregator);
        federation.fail(round, reason);
        assertEnded(IFederation.Phase.Failed);
    }

    function assertFailedOnceOverdue(IFederation.Phase phase) private {
        uint40 overdue = federation.currentRound().deadline + AGGREGATE_WINDOW;
        vm.warp(overdue);
        assertRefused(
            stranger,
            abi.encodeCall(IFederation.fail, (round, 2)),
            abi.encodeWithSelector(IFederation.DeadlineNotReached.selector, round, overdue, overdue)
        );
        vm.warp(overdue + 1);
        vm.expectEmit(address(federation));
        emit IFederation.RoundFailed(round, phase, 2);
        vm.prank(stranger);
        federation.fail(round, 2);
        assertEnded(IFederation.Phase.Failed);
    }
}
