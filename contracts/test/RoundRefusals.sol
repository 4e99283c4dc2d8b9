// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Refusals} from "./Refusals.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title What the ledger has to refuse of a round
abstract contract RoundRefusals is Refusals {
    function refuseSecondCommitment() internal counted("refuseSecondCommitment") {
        vm.assume(isAt(IFederation.Phase.Open) && clock <= round.deadline);
        refuse(
            pick(hasCommitted),
            abi.encodeCall(IFederation.commit, (round.number, drawDigest(), 1)),
            IFederation.AlreadyCommitted.selector
        );
    }

    function refuseCommitmentOfOthers() internal counted("refuseCommitmentOfOthers") {
        vm.assume(isAt(IFederation.Phase.Open) && clock <= round.deadline);
        address caller = draw(2) == 0 ? outsider : pick(isNoMember);
        bytes memory call = abi.encodeCall(IFederation.commit, (round.number, ROOT, 1));
        refuse(caller, call, IFederation.NotInCohort.selector);
    }

    function refuseBadCommitment() internal counted("refuseBadCommitment") {
        vm.assume(isAt(IFederation.Phase.Open));
        address node = pick(hasNotCommitted);
        uint24 number = round.number;
        if (clock > round.deadline) {
            bytes memory late = abi.encodeCall(IFederation.commit, (number, ROOT, 1));
            return refuse(node, late, IFederation.DeadlinePassed.selector);
        }
        refuse(
            node,
            abi.encodeCall(IFederation.commit, (number, ROOT, round.maxExamples + 1)),
            IFederation.ExamplesOutOfRange.selector
        );
        refuse(node, abi.encodeCall(IFederation.commit, (number - 1, ROOT, 1)), IFederation.WrongRound.selector);
        refuse(node, abi.encodeCall(IFederation.commit, (number, 0, 1)), IFederation.ZeroDigest.selector);
    }

    function refuseBadBatch() internal counted("refuseBadBatch") {
        vm.assume(isAt(IFederation.Phase.Open));
        uint16 leaves = 1;
        bytes4 reason = IFederation.DeadlinePassed.selector;
        if (!round.batching) {
            reason = IFederation.BatchingNotAllowed.selector;
        } else if (round.batched != 0) {
            reason = IFederation.AlreadyAnchored.selector;
        } else if (clock <= round.deadline - round.attestWindow) {
            leaves = round.cohort + 1;
            reason = IFederation.CountOutOfRange.selector;
        }
        refuse(aggregator, abi.encodeCall(IFederation.anchorCommitments, (round.number, ROOT, leaves)), reason);
    }

    /// @notice A seal that omits a commitment, invents one, doubles one, or comes from somebody else or too early.
    function refuseBadSeal() internal counted("refuseBadSeal") {
        vm.assume(isAt(IFederation.Phase.Open));
        uint24 number = round.number;
        (address[] memory listed, bytes memory reasons, uint256 counted) = listContributors(false);
        if (counted < round.minContributors) {
            bytes memory few = abi.encodeCall(IFederation.seal, (number, listed, reasons));
            return refuse(aggregator, few, IFederation.QuorumNotReached.selector);
        }
        bytes4 early = IFederation.DeadlineNotReached.selector;
        bytes memory call = abi.encodeCall(IFederation.seal, (number, listed, reasons));
        if (clock <= overdue()) refuse(outsider, call, early);
        if (clock <= round.deadline && counted < round.cohort) refuse(aggregator, call, early);
        if (round.committed == 0) return;

        address[] memory others = new address[](listed.length - 1);
        bytes memory othersReasons = new bytes(listed.length - 1);
        for (uint256 i; i < others.length; ++i) {
            (others[i], othersReasons[i]) = (listed[i], reasons[i]);
        }
        refuse(
            aggregator,
            abi.encodeCall(IFederation.seal, (number, others, othersReasons)),
            IFederation.CommitmentsMissing.selector
        );
        refuse(
            aggregator,
            abi.encodeCall(IFederation.seal, (number, listed, othersReasons)),
            IFederation.LengthMismatch.selector
        );
        if (listed.length == 1) return;
        listed[0] = listed[1];
        refuse(
            aggregator, abi.encodeCall(IFederation.seal, (number, listed, reasons)), IFederation.NotAscending.selector
        );
        listed[0] = address(1);
        reasons[0] = 0;
        refuse(
            aggregator, abi.encodeCall(IFederation.seal, (number, listed, reasons)), IFederation.NotCommitted.selector
        );
    }

    /// @notice A seal by somebody else that excludes nodes or speaks for a batch, or one that counts doubled nodes
    /// twice.
    function refuseBadReasons() internal counted("refuseBadReasons") {
        vm.assume(isAt(IFederation.Phase.Open));
        (address[] memory listed, bytes memory reasons, uint256 counted_) = listContributors(draw(2) == 0);
        bool doesExclude;
        uint256 doubled;
        for (uint256 i; i < reasons.length; ++i) {
            if (uint8(reasons[i]) % 128 != 0) doesExclude = true;
            if (uint8(reasons[i]) >= 128) ++doubled;
        }
        if (!doesExclude && counted_ + doubled > round.cohort) {
            bytes memory call = abi.encodeCall(IFederation.seal, (round.number, listed, new bytes(listed.length)));
            return refuse(aggregator, call, IFederation.CountOutOfRange.selector);
        }
        vm.assume((doesExclude || round.batched != 0) && counted_ >= round.minContributors);
        sleepPast(overdue());
        refuse(
            outsider,
            abi.encodeCall(IFederation.seal, (round.number, listed, reasons)),
            doesExclude ? IFederation.ExclusionNotAllowed.selector : IFederation.AlreadyAnchored.selector
        );
    }

    /// @notice Once sealed, a round takes no commitment, batch or seal from anyone.
    function refuseToAlterASeal() internal counted("refuseToAlterASeal") {
        vm.assume(round.number != 0 && !isAt(IFederation.Phase.Open));
        address[4] memory callers = [admin, aggregator, nodes[draw(NODES)], outsider];
        address caller = callers[draw(4)];
        bytes4 reason = IFederation.WrongPhase.selector;
        refuse(caller, abi.encodeCall(IFederation.commit, (round.number, ROOT, 1)), reason);
        refuse(aggregator, abi.encodeCall(IFederation.anchorCommitments, (round.number, ROOT, 1)), reason);
        (address[] memory listed, bytes memory reasons,) = listContributors(false);
        refuse(caller, abi.encodeCall(IFederation.seal, (round.number, listed, reasons)), reason);
        if (!isAt(IFederation.Phase.Sealed)) {
            refuse(aggregator, abi.encodeCall(IFederation.publishAggregate, (round.number, ROOT)), reason);
        }
        if (!isAt(IFederation.Phase.Aggregated)) {
            bytes memory call = abi.encodeCall(IFederation.proposeResult, (round.number, ROOT, ROOT, 6));
            refuse(aggregator, call, reason);
        }
    }

    /// @notice What is over stays as it is.
    function refuseToAlterAnEnd() internal counted("refuseToAlterAnEnd") {
        vm.assume(round.number != 0 && !isUnderWay());
        address node = nodes[draw(NODES)];
        uint24 number = round.number;
        bytes4 reason = IFederation.WrongPhase.selector;
        refuse(aggregator, abi.encodeCall(IFederation.fail, (number, 1)), reason);
        refuse(node, abi.encodeCall(IFederation.dispute, (number, IFederation.Subject.Chunk, 0)), reason);
        refuse(outsider, abi.encodeCall(IFederation.finalise, (number, ROOT, new address[](0), new bytes[](0))), reason);
        if (!isAt(IFederation.Phase.Finalised)) {
            refuse(node, abi.encodeCall(IFederation.attest, (number, ROOT)), reason);
        }
    }

    function refuseSecondAttestation() internal counted("refuseSecondAttestation") {
        vm.assume(isDecidable() && clock <= round.deadline);
        bytes memory call = abi.encodeCall(IFederation.attest, (round.number, draw(2) == 0 ? makeModel() : ROOT));
        refuse(pick(hasVoted), call, IFederation.AlreadyAttested.selector);
    }

    function refuseAttestationOfOthers() internal counted("refuseAttestationOfOthers") {
        vm.assume(isDecidable() && clock <= round.deadline);
        address caller = draw(2) == 0 ? outsider : pick(isNoMember);
        bytes memory call = abi.encodeCall(IFederation.attest, (round.number, makeModel()));
        refuse(caller, call, IFederation.NotInCohort.selector);
        call = abi.encodeCall(IFederation.dispute, (round.number, IFederation.Subject.Chunk, 0));
        refuse(caller, call, IFederation.NotInCohort.selector);
    }

    /// @notice One signature less than the quorum, a doubled one, a forged one, one of another model, an outsider's.
    function refuseBadFinalisation() internal counted("refuseBadFinalisation") {
        vm.assume(isDecidable());
        uint256 left = count(hasNotAttested);
        uint256 needed = round.attestationQuorum - round.attested;
        vm.assume(left >= needed);
        bytes32 model = makeModel();
        (address[] memory signers, bytes[] memory signatures) = signSome(needed, left, model);
        if (hasCandidate) refuseFinalisation(ROOT, signers, signatures, IFederation.ModelsDiffer.selector);
        bytes memory genuine = signatures[0];
        signatures[0] = sign(outsider, model);
        refuseFinalisation(model, signers, signatures, IFederation.InvalidSignature.selector);
        signatures[0] = sign(signers[0], ROOT);
        refuseFinalisation(model, signers, signatures, IFederation.InvalidSignature.selector);
        signatures[0] = genuine;
        if (needed > 1) {
            (signers[needed - 1], signatures[needed - 1]) = (signers[needed - 2], signatures[needed - 2]);
            refuseFinalisation(model, signers, signatures, IFederation.NotAscending.selector);
            (address[] memory fewer, bytes[] memory fewerSignatures) = signSome(needed - 1, left, model);
            refuseFinalisation(model, fewer, fewerSignatures, IFederation.QuorumNotReached.selector);
        }
        signers = new address[](1);
        signatures = new bytes[](1);
        (signers[0], signatures[0]) = (outsider, sign(outsider, model));
        refuseFinalisation(model, signers, signatures, IFederation.NotInCohort.selector);
    }

    /// @notice Who attested by transaction and signs, too, is one node.
    function refuseDoubledAttestation() internal counted("refuseDoubledAttestation") {
        vm.assume(isDecidable());
        address[] memory signers = new address[](1);
        bytes[] memory signatures = new bytes[](1);
        signers[0] = pick(hasVoted);
        signatures[0] = sign(signers[0], makeModel());
        refuseFinalisation(makeModel(), signers, signatures, IFederation.AlreadyAttested.selector);
    }

    /// @notice No phase is ended before its time, and none is entered after it.
    function refuseOutOfTime() internal counted("refuseOutOfTime") {
        vm.assume(isUnderWay());
        uint24 number = round.number;
        // To the last second that is too early.
        uint256 dice = draw(8);
        if (dice < 3) sleepUntil(round.deadline);
        else if (dice == 3) sleepUntil(overdue());
        bytes4 early = IFederation.DeadlineNotReached.selector;
        bytes4 late = IFederation.DeadlinePassed.selector;
        if (clock <= overdue()) refuse(outsider, abi.encodeCall(IFederation.fail, (number, 1)), early);
        if (clock <= round.deadline) {
            if (!isAt(IFederation.Phase.Proposed)) return;
            return refuseFinalisation(makeModel(), new address[](0), new bytes[](0), early);
        }
        if (isAt(IFederation.Phase.Sealed)) {
            refuse(aggregator, abi.encodeCall(IFederation.publishAggregate, (number, ROOT)), late);
        }
        if (isDecidable()) {
            refuse(pick(isMember), abi.encodeCall(IFederation.attest, (number, ROOT)), late);
        }
        if (isAt(IFederation.Phase.Aggregated)) {
            refuse(aggregator, abi.encodeCall(IFederation.proposeResult, (number, ROOT, ROOT, 6)), late);
        }
    }

    function refuseBadProposal() internal counted("refuseBadProposal") {
        vm.assume(isAt(IFederation.Phase.Aggregated) && clock <= round.deadline);
        uint16 quorum = round.attestationQuorum;
        bytes4 reason = IFederation.CountOutOfRange.selector;
        if (!round.batching) {
            reason = IFederation.BatchingNotAllowed.selector;
        } else if (hasCandidate) {
            bytes memory other = abi.encodeCall(IFederation.proposeResult, (round.number, ROOT, ROOT, quorum));
            refuse(aggregator, other, IFederation.ModelsDiffer.selector);
        }
        refuse(
            aggregator, abi.encodeCall(IFederation.proposeResult, (round.number, makeModel(), ROOT, quorum - 1)), reason
        );
    }

    function refuseFinalisation(bytes32 model, address[] memory signers, bytes[] memory signatures, bytes4 reason)
        private
    {
        refuse(outsider, abi.encodeCall(IFederation.finalise, (round.number, model, signers, signatures)), reason);
    }

    function hasVoted(address node) private view returns (bool) {
        return parts[node].hasAttested;
    }
}
