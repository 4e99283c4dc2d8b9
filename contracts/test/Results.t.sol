// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract ResultsTest is FederationTest {
    function setUp() public override {
        super.setUp();
        prepare();
    }

    /// @notice A proposal waits for its attest window.
    function test_proposeResult_records_the_proposal() public {
        reachAggregated();
        vm.warp(vm.getBlockTimestamp() + 60);
        uint40 deadline = uint40(vm.getBlockTimestamp() + ATTEST_WINDOW);
        vm.expectEmit(address(federation));
        emit IFederation.ResultProposed(1, MODEL, ROOT, 3, deadline);
        propose(MODEL, 3);
        IFederation.Round memory current = federation.currentRound();
        assertEq(uint8(current.phase), uint8(IFederation.Phase.Proposed));
        assertEq(current.deadline, deadline);
        assertEq(current.attested, 0);
        assertEq(federation.candidate(), MODEL);
        assertEq(federation.headModel(), GENESIS);
    }

    /// @notice From the quorum to the cohort: one less and one more are refused.
    function test_proposeResult_refuses_counts_out_of_range() public {
        reachAggregated();
        assertProposalRefused(1, MODEL, ROOT, 2, abi.encodeWithSelector(IFederation.CountOutOfRange.selector, 2, 3, 5));
        assertProposalRefused(1, MODEL, ROOT, 6, abi.encodeWithSelector(IFederation.CountOutOfRange.selector, 6, 3, 5));
        uint256 snapshot = vm.snapshotState();
        propose(MODEL, 3);
        vm.revertToState(snapshot);
        propose(MODEL, 5);
    }

    /// @notice The last second of the attest window counts, the next does not.
    function test_proposeResult_refuses_after_the_deadline() public {
        reachAggregated();
        uint40 deadline = federation.currentRound().deadline;
        vm.warp(deadline + 1);
        assertProposalRefused(1, MODEL, ROOT, 3, deadlinePassed(deadline));
        vm.warp(deadline);
        propose(MODEL, 3);
    }

    /// @notice A proposal names its model, its root and its round.
    function test_proposeResult_refuses_wrong_arguments() public {
        reachAggregated();
        assertProposalRefused(1, 0, ROOT, 3, zeroDigest());
        assertProposalRefused(1, MODEL, 0, 3, zeroDigest());
        assertProposalRefused(2, MODEL, ROOT, 3, wrongRound(2));
    }

    /// @notice The aggregator proposes no other model than one that a node attested.
    function test_proposeResult_refuses_another_model_than_attested() public {
        reachAggregated();
        attest(0, MODEL);
        assertProposalRefused(
            1, OTHER_MODEL, ROOT, 3, abi.encodeWithSelector(IFederation.ModelsDiffer.selector, 1, MODEL, OTHER_MODEL)
        );
        propose(MODEL, 3);
        assertEq(federation.currentRound().attested, 1);
    }

    /// @notice Where the policy allows no batches there are no proposals.
    function test_proposeResult_refuses_without_batching() public {
        IFederation.Policy memory policy = makePolicy();
        policy.batching = false;
        adopt(policy);
        reachAggregated();
        assertProposalRefused(1, MODEL, ROOT, 3, abi.encodeWithSelector(IFederation.BatchingNotAllowed.selector, 1));
    }

    /// @notice A proposal that stood uncontradicted is finalised by anyone, and not a second earlier.
    function test_finalise_takes_a_proposal_that_stood() public {
        reachProposed();
        uint40 deadline = federation.currentRound().deadline;
        vm.warp(deadline);
        assertFinalisationRefused(
            MODEL, 0, 0, MODEL, abi.encodeWithSelector(IFederation.DeadlineNotReached.selector, 1, deadline, deadline)
        );
        vm.warp(deadline + 1);
        vm.expectEmit(address(federation));
        emit IFederation.RoundFinalised(1, MODEL, 0, new address[](0));
        vm.prank(stranger);
        federation.finalise(1, MODEL, new address[](0), new bytes[](0));
        assertEnded(IFederation.Phase.Finalised);
        assertEq(federation.headModel(), MODEL);
    }

    /// @notice A node that derived another model than the proposed one fails the round.
    function test_attest_contradicts_a_proposal() public {
        reachProposed();
        vm.expectEmit(address(federation));
        emit IFederation.ModelAttested(1, nodes[0].addr, OTHER_MODEL);
        vm.expectEmit(address(federation));
        emit IFederation.RoundFailed(1, IFederation.Phase.Proposed, 5);
        attest(0, OTHER_MODEL);
        assertEnded(IFederation.Phase.Failed);
        assertEq(federation.headModel(), GENESIS);
    }

    /// @notice Nodes contradict to the last second before the proposal can be finalised.
    function test_attest_contradicts_until_the_deadline() public {
        reachProposed();
        uint40 deadline = federation.currentRound().deadline;
        vm.warp(deadline + 1);
        assertRefused(nodes[0].addr, abi.encodeCall(IFederation.attest, (1, OTHER_MODEL)), deadlinePassed(deadline));
        vm.warp(deadline);
        attest(0, OTHER_MODEL);
        assertEnded(IFederation.Phase.Failed);
    }

    /// @notice Attestations by transaction finalise a proposal without the wait.
    function test_attest_finalises_a_proposal_with_the_quorum() public {
        reachProposed();
        attest(0, MODEL);
        attest(1, MODEL);
        assertEq(uint8(federation.currentRound().phase), uint8(IFederation.Phase.Proposed));
        vm.expectEmit(address(federation));
        emit IFederation.RoundFinalised(1, MODEL, 3, new address[](0));
        attest(2, MODEL);
        assertEnded(IFederation.Phase.Finalised);
    }

    /// @notice So do signatures.
    function test_finalise_takes_signatures_for_a_proposal() public {
        reachProposed();
        assertFinalisationRefused(MODEL, 0, 2, MODEL, quorumNotReached(2));
        vm.expectEmit(address(federation));
        emit IFederation.RoundFinalised(1, MODEL, 0, list(0, 3));
        finalise(MODEL, 0, 3);
        assertEnded(IFederation.Phase.Finalised);
    }

    /// @notice As many signatures as the quorum finalise, one less does not. Anyone brings them, at any time.
    function test_finalise_takes_signatures_of_the_quorum() public {
        reachAggregated();
        vm.warp(federation.currentRound().deadline + 365 days);
        assertFinalisationRefused(MODEL, 0, 0, MODEL, quorumNotReached(0));
        assertFinalisationRefused(MODEL, 0, 2, MODEL, quorumNotReached(2));
        vm.expectEmit(address(federation));
        emit IFederation.RoundFinalised(1, MODEL, 0, list(2, 5));
        finalise(MODEL, 2, 5);
        assertEnded(IFederation.Phase.Finalised);
        assertEq(federation.headModel(), MODEL);
    }

    /// @notice Signatures and transactions add up to the quorum.
    function test_finalise_adds_signatures_to_transactions() public {
        reachAggregated();
        attest(0, MODEL);
        assertFinalisationRefused(MODEL, 1, 2, MODEL, quorumNotReached(2));
        vm.expectEmit(address(federation));
        emit IFederation.RoundFinalised(1, MODEL, 1, list(1, 3));
        finalise(MODEL, 1, 3);
        assertEnded(IFederation.Phase.Finalised);
    }

    /// @notice No other model is finalised than one that was attested or proposed.
    function test_finalise_refuses_another_model() public {
        reachAggregated();
        attest(0, MODEL);
        bytes memory reason = abi.encodeWithSelector(IFederation.ModelsDiffer.selector, 1, MODEL, OTHER_MODEL);
        assertFinalisationRefused(OTHER_MODEL, 1, 5, OTHER_MODEL, reason);
        propose(MODEL, 3);
        assertFinalisationRefused(OTHER_MODEL, 1, 5, OTHER_MODEL, reason);
        vm.warp(federation.currentRound().deadline + 1);
        assertFinalisationRefused(OTHER_MODEL, 0, 0, OTHER_MODEL, reason);
    }

    /// @notice A finalisation names its model, its round, and a signature for each signer.
    function test_finalise_refuses_wrong_arguments() public {
        reachAggregated();
        assertFinalisationRefused(0, 0, 3, MODEL, zeroDigest());
        bytes[] memory signatures = signAll(0, 3, MODEL);
        assertRefused(stranger, abi.encodeCall(IFederation.finalise, (2, MODEL, list(0, 3), signatures)), wrongRound(2));
        assertRefused(
            stranger,
            abi.encodeCall(IFederation.finalise, (1, MODEL, list(0, 4), signatures)),
            abi.encodeWithSelector(IFederation.LengthMismatch.selector, 4, 3)
        );
    }

    function assertFinalisationRefused(bytes32 model, uint256 from, uint256 to, bytes32 signed, bytes memory reason)
        private
    {
        bytes[] memory signatures = signAll(from, to, signed);
        assertRefused(stranger, abi.encodeCall(IFederation.finalise, (1, model, list(from, to), signatures)), reason);
    }

    function assertProposalRefused(uint24 number, bytes32 model, bytes32 root, uint16 count, bytes memory reason)
        private
    {
        assertRefused(aggregator, abi.encodeCall(IFederation.proposeResult, (number, model, root, count)), reason);
    }

    function quorumNotReached(uint256 count) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IFederation.QuorumNotReached.selector, 1, count, 3);
    }
}
