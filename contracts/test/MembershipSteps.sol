// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {World} from "./World.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title What nodes and the admin do between and beside the rounds
abstract contract MembershipSteps is World {
    bytes32 internal constant ADMIN_ROLE = 0;
    bytes32 internal constant AGGREGATOR_ROLE = keccak256("AGGREGATOR_ROLE");

    function register() internal counted("register") {
        vm.assume(!isRetired());
        doRegister(pick(isApplicant));
    }

    function admit() internal counted("admit") {
        vm.assume(!isRetired());
        doAdmit(pick(isAdmissible));
    }

    function suspend() internal counted("suspend") {
        vm.assume(!isRetired());
        address node = pick(isAdmitted);
        vm.prank(admin);
        ledger.suspend(node);
        dismiss(node, IFederation.MemberStatus.Suspended);
    }

    function leave() internal counted("leave") {
        vm.assume(!isRetired());
        address node = pick(isAdmitted);
        vm.prank(node);
        ledger.leave();
        dismiss(node, IFederation.MemberStatus.Left);
    }

    function rotateKeys() internal counted("rotateKeys") {
        vm.assume(!isRetired());
        vm.prank(pick(isAdmitted));
        ledger.rotateKeys(drawDigest(), keccak256("certificate"));
    }

    function adoptPolicy() internal counted("adoptPolicy") {
        vm.assume(!isRetired());
        doAdopt();
    }

    function approvePolicy() internal counted("approvePolicy") {
        vm.assume(!isRetired());
        bytes32 digest = ledger.policyDigest();
        vm.prank(pick(isAdmitted));
        ledger.approvePolicy(terms.policyVersion, digest);
    }

    function requestEpoch() internal counted("requestEpoch") {
        vm.assume(!isRetired());
        doRequest(pick(isAdmitted));
    }

    function publishEpoch() internal counted("publishEpoch") {
        vm.assume(!isRetired() && isAdmitted(ledger.keyMaker()));
        doPublish();
    }

    function releaseCheckpoint() internal counted("releaseCheckpoint") {
        vm.assume(!isRetired());
        vm.prank(admin);
        ledger.releaseCheckpoint(drawDigest());
    }

    /// @notice The admin hands its role over, or is replaced by whom it made admin.
    function handAdminOver() internal counted("handAdminOver") {
        vm.assume(!isRetired());
        address next = admin == address(0xAD01) ? address(0xAD02) : address(0xAD01);
        IAccessControl roles = IAccessControl(address(ledger));
        vm.prank(admin);
        roles.grantRole(ADMIN_ROLE, next);
        if (draw(2) == 0) {
            vm.prank(admin);
            roles.renounceRole(ADMIN_ROLE, admin);
        } else {
            vm.prank(next);
            roles.revokeRole(ADMIN_ROLE, admin);
        }
        admin = next;
    }

    /// @notice The admin replaces the aggregator between two rounds.
    function replaceAggregator() internal counted("replaceAggregator") {
        vm.assume(!isRetired() && !isUnderWay());
        address next = aggregator == address(0xA661) ? address(0xA662) : address(0xA661);
        vm.startPrank(admin);
        IAccessControl(address(ledger)).grantRole(AGGREGATOR_ROLE, next);
        IAccessControl(address(ledger)).revokeRole(AGGREGATOR_ROLE, aggregator);
        vm.stopPrank();
        aggregator = next;
    }

    function retire() internal counted("retire") {
        vm.assume(!isRetired() && !isUnderWay());
        vm.prank(admin);
        ledger.retire();
        round.phase = IFederation.Phase.Retired;
    }

    /// @notice A retired ledger gets a successor, and the play goes on there.
    function succeed() internal counted("succeed") {
        vm.assume(isRetired());
        retired.push(ledger);
        retiredAs.push(hashLedger(ledger));
        delete round;
        delete terms;
        delete opened;
        delete contributors;
        delete sealedCommitments;
        delete membershipOfEpoch;
        delete replayedHash;
        hasCandidate = false;
        (ledgerOfPrivacy.cost, ledgerOfPrivacy.budget) = (0, 0);
        begin(address(ledger));
    }

    /// @dev A ledger with nodes, a policy and a first key.
    function begin(address predecessor) internal {
        bytes memory arguments = abi.encode(admin, aggregator, predecessor);
        ledger = IFederation(vm.deployCode("Federation.sol:Federation", arguments));
        for (uint256 i; i < NODES; ++i) {
            delete parts[nodes[i]];
            doRegister(nodes[i]);
            if (i < 4) doAdmit(nodes[i]);
        }
        doAdopt();
        doRequest(nodes[0]);
        doPublish();
    }

    function doRegister(address node) internal {
        vm.prank(node);
        ledger.register(keccak256(abi.encode(clock)), keccak256("certificate"), 0);
        statusOf[node] = IFederation.MemberStatus.Applied;
    }

    function doAdmit(address node) internal {
        vm.prank(admin);
        ledger.admit(node);
        statusOf[node] = IFederation.MemberStatus.Admitted;
        ++terms.admitted;
        ++terms.membership;
        terms.isEpochStale = true;
    }

    /// @dev A policy that the present members can mostly meet.
    function doAdopt() internal {
        uint16 members = terms.admitted;
        IFederation.Policy memory policy = IFederation.Policy({
            digest: keccak256(abi.encode("policy", terms.policyVersion)),
            minContributors: uint16(2 + draw(2)),
            // Now and then half of the members, which no round opens with.
            attestationQuorum: uint16(members / 2 + (members > 1 && draw(8) == 0 ? 0 : 1 + draw(members / 2 + 1))),
            maxExamples: uint32(1 + draw(1_000)),
            commitWindow: uint24(200 + draw(3_600)),
            aggregateWindow: uint24(1 + draw(600)),
            attestWindow: uint24(1 + draw(199)),
            batching: draw(4) != 0,
            privacyCost: 0,
            privacyBudget: 0
        });
        // Room for up to seven rounds more, or less than is spent.
        if (draw(2) == 0) {
            policy.privacyCost = uint64(draw(4));
            policy.privacyBudget = uint64(draw(8) == 0 ? 1 : ledgerOfPrivacy.spent + policy.privacyCost * draw(8));
            if (policy.privacyBudget > 1) policy.privacyBudget -= uint64(draw(2));
            else policy.privacyBudget = 1;
        }
        vm.prank(admin);
        ledger.adoptPolicy(policy, keccak256("genesis model"));

        if (head == 0) head = keccak256("genesis model");
        ++terms.policyVersion;
        terms.minContributors = policy.minContributors;
        terms.attestationQuorum = policy.attestationQuorum;
        terms.maxExamples = policy.maxExamples;
        terms.commitWindow = policy.commitWindow;
        terms.aggregateWindow = policy.aggregateWindow;
        terms.attestWindow = policy.attestWindow;
        terms.batching = policy.batching;
        terms.isAccounted = policy.privacyBudget > 0;
        ledgerOfPrivacy.cost = policy.privacyCost;
        ledgerOfPrivacy.budget = policy.privacyBudget;
    }

    function doRequest(address node) internal {
        vm.prank(draw(2) == 0 ? admin : aggregator);
        ledger.requestEpoch(node);
    }

    function doPublish() internal {
        vm.prank(ledger.keyMaker());
        ledger.publishEpoch(terms.epoch + 1, keccak256("context"), keccak256("keys"), terms.membership);
        ++terms.epoch;
        terms.isEpochStale = false;
        membershipOfEpoch = terms.membership;
    }

    function isApplicant(address node) private view returns (bool) {
        return !isAdmitted(node) && statusOf[node] != IFederation.MemberStatus.Suspended;
    }

    function isAdmissible(address node) private view returns (bool) {
        return
            statusOf[node] == IFederation.MemberStatus.Applied || statusOf[node] == IFederation.MemberStatus.Suspended;
    }

    function dismiss(address node, IFederation.MemberStatus status) private {
        statusOf[node] = status;
        --terms.admitted;
        ++terms.membership;
        terms.isEpochStale = true;
    }
}
