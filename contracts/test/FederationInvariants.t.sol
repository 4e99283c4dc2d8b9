// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {StdAssertions} from "forge-std/StdAssertions.sol";
import {StdInvariant} from "forge-std/StdInvariant.sol";
import {Vm} from "forge-std/Vm.sol";
import {FederationHandler} from "./FederationHandler.sol";
import {World} from "./World.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title What holds of a ledger at any time, whoever did what
contract FederationInvariants is StdAssertions, StdInvariant {
    FederationHandler private handler;
    address[] private nodes;

    function setUp() public {
        handler = new FederationHandler();
        nodes = handler.getNodes();
        targetContract(address(handler));
    }

    /// @notice The running hash is the one that a replay of the events alone comes to.
    function invariant_history_is_the_replay_of_the_events() public view {
        assertEq(ledger().historyHash(), handler.replayedHash());
    }

    /// @notice The newest round is what its accepted steps made of it, whatever else was tried.
    function invariant_round_is_what_its_steps_made() public view {
        assertEq(abi.encode(ledger().currentRound()), abi.encode(handler.getRound()));
    }

    /// @notice Round numbers only grow, by one with each opening.
    function invariant_rounds_are_numbered_without_gaps() public view {
        assertEq(ledger().currentRound().number, handler.opened());
    }

    /// @notice Phases follow each other as drawn above the contract, and an end is final.
    function invariant_phases_follow_the_state_machine() public view {
        uint256 allowed = from(IFederation.Phase.None, IFederation.Phase.Open);
        allowed |= from(IFederation.Phase.Open, IFederation.Phase.Sealed);
        allowed |= from(IFederation.Phase.Sealed, IFederation.Phase.Aggregated);
        allowed |= from(IFederation.Phase.Aggregated, IFederation.Phase.Proposed);
        allowed |= from(IFederation.Phase.Aggregated, IFederation.Phase.Finalised);
        allowed |= from(IFederation.Phase.Proposed, IFederation.Phase.Finalised);
        allowed |= from(IFederation.Phase.Finalised, IFederation.Phase.Open);
        allowed |= from(IFederation.Phase.Failed, IFederation.Phase.Open);
        for (uint256 phase; phase < 8; ++phase) {
            allowed |= from(IFederation.Phase(phase), IFederation.Phase(phase));
            if (phase >= 1 && phase <= 4) allowed |= from(IFederation.Phase(phase), IFederation.Phase.Failed);
            else allowed |= from(IFederation.Phase(phase), IFederation.Phase.Retired);
        }
        // In the successor.
        allowed |= from(IFederation.Phase.Retired, IFederation.Phase.None);
        assertEq(handler.transitions() & ~allowed, 0);
    }

    /// @notice A node has one commitment in a round, the one that it sent, and is counted once.
    function invariant_nodes_commit_once_a_round() public view {
        IFederation.Round memory round = ledger().currentRound();
        uint256 committed;
        for (uint256 i; i < nodes.length; ++i) {
            bytes24 commitment = handler.getPart(nodes[i]).commitment;
            if (commitment == 0) continue;
            ++committed;
            IFederation.Member memory member = ledger().member(nodes[i]);
            assertEq(member.lastRound, round.number);
            assertEq(member.commitment, commitment);
        }
        assertEq(round.committed, committed);
    }

    /// @notice Once sealed, neither the counts nor any node's commitment changes.
    function invariant_sealed_commitments_never_change() public view {
        bytes32 sealedCommitments = handler.sealedCommitments();
        if (sealedCommitments != 0) assertEq(handler.hashCommitments(), sealedCommitments);
    }

    /// @notice A round is sealed with at least the fewest contributors of its policy, and with no more than its cohort.
    function invariant_contributors_are_enough_and_of_the_cohort() public view {
        IFederation.Round memory round = ledger().currentRound();
        uint256 contributors = handler.contributors();
        if (round.phase < IFederation.Phase.Sealed || handler.sealedCommitments() == 0) {
            assertEq(contributors, 0);
            return;
        }
        assertGe(contributors, round.minContributors);
        assertLe(contributors, round.cohort);
        for (uint256 i; i < nodes.length; ++i) {
            bool hasCommitted = handler.getPart(nodes[i]).commitment != 0;
            if (hasCommitted) assertTrue(handler.getPart(nodes[i]).isOfCohort);
        }
    }

    /// @notice The terms of a round are those it opened with, whatever policy is adopted since.
    function invariant_terms_never_change_within_a_round() public view {
        IFederation.Round memory round = ledger().currentRound();
        if (round.number != 0) assertEq(handler.hashTerms(round), handler.openedTerms());
    }

    /// @notice Nobody joins or leaves the cohort of a round, under way or over, and it is counted right.
    function invariant_cohort_never_changes() public view {
        IFederation.Round memory round = ledger().currentRound();
        uint256 cohort;
        for (uint256 i; i < nodes.length; ++i) {
            bool isOfCohort = handler.getPart(nodes[i]).isOfCohort;
            assertEq(ledger().isInCohort(nodes[i]), isOfCohort);
            if (isOfCohort) ++cohort;
        }
        assertEq(round.cohort, cohort);
    }

    /// @notice `attested` counts distinct nodes of the cohort that attested by transaction before the end.
    function invariant_attested_counts_distinct_nodes_of_the_cohort() public view {
        IFederation.Round memory round = ledger().currentRound();
        uint256 attested;
        for (uint256 i; i < nodes.length; ++i) {
            if (!handler.getPart(nodes[i]).hasCounted) continue;
            ++attested;
            assertTrue(handler.getPart(nodes[i]).isOfCohort);
            assertEq(ledger().member(nodes[i]).lastRound, round.number);
            assertTrue(ledger().member(nodes[i]).hasAttested);
        }
        assertEq(round.attested, attested);
    }

    /// @notice A model was attested by a quorum that is more than half of the cohort, or proposed and not objected to.
    function invariant_models_are_finalised_by_a_quorum() public view {
        World.Finalisation memory finalisation = handler.getFinalisation();
        IFederation.Round memory round = ledger().currentRound();
        if (round.phase != IFederation.Phase.Finalised) return;
        assertEq(finalisation.round, round.number);
        assertEq(finalisation.model, ledger().headModel());
        if (finalisation.hasStood) return assertTrue(round.batching);
        assertGe(finalisation.attested, round.attestationQuorum);
        assertGt(2 * finalisation.attested, round.cohort);
        assertLe(finalisation.attested, round.cohort);
    }

    /// @notice The head is the first policy's model, and then the last finalised one.
    function invariant_head_changes_by_finalisation_alone() public view {
        assertEq(ledger().headModel(), handler.head());
        bytes32 model = handler.getFinalisation().model;
        assertEq(ledger().headModel(), model == 0 ? keccak256("genesis model") : model);
    }

    /// @notice What the nodes of the round attest is what the first or a proposal had.
    function invariant_candidate_is_the_first_attested() public view {
        (bool hasCandidate, bytes32 candidate) = handler.getCandidate();
        if (hasCandidate) assertEq(ledger().candidate(), candidate);
    }

    /// @notice Rounds spend what their policies say, and no round opens over its policy's budget.
    function invariant_budget_is_never_exceeded() public view {
        (IFederation.Privacy memory privacy, bool isBudgetKept) = handler.getPrivacy();
        assertEq(abi.encode(ledger().privacy()), abi.encode(privacy));
        assertTrue(isBudgetKept);
    }

    /// @notice `admitted` is how many nodes are, and each stands where its last step left it.
    function invariant_admitted_counts_the_admitted() public view {
        uint256 admitted;
        for (uint256 i; i < nodes.length; ++i) {
            IFederation.MemberStatus status = ledger().member(nodes[i]).status;
            assertEq(uint8(status), uint8(handler.statusOf(nodes[i])));
            if (status == IFederation.MemberStatus.Admitted) ++admitted;
        }
        assertEq(ledger().state().admitted, admitted);
    }

    /// @notice A key is stale just if the membership has changed since it was made.
    function invariant_epoch_is_stale_after_a_change_of_membership() public view {
        IFederation.State memory state = ledger().state();
        assertEq(state.isEpochStale, state.membership != handler.membershipOfEpoch());
    }

    /// @notice The ledger's standing is what its accepted steps made of it.
    function invariant_state_is_what_its_steps_made() public view {
        assertEq(abi.encode(ledger().state()), abi.encode(handler.getTerms()));
    }

    /// @notice A deadline is set just while a round is under way.
    function invariant_deadlines_are_of_rounds_under_way() public view {
        IFederation.Round memory round = ledger().currentRound();
        bool isUnderWay = round.phase >= IFederation.Phase.Open && round.phase <= IFederation.Phase.Proposed;
        assertEq(round.deadline != 0, isUnderWay);
    }

    /// @notice Nothing happens on a retired ledger, and its successor names it.
    function invariant_retired_ledgers_stand_still() public view {
        (IFederation[] memory retired, bytes32[] memory retiredAs) = handler.getRetired();
        for (uint256 i; i < retired.length; ++i) {
            assertEq(handler.hashLedger(retired[i]), retiredAs[i]);
            IFederation successor = i + 1 < retired.length ? retired[i + 1] : ledger();
            assertEq(successor.predecessor(), address(retired[i]));
        }
    }

    /// @dev The one that the play has come to: a retired one has a successor.
    function ledger() private view returns (IFederation) {
        return handler.ledger();
    }

    function from(IFederation.Phase before, IFederation.Phase next) private pure returns (uint256) {
        return 1 << (8 * uint256(before) + uint256(next));
    }
}

