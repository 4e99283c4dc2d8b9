// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {RoundSteps} from "./RoundSteps.sol";
import {Wallet} from "./Wallets.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title A round from its seal to a model
abstract contract ResultSteps is RoundSteps {
    function publishAggregate() internal counted("publishAggregate") {
        vm.assume(isAt(IFederation.Phase.Sealed) && clock <= round.deadline);
        vm.prank(aggregator);
        ledger.publishAggregate(round.number, drawDigest());
        enter(IFederation.Phase.Aggregated, clock + round.attestWindow);
    }

    /// @notice From one to all of the nodes that have not yet, until the quorum is reached.
    function attest() internal counted("attest") {
        vm.assume(isDecidable() && clock <= round.deadline);
        uint256 left = count(hasNotAttested);
        vm.assume(left != 0);
        for (uint256 turns = 1 + draw(left); turns > 0 && isDecidable(); --turns) {
            address node = pick(hasNotAttested);
            vm.prank(node);
            ledger.attest(round.number, makeModel());
            (hasCandidate, candidate) = (true, makeModel());
            parts[node].hasAttested = true;
            parts[node].hasCounted = true;
            if (++round.attested >= round.attestationQuorum) becomeFinalised(makeModel(), round.attested, false);
        }
    }

    /// @notice A node that derived something else.
    function contradict() internal counted("contradict") {
        vm.assume(isDecidable() && clock <= round.deadline && hasCandidate);
        address node = pick(hasNotAttested);
        vm.prank(node);
        ledger.attest(round.number, drawDigest());
        parts[node].hasAttested = true;
        becomeFailed();
    }

    /// @notice For the record, once the round is finalised.
    function attestLate() internal counted("attestLate") {
        vm.assume(isAt(IFederation.Phase.Finalised));
        address node = pick(hasNotAttested);
        vm.prank(node);
        ledger.attest(round.number, draw(2) == 0 ? makeModel() : drawDigest());
        parts[node].hasAttested = true;
    }

    function proposeResult() internal counted("proposeResult") {
        vm.assume(isAt(IFederation.Phase.Aggregated) && round.batching && clock <= round.deadline);
        uint16 signed = uint16(round.attestationQuorum + draw(round.cohort - round.attestationQuorum + 1));
        vm.prank(aggregator);
        ledger.proposeResult(round.number, makeModel(), drawDigest(), signed);
        (hasCandidate, candidate) = (true, makeModel());
        enter(IFederation.Phase.Proposed, clock + round.attestWindow);
    }

    /// @notice With signatures, beside the attestations by transaction, of just the quorum or of more.
    function finaliseSigned() internal counted("finaliseSigned") {
        vm.assume(isDecidable());
        uint256 left = count(hasNotAttested);
        uint256 needed = round.attestationQuorum - round.attested;
        vm.assume(left >= needed);
        (address[] memory signers, bytes[] memory signatures) =
            signSome(needed + draw(left - needed + 1), left, makeModel());
        vm.prank(outsider);
        ledger.finalise(round.number, makeModel(), signers, signatures);
        becomeFinalised(makeModel(), round.attested + signers.length, false);
    }

    /// @notice With a proposal that stood.
    function finaliseProposed() internal counted("finaliseProposed") {
        vm.assume(isAt(IFederation.Phase.Proposed));
        sleepPast(round.deadline);
        vm.prank(outsider);
        ledger.finalise(round.number, makeModel(), new address[](0), new bytes[](0));
        becomeFinalised(makeModel(), round.attested, true);
    }

    function isDecidable() internal view returns (bool) {
        return isAt(IFederation.Phase.Aggregated) || isAt(IFederation.Phase.Proposed);
    }

    /// @dev `wanted` of the `left` nodes that have not attested, chosen at random, ascending.
    function signSome(uint256 wanted, uint256 left, bytes32 model)
        internal
        returns (address[] memory signers, bytes[] memory signatures)
    {
        signers = new address[](wanted);
        signatures = new bytes[](wanted);
        uint256 length;
        for (uint256 i; length < wanted; ++i) {
            if (!hasNotAttested(nodes[i])) continue;
            if (draw(left--) >= wanted - length) continue;
            signers[length] = nodes[i];
            signatures[length++] = sign(nodes[i], model);
        }
    }

    function sign(address signer, bytes32 model) internal returns (bytes memory signature) {
        bytes32 digest = ledger.hashAttestation(round.number, signer, model);
        if (signer.code.length != 0) {
            signature = abi.encode("signature", digest);
            Wallet(signer).accept(digest, signature);
        } else {
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(keys[signer], digest);
            signature = abi.encodePacked(r, s, v);
        }
    }
}
