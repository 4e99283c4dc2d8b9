// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {FederationTest} from "./FederationTest.sol";
import {Replay} from "./Replay.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract ReplayTest is FederationTest, Replay {
    function setUp() public override {
        vm.recordLogs();
        super.setUp();
    }

    /// @notice Whoever has the events of all kinds has the history, without asking the ledger for anything.
    function test_historyHash_is_the_replay_of_all_events() public {
        IFederation.Policy memory policy = makePolicy();
        (policy.privacyCost, policy.privacyBudget) = (1, 100);
        prepare(policy);
        vm.startPrank(nodes[1].addr);
        federation.rotateKeys(ROOT, ROOT);
        federation.approvePolicy(1, policy.digest);
        vm.stopPrank();
        open();
        anchor(4);
        commitFirst(3);
        vm.warp(federation.currentRound().deadline + 1);
        bytes memory reasons = new bytes(4);
        (reasons[0], reasons[2], reasons[3]) = (0x80, 0x81, 0x02);
        seal(list(0, 4), reasons);
        publish();
        attest(0, MODEL);
        propose(MODEL, 3);
        finalise(MODEL, 1, 3);
        attest(4, OTHER_MODEL);
        reachSealed();
        vm.prank(nodes[0].addr);
        federation.dispute(round, IFederation.Subject.Commitment, 3);
        reachAggregated();
        attest(0, MODEL);
        attest(1, OTHER_MODEL);
        suspend(nodes[4].addr);
        leave(nodes[3].addr);
        vm.startPrank(admin);
        IAccessControl(address(federation)).grantRole(0, stranger);
        federation.releaseCheckpoint(ROOT);
        federation.retire();
        vm.stopPrank();
        IFederation before = federation;
        federation = deploy(address(federation));

        replay(vm.getRecordedLogs(), address(before));
        assertEq(before.historyHash(), replayedHash);
    }
}