/// @title What a campaign comes by
contract FederationHandlerTest is StdAssertions {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 private constant STEPS = 10_000;
    string[51] private names = [
        "register",
        "admit",
        "suspend",
        "leave",
        "rotateKeys",
        "adoptPolicy",
        "approvePolicy",
        "requestEpoch",
        "publishEpoch",
        "releaseCheckpoint",
        "handAdminOver",
        "replaceAggregator",
        "retire",
        "sleep",
        "openRound",
        "commit",
        "anchorCommitments",
        "seal",
        "sealByAnyone",
        "dispute",
        "giveUp",
        "failByAnyone",
        "publishAggregate",
        "attest",
        "contradict",
        "attestLate",
        "proposeResult",
        "finaliseSigned",
        "finaliseProposed",
        "refuseOutsiders",
        "refusePredecessorsInOffice",
        "refuseSecondCommitment",
        "refuseCommitmentOfOthers",
        "refuseBadCommitment",
        "refuseBadBatch",
        "refuseBadSeal",
        "refuseBadReasons",
        "refuseToAlterASeal",
        "refuseToAlterAnEnd",
        "refuseOpening",
        "refuseSecondAttestation",
        "refuseAttestationOfOthers",
        "refuseBadFinalisation",
        "refuseDoubledAttestation",
        "refuseOutOfTime",
        "refuseBadProposal",
        "refuseBadKeys",
        "refuseNewAggregator",
        "refuseAfterRetirement",
        "refuseToWake",
        "succeed"
    ];

    FederationHandler private handler;

    /// @notice In a walk of 10,000 steps few are discarded, and each kind of step and each way between phases comes often.
    function test_play_reaches_everything() public {
        vm.pauseGasMetering();
        handler = new FederationHandler();
        uint256 done;
        for (uint256 seed; seed < STEPS; ++seed) {
            // A call that does not fit reverts here, and is discarded in a campaign.
            (bool isDone,) = address(handler).call(abi.encodeCall(handler.play, (seed)));
            if (isDone) ++done;
        }
        emit log_named_uint("steps done", done);
        for (uint256 i; i < names.length; ++i) {
            emit log_named_uint(names[i], handler.accepted(names[i]));
        }
        assertGt(done, STEPS * 2 / 3);
        for (uint256 i; i < names.length; ++i) {
            assertGt(handler.accepted(names[i]), STEPS / 2_000, names[i]);
        }
        for (uint256 phase = uint256(IFederation.Phase.Open); phase <= uint256(IFederation.Phase.Proposed); ++phase) {
            uint256 failure = 8 * phase + uint256(IFederation.Phase.Failed);
            assertEq((handler.transitions() >> failure) & 1, 1, "never failed in a phase");
        }
    }
}
