// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MembershipSteps} from "./MembershipSteps.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title A round from its opening to its seal, and its end before a result
abstract contract RoundSteps is MembershipSteps {
    /// @notice Time passes: a little, or to one of the moments that matter.
    function sleep() internal counted("sleep") {
        uint256 choice = isUnderWay() ? draw(10) : 9;
        if (choice == 0 && clock < round.deadline) clock = round.deadline;
        else if (choice == 1 && clock < round.deadline) clock = round.deadline + 1;
        else if (choice == 2 && clock < overdue()) clock = overdue();
        else if (choice == 3 && clock < overdue()) clock = overdue() + 1;
        else clock += draw(60);
    }

    function openRound() internal counted("openRound") {
        vm.assume(!isRetired() && !isUnderWay() && terms.admitted >= 2);
        uint256 members = terms.admitted;
        if (
            members < terms.minContributors || members < terms.attestationQuorum
                || 2 * uint256(terms.attestationQuorum) <= members || isOverBudget()
        ) doAdopt();
        // The new one may not fit, too.
        vm.assume(members >= terms.minContributors && members >= terms.attestationQuorum && !isOverBudget());
        vm.assume(2 * uint256(terms.attestationQuorum) > members);
        if (terms.isEpochStale) {
            doRequest(pick(isAdmitted));
            doPublish();
        }

        vm.prank(aggregator);
        ledger.openRound(round.number + 1);
        if (terms.isAccounted) {
            ledgerOfPrivacy.spent += ledgerOfPrivacy.cost;
            isBudgetKept = isBudgetKept && ledgerOfPrivacy.spent <= ledgerOfPrivacy.budget;
        }
        round = IFederation.Round({
            number: round.number + 1,
            phase: IFederation.Phase.Open,
            deadline: uint40(clock + terms.commitWindow),
            cohort: terms.admitted,
            committed: 0,
            batched: 0,
            attested: 0,
            minContributors: terms.minContributors,
            attestationQuorum: terms.attestationQuorum,
            maxExamples: terms.maxExamples,
            aggregateWindow: terms.aggregateWindow,
            attestWindow: terms.attestWindow,
            batching: terms.batching
        });
        ++opened;
        hasCandidate = false;
        contributors = 0;
        sealedCommitments = 0;
        openedTerms = hashTerms(ledger.currentRound());
        for (uint256 i; i < NODES; ++i) {
            delete parts[nodes[i]];
            parts[nodes[i]].isOfCohort = isAdmitted(nodes[i]);
        }
    }

    /// @notice From one to all of the nodes that have not yet.
    function commit() internal counted("commit") {
        vm.assume(isAt(IFederation.Phase.Open) && clock <= round.deadline);
        uint256 left = count(hasNotCommitted);
        vm.assume(left != 0);
        for (uint256 turns = 1 + draw(left); turns > 0; --turns) {
            address node = pick(hasNotCommitted);
            bytes32 root = keccak256(abi.encode("update", round.number, node));
            uint32 examples = uint32(1 + draw(round.maxExamples));
            vm.prank(node);
            ledger.commit(round.number, root, examples);
            parts[node].commitment = bytes24(keccak256(abi.encode(round.number, node, root, examples)));
            ++round.committed;
        }
    }

    /// @notice Leaves of any nodes of the cohort, also of some that committed by transaction.
    function anchorCommitments() internal counted("anchorCommitments") {
        vm.assume(isBatchPossible());
        uint16 leaves;
        for (uint256 i; i < NODES; ++i) {
            if (!isMember(nodes[i]) || draw(4) == 0) continue;
            parts[nodes[i]].hasLeaf = true;
            ++leaves;
        }
        vm.assume(leaves != 0);
        vm.prank(aggregator);
        ledger.anchorCommitments(round.number, drawDigest(), leaves);
        round.batched = leaves;
    }

    function seal() internal counted("seal") {
        vm.assume(isAt(IFederation.Phase.Open));
        (address[] memory listed, bytes memory reasons, uint256 counted) = listContributors(draw(3) == 0);
        vm.assume(counted >= round.minContributors);
        if (counted < round.cohort) sleepPast(round.deadline);
        vm.prank(aggregator);
        ledger.seal(round.number, listed, reasons);
        becomeSealed(counted);
    }

    function sealByAnyone() internal counted("sealByAnyone") {
        vm.assume(isAt(IFederation.Phase.Open) && round.batched == 0);
        (address[] memory listed, bytes memory reasons, uint256 counted) = listContributors(false);
        vm.assume(counted >= round.minContributors);
        sleepPast(overdue());
        vm.prank(outsider);
        ledger.seal(round.number, listed, reasons);
        becomeSealed(counted);
    }

    function dispute() internal counted("dispute") {
        vm.assume(isUnderWay() && !isAt(IFederation.Phase.Open));
        vm.prank(pick(isMember));
        ledger.dispute(round.number, IFederation.Subject(draw(3)), uint32(draw(100)));
        becomeFailed();
    }

    function giveUp() internal counted("giveUp") {
        vm.assume(isUnderWay());
        vm.prank(aggregator);
        ledger.fail(round.number, uint8(draw(5)));
        becomeFailed();
    }

    function failByAnyone() internal counted("failByAnyone") {
        vm.assume(isUnderWay());
        sleepPast(overdue());
        vm.prank(outsider);
        ledger.fail(round.number, uint8(draw(5)));
        becomeFailed();
    }

    function isBatchPossible() internal view returns (bool) {
        return isAt(IFederation.Phase.Open) && round.batching && round.batched == 0
            && clock <= round.deadline - round.attestWindow;
    }

    function isOverBudget() internal view returns (bool) {
        return terms.isAccounted && ledgerOfPrivacy.spent + ledgerOfPrivacy.cost > ledgerOfPrivacy.budget;
    }

    /// @dev All that committed by transaction, some of the batch, and how many distinct nodes contribute then.
    function listContributors(bool doesExclude)
        internal
        returns (address[] memory listed, bytes memory reasons, uint256 counted)
    {
        listed = new address[](NODES);
        uint256 length;
        for (uint256 i; i < NODES; ++i) {
            address node = nodes[i];
            bool isLeaf = parts[node].hasLeaf;
            if (!hasCommitted(node) && !isLeaf) continue;
            uint8 reason = doesExclude && draw(3) == 0 ? uint8(1 + draw(127)) : 0;
            if (reason == 0) ++counted;
            if (!hasCommitted(node) && reason == 0) continue;
            if (hasCommitted(node) && isLeaf) reason += 128;
            listed[length++] = node;
            reasons = bytes.concat(reasons, bytes1(reason));
        }
        assembly ("memory-safe") {
            mstore(listed, length)
        }
    }

    function becomeSealed(uint256 counted) private {
        enter(IFederation.Phase.Sealed, clock + round.aggregateWindow);
        contributors = counted;
        sealedCommitments = hashCommitments();
    }
}
