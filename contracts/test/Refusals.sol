// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {ResultSteps} from "./ResultSteps.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title What the ledger has to refuse, whatever came before
/// @notice Each call is right but for one thing, and has to be refused for that.
abstract contract Refusals is ResultSteps {
    bytes32 internal constant ROOT = keccak256("root");

    function refuseOutsiders() internal counted("refuseOutsiders") {
        vm.assume(!isRetired());
        bytes4 unauthorized = IAccessControl.AccessControlUnauthorizedAccount.selector;
        address caller = outsider;
        // The admin is no aggregator, the aggregator no admin, and the nodes are neither.
        uint256 who = draw(4);
        if (who == 1) caller = nodes[draw(NODES)];
        bool isAdmin = who == 2;
        bool isAggregator = who == 3;
        if (isAdmin) caller = admin;
        if (isAggregator) caller = aggregator;
        if (!isAdmin) {
            refuse(caller, abi.encodeCall(IFederation.admit, (nodes[0])), unauthorized);
            refuse(caller, abi.encodeCall(IFederation.suspend, (nodes[0])), unauthorized);
            refuse(caller, abi.encodeCall(IFederation.releaseCheckpoint, (ROOT)), unauthorized);
            refuse(caller, abi.encodeCall(IFederation.retire, ()), unauthorized);
            refuse(caller, abi.encodeCall(IAccessControl.grantRole, (AGGREGATOR_ROLE, caller)), unauthorized);
        }
        if (!isAggregator) {
            uint24 number = round.number;
            refuse(caller, abi.encodeCall(IFederation.openRound, (number + 1)), unauthorized);
            refuse(caller, abi.encodeCall(IFederation.anchorCommitments, (number, ROOT, 1)), unauthorized);
            refuse(caller, abi.encodeCall(IFederation.publishAggregate, (number, ROOT)), unauthorized);
            refuse(caller, abi.encodeCall(IFederation.proposeResult, (number, ROOT, ROOT, 6)), unauthorized);
        }
        if (!isAdmin && !isAggregator) {
            refuse(caller, abi.encodeCall(IFederation.requestEpoch, (nodes[0])), unauthorized);
        }
    }

    /// @notice Who was admin or aggregator before is neither now.
    function refusePredecessorsInOffice() internal counted("refusePredecessorsInOffice") {
        bytes4 unauthorized = IAccessControl.AccessControlUnauthorizedAccount.selector;
        address oldAdmin = admin == address(0xAD01) ? address(0xAD02) : address(0xAD01);
        address oldAggregator = aggregator == address(0xA661) ? address(0xA662) : address(0xA661);
        refuse(oldAdmin, abi.encodeCall(IFederation.suspend, (nodes[0])), unauthorized);
        refuse(oldAdmin, abi.encodeCall(IAccessControl.grantRole, (ADMIN_ROLE, oldAdmin)), unauthorized);
        refuse(oldAggregator, abi.encodeCall(IFederation.openRound, (round.number + 1)), unauthorized);
    }

    function refuseBadKeys() internal counted("refuseBadKeys") {
        vm.assume(!isRetired());
        uint24 next = terms.epoch + 1;
        address maker = ledger.keyMaker();
        bytes memory call = abi.encodeCall(IFederation.publishEpoch, (next, ROOT, ROOT, terms.membership));
        refuse(outsider, call, IFederation.NotKeyMaker.selector);
        if (maker == address(0)) return;
        if (!isAdmitted(maker)) return refuse(maker, call, IFederation.NotAdmitted.selector);
        call = abi.encodeCall(IFederation.publishEpoch, (next, ROOT, ROOT, terms.membership - 1));
        refuse(maker, call, IFederation.StaleEpoch.selector);
        call = abi.encodeCall(IFederation.publishEpoch, (next - 1, ROOT, ROOT, terms.membership));
        refuse(maker, call, IFederation.WrongEpoch.selector);
    }

    /// @notice The admin gets no power over a round that has begun.
    function refuseNewAggregator() internal counted("refuseNewAggregator") {
        vm.assume(isUnderWay());
        address[3] memory heirs = [admin, outsider, nodes[draw(NODES)]];
        bytes memory call = abi.encodeCall(IAccessControl.grantRole, (AGGREGATOR_ROLE, heirs[draw(3)]));
        refuse(admin, call, IFederation.WrongPhase.selector);
        refuse(admin, abi.encodeCall(IFederation.retire, ()), IFederation.WrongPhase.selector);
    }

    function refuseOpening() internal counted("refuseOpening") {
        vm.assume(!isRetired());
        uint24 next = round.number + 1;
        refuse(aggregator, abi.encodeCall(IFederation.openRound, (next - 1)), IFederation.WrongRound.selector);
        refuse(aggregator, abi.encodeCall(IFederation.openRound, (next + 1)), IFederation.WrongRound.selector);
        bytes4 reason;
        uint256 members = terms.admitted;
        if (isUnderWay()) reason = IFederation.WrongPhase.selector;
        else if (terms.isEpochStale) reason = IFederation.StaleEpoch.selector;
        else if (members < terms.minContributors) reason = IFederation.QuorumNotReached.selector;
        else if (members < terms.attestationQuorum) reason = IFederation.QuorumNotReached.selector;
        else if (2 * uint256(terms.attestationQuorum) <= members) reason = IFederation.QuorumAmbiguous.selector;
        else if (isOverBudget()) reason = IFederation.BudgetExceeded.selector;
        else return;
        refuse(aggregator, abi.encodeCall(IFederation.openRound, (next)), reason);
    }

    function refuseAfterRetirement() internal counted("refuseAfterRetirement") {
        vm.assume(isRetired());
        bytes4 reason = IFederation.WrongPhase.selector;
        refuse(outsider, abi.encodeCall(IFederation.register, (ROOT, ROOT, ROOT)), reason);
        refuse(admin, abi.encodeCall(IFederation.retire, ()), reason);
        refuse(admin, abi.encodeCall(IFederation.releaseCheckpoint, (ROOT)), reason);
        refuse(admin, abi.encodeCall(IAccessControl.grantRole, (ADMIN_ROLE, outsider)), reason);
        refuse(aggregator, abi.encodeCall(IFederation.openRound, (round.number + 1)), reason);
    }

    /// @notice Nor is a ledger woken whose successor has taken over.
    function refuseToWake() internal counted("refuseToWake") {
        vm.assume(retired.length != 0);
        IFederation current = ledger;
        ledger = retired[draw(retired.length)];
        bytes4 reason = IFederation.WrongPhase.selector;
        uint24 number = ledger.currentRound().number;
        refuse(nodes[0], abi.encodeCall(IFederation.commit, (number, ROOT, 1)), reason);
        refuse(nodes[0], abi.encodeCall(IFederation.attest, (number, ROOT)), reason);
        refuse(outsider, abi.encodeCall(IFederation.register, (ROOT, ROOT, ROOT)), reason);
        ledger = current;
    }

    function refuse(address caller, bytes memory call, bytes4 reason) internal {
        vm.prank(caller);
        (bool isAccepted, bytes memory answer) = address(ledger).call(call);
        // forge records what a call emits before it reverts, too.
        vm.getRecordedLogs();
        assertFalse(isAccepted, "accepted");
        assertEq(bytes32(bytes4(answer)), bytes32(reason), "refused for another reason");
    }

    function isNoMember(address node) internal view returns (bool) {
        return !isMember(node);
    }
}
