// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title Each step in each phase that it does not belong to
contract PhasesTest is FederationTest {
    IFederation.Phase private phase;

    function setUp() public override {
        super.setUp();
        prepare();
    }

    /// @notice Before the first round only an opening goes on, or the retirement.
    function test_none_leads_to_open() public {
        assertStepsRefused(IFederation.Phase.None);
    }

    /// @notice An open round takes commitments, batches, seals.
    function test_open_takes_commitments() public {
        open();
        assertStepsRefused(IFederation.Phase.Open);
    }

    /// @notice A sealed round takes its aggregate and disputes.
    function test_sealed_takes_the_aggregate() public {
        reachSealed();
        assertStepsRefused(IFederation.Phase.Sealed);
    }

    /// @notice An aggregated round takes attestations, proposals, finalisations and disputes.
    function test_aggregated_takes_attestations() public {
        reachAggregated();
        assertStepsRefused(IFederation.Phase.Aggregated);
    }

    /// @notice A proposed result takes attestations, finalisations and disputes.
    function test_proposed_takes_attestations() public {
        reachProposed();
        assertStepsRefused(IFederation.Phase.Proposed);
    }

    /// @notice A finalised round takes late attestations, and the next round may open.
    function test_finalised_takes_late_attestations() public {
        reachFinalised();
        assertStepsRefused(IFederation.Phase.Finalised);
    }

    /// @notice A failed round takes nothing.
    function test_failed_takes_nothing() public {
        reachFailed();
        assertStepsRefused(IFederation.Phase.Failed);
    }

    /// @notice A retired ledger takes no step of any round.
    function test_retired_takes_nothing() public {
        reachRetired();
        assertStepsRefused(IFederation.Phase.Retired);
    }

    /// @dev Each refusal is by the phase, so all else about these calls has to be right.
    function assertStepsRefused(IFederation.Phase phase_) private {
        phase = phase_;
        assertEq(uint8(federation.currentRound().phase), uint8(phase));
        address node = nodes[0].addr;
        bytes[] memory signatures = signAll(0, 3, MODEL);

        assertRefusedUnless(
            aggregator,
            abi.encodeCall(IFederation.openRound, (round + 1)),
            among(IFederation.Phase.None, IFederation.Phase.Finalised, IFederation.Phase.Failed)
        );
        assertRefusedUnless(node, abi.encodeCall(IFederation.commit, (round, ROOT, 1)), only(IFederation.Phase.Open));
        assertRefusedUnless(
            aggregator, abi.encodeCall(IFederation.anchorCommitments, (round, ROOT, 5)), only(IFederation.Phase.Open)
        );
        assertRefusedUnless(
            aggregator,
            abi.encodeCall(IFederation.seal, (round, list(0, 5), new bytes(5))),
            only(IFederation.Phase.Open)
        );
        assertRefusedUnless(
            aggregator, abi.encodeCall(IFederation.publishAggregate, (round, ROOT)), only(IFederation.Phase.Sealed)
        );
        assertRefusedUnless(
            node,
            abi.encodeCall(IFederation.attest, (round, MODEL)),
            among(IFederation.Phase.Aggregated, IFederation.Phase.Proposed, IFederation.Phase.Finalised)
        );
        assertRefusedUnless(
            aggregator,
            abi.encodeCall(IFederation.proposeResult, (round, MODEL, ROOT, 3)),
            only(IFederation.Phase.Aggregated)
        );
        assertRefusedUnless(
            stranger,
            abi.encodeCall(IFederation.finalise, (round, MODEL, list(0, 3), signatures)),
            only(IFederation.Phase.Aggregated) | only(IFederation.Phase.Proposed)
        );
        assertRefusedUnless(
            node,
            abi.encodeCall(IFederation.dispute, (round, IFederation.Subject.Chunk, 0)),
            among(IFederation.Phase.Sealed, IFederation.Phase.Aggregated, IFederation.Phase.Proposed)
        );
        if (phase != IFederation.Phase.None) {
            // Number 0 is nobody's round, so before the first one the number is what is refused.
            assertRefusedUnless(
                aggregator,
                abi.encodeCall(IFederation.fail, (round, 1)),
                only(IFederation.Phase.Open)
                    | among(IFederation.Phase.Sealed, IFederation.Phase.Aggregated, IFederation.Phase.Proposed)
            );
        }
        assertRefusedUnless(
            admin,
            abi.encodeCall(IFederation.retire, ()),
            among(IFederation.Phase.None, IFederation.Phase.Finalised, IFederation.Phase.Failed)
        );
    }

    function assertRefusedUnless(address caller, bytes memory call, uint256 phases) private {
        if (phases & only(phase) != 0) return;
        assertRefused(caller, call, abi.encodeWithSelector(IFederation.WrongPhase.selector, round, phase));
    }

    function only(IFederation.Phase phase_) private pure returns (uint256) {
        return 1 << uint8(phase_);
    }

    function among(IFederation.Phase one, IFederation.Phase two, IFederation.Phase three)
        private
        pure
        returns (uint256)
    {
        return only(one) | only(two) | only(three);
    }
}
