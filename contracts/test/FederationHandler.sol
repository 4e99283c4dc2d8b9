// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {RoundRefusals} from "./RoundRefusals.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title An admin, an aggregator, six nodes and an outsider through whole rounds of all kinds
/// @notice Sends what the ledger has to accept, so that a refusal is a failure, and what it has to refuse, so that an
/// acceptance is one. Chooses among what can come next: chosen evenly among all, steps would hardly make a round.
contract FederationHandler is RoundRefusals {
    constructor() {
        createActors();
        vm.warp(clock);
        vm.recordLogs();
        begin(address(0));
        replay(vm.getRecordedLogs(), address(ledger));
    }

    /// @notice One step, chosen by the seed and all before it. Those that do not fit are discarded.
    function play(uint256 seed) external step(seed) {
        uint256 dice = draw(100);
        if (dice < 8) sleep();
        else if (isRetired()) playRetired();
        else if (dice < 24) playBeside();
        else if (dice < 45 || (dice < 60 && isDecidable())) playRefusal();
        else if (isAt(IFederation.Phase.Open)) playOpen();
        else if (isAt(IFederation.Phase.Sealed)) playSealed();
        else if (isDecidable()) playDecidable();
        else playBetween();
    }

    function playBeside() private {
        uint256 dice = draw(100);
        if (dice < 14) register();
        else if (dice < 34) admit();
        else if (dice < 40) suspend();
        else if (dice < 46) leave();
        else if (dice < 54) rotateKeys();
        else if (dice < 62) approvePolicy();
        else if (dice < 68) adoptPolicy();
        else if (dice < 86 && isAdmitted(ledger.keyMaker())) publishEpoch();
        else if (dice < 82) requestEpoch();
        else if (dice < 86) releaseCheckpoint();
        else if (dice < 92 && !isUnderWay()) replaceAggregator();
        else handAdminOver();
    }

    function playOpen() private {
        uint256 dice = draw(100);
        if (dice < 45 && clock <= round.deadline && count(hasNotCommitted) != 0) commit();
        else if (dice < 60 && isBatchPossible()) anchorCommitments();
        else if (dice < 88) seal();
        else if (dice < 94) sealByAnyone();
        else playFailure();
    }

    function playSealed() private {
        if (clock <= round.deadline && draw(100) < 90) publishAggregate();
        else playFailure();
    }

    function playDecidable() private {
        uint256 dice = draw(100);
        if (dice < 10) playFailure();
        else if (dice < 24) finaliseSigned();
        else if (dice < 60 && isAt(IFederation.Phase.Proposed)) finaliseProposed();
        else if (clock > round.deadline) finaliseSigned();
        else if (dice < 55 && round.batching && isAt(IFederation.Phase.Aggregated)) proposeResult();
        else if (dice < 90 || !hasCandidate) attest();
        else contradict();
    }

    function playBetween() private {
        uint256 dice = draw(100);
        if (dice < 2) retire();
        else if (dice < 30 && isAt(IFederation.Phase.Finalised)) attestLate();
        else openRound();
    }

    function playRetired() private {
        if (draw(2) == 0) succeed();
        else refuseAfterRetirement();
    }

    function playFailure() private {
        uint256 dice = draw(3);
        if (dice == 0 && !isAt(IFederation.Phase.Open)) dispute();
        else if (dice == 1) giveUp();
        else failByAnyone();
    }

    function playRefusal() private {
        if (retired.length != 0 && draw(20) == 0) return refuseToWake();
        uint256 dice = draw(isDecidable() ? 24 : 12);
        if (dice == 0) refuseOutsiders();
        else if (dice == 1) refusePredecessorsInOffice();
        else if (dice == 2) refuseBadKeys();
        else if (dice == 3) refuseOpening();
        else if (dice == 4 && isUnderWay()) refuseNewAggregator();
        else if (dice == 5 && isUnderWay()) refuseOutOfTime();
        else if (isAt(IFederation.Phase.Open)) playRefusalOfOpen(draw(10));
        else if (dice < 8 || !isDecidable()) refuseToAlterASealOrAnEnd();
        else playRefusalOfDecidable();
    }

    function playRefusalOfOpen(uint256 dice) private {
        if (dice == 0) refuseSecondCommitment();
        else if (dice == 1) refuseCommitmentOfOthers();
        else if (dice == 2) refuseBadCommitment();
        else if (dice == 3) refuseBadBatch();
        else if (dice < 8) refuseBadReasons();
        else refuseBadSeal();
    }

    function refuseToAlterASealOrAnEnd() private {
        if (draw(2) == 0 && !isUnderWay()) refuseToAlterAnEnd();
        else refuseToAlterASeal();
    }

    function playRefusalOfDecidable() private {
        uint256 dice = draw(6);
        if (dice == 0 && round.attested != 0) refuseSecondAttestation();
        else if (dice == 1 && round.attested != 0) refuseDoubledAttestation();
        else if (dice < 3) refuseBadFinalisation();
        else if (dice < 5 && isAt(IFederation.Phase.Aggregated)) refuseBadProposal();
        else refuseAttestationOfOthers();
    }
}
