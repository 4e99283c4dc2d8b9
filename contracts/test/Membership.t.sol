// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract MembershipTest is FederationTest {
    bytes32 private constant KEY = keccak256("wrapping key");
    bytes32 private constant CERTIFICATE = keccak256("certificate");

    address private node;

    function setUp() public override {
        super.setUp();
        node = nodes[0].addr;
    }

    /// @notice Anyone may apply, and name other keys until admitted.
    function test_register_records_an_application() public {
        for (uint256 i = 1; i < 3; ++i) {
            vm.expectEmit(address(federation));
            emit IFederation.MemberApplied(node, bytes32(i), CERTIFICATE, 0);
            vm.prank(node);
            federation.register(bytes32(i), CERTIFICATE, 0);
            assertStatus(node, IFederation.MemberStatus.Applied);
        }
        assertEq(federation.state().admitted, 0);
    }

    /// @notice An application names both keys.
    function test_register_refuses_zero_digests() public {
        bytes memory reason = abi.encodeWithSelector(IFederation.ZeroDigest.selector);
        assertRefused(node, abi.encodeCall(IFederation.register, (0, CERTIFICATE, 0)), reason);
        assertRefused(node, abi.encodeCall(IFederation.register, (KEY, 0, 0)), reason);
    }

    /// @notice Who is admitted or suspended cannot become an applicant again.
    function test_register_refuses_members() public {
        join(node);
        bytes memory call = abi.encodeCall(IFederation.register, (KEY, CERTIFICATE, 0));
        assertRefused(node, call, wrongStatus(IFederation.MemberStatus.Applied, IFederation.MemberStatus.Admitted));
        suspend(node);
        assertRefused(node, call, wrongStatus(IFederation.MemberStatus.Applied, IFederation.MemberStatus.Suspended));
    }

    /// @notice Who applied and is admitted belongs to the next round.
    function test_admit_counts_from_the_next_round() public {
        register(node);
        vm.expectEmit(address(federation));
        emit IFederation.MemberAdmitted(node, 1);
        admit(node);
        assertStatus(node, IFederation.MemberStatus.Admitted);
        IFederation.State memory state = federation.state();
        assertEq(state.admitted, 1);
        assertEq(state.membership, 1);
        assertTrue(state.isEpochStale);
        assertFalse(federation.isInCohort(node));
    }

    /// @notice Only who applied or is suspended can be admitted.
    function test_admit_refuses_other_statuses() public {
        bytes memory call = abi.encodeCall(IFederation.admit, (node));
        assertRefused(admin, call, wrongStatus(IFederation.MemberStatus.Applied, IFederation.MemberStatus.None));
        join(node);
        assertRefused(admin, call, wrongStatus(IFederation.MemberStatus.Applied, IFederation.MemberStatus.Admitted));
        leave(node);
        assertRefused(admin, call, wrongStatus(IFederation.MemberStatus.Applied, IFederation.MemberStatus.Left));
    }

    /// @notice Nobody but the admin admits or suspends.
    function testFuzz_admit_and_suspend_refuse_all_but_the_admin(address caller) public {
        vm.assume(caller != admin);
        register(node);
        bytes memory reason =
            abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, caller, bytes32(0));
        assertRefused(caller, abi.encodeCall(IFederation.admit, (node)), reason);
        admit(node);
        assertRefused(caller, abi.encodeCall(IFederation.suspend, (node)), reason);
    }

    /// @notice Nobody joins a round that is under way.
    function test_admit_joins_no_round_under_way() public {
        prepare();
        open();
        register(stranger);
        vm.expectEmit(address(federation));
        emit IFederation.MemberAdmitted(stranger, 2);
        admit(stranger);
        assertFalse(federation.isInCohort(stranger));
        assertRefused(
            stranger,
            abi.encodeCall(IFederation.commit, (1, ROOT, 1)),
            abi.encodeWithSelector(IFederation.NotInCohort.selector, 1, stranger)
        );
    }

    /// @notice Who joins and is suspended within a round never belonged to it.
    function test_suspend_makes_nobody_a_member_of_the_round() public {
        prepare();
        open();
        join(stranger);
        suspend(stranger);
        assertFalse(federation.isInCohort(stranger));
        vm.expectEmit(address(federation));
        emit IFederation.MemberAdmitted(stranger, 2);
        admit(stranger);
        assertFalse(federation.isInCohort(stranger));
    }

    /// @notice A suspended node belongs to no round that opens afterwards.
    function test_suspend_counts_from_the_next_round() public {
        prepare();
        vm.expectEmit(address(federation));
        emit IFederation.MemberSuspended(nodes[4].addr);
        suspend(nodes[4].addr);
        assertStatus(nodes[4].addr, IFederation.MemberStatus.Suspended);
        IFederation.State memory state = federation.state();
        assertEq(state.admitted, 4);
        assertEq(state.membership, 6);
        assertTrue(state.isEpochStale);
        renewEpoch();
        open();
        assertEq(federation.currentRound().cohort, 4);
        assertFalse(federation.isInCohort(nodes[4].addr));
    }

    /// @notice A round under way keeps a suspended node to its end: it commits, attests and disputes.
    function test_suspend_keeps_the_node_in_the_round() public {
        prepare();
        open();
        suspend(nodes[4].addr);
        assertTrue(federation.isInCohort(nodes[4].addr));
        assertEq(federation.currentRound().cohort, 5);
        commitFirst(5);
        seal(list(0, 5), new bytes(5));
        publish();
        attest(4, MODEL);
        vm.prank(nodes[4].addr);
        federation.dispute(round, IFederation.Subject.Chunk, 0);
        renewEpoch();
        open();
        assertFalse(federation.isInCohort(nodes[4].addr));
    }

    /// @notice Nor does the admin silence a dissent: whom it suspends after the round, and admits again, still attests.
    function test_suspend_leaves_the_node_its_late_attestation() public {
        prepare();
        open();
        commitFirst(5);
        seal(list(0, 5), new bytes(5));
        publish();
        for (uint256 i; i < 3; ++i) {
            attest(i, MODEL);
        }
        for (uint256 i = 3; i < 5; ++i) {
            suspend(nodes[i].addr);
            assertTrue(federation.isInCohort(nodes[i].addr));
        }
        vm.expectEmit(address(federation));
        emit IFederation.MemberAdmitted(nodes[3].addr, 1);
        admit(nodes[3].addr);
        for (uint256 i = 3; i < 5; ++i) {
            vm.expectEmit(address(federation));
            emit IFederation.ModelAttested(1, nodes[i].addr, ROOT);
            attest(i, ROOT);
        }
        renewEpoch();
        open();
        assertTrue(federation.isInCohort(nodes[3].addr));
        assertFalse(federation.isInCohort(nodes[4].addr));
    }

    /// @notice Suspension and re-admission within a round change nothing in it.
    function test_admit_again_keeps_the_node_in_the_round() public {
        prepare();
        open();
        suspend(node);
        vm.expectEmit(address(federation));
        emit IFederation.MemberAdmitted(node, 1);
        admit(node);
        assertTrue(federation.isInCohort(node));
        commit(0);
    }

    /// @notice So do leaving, applying and being admitted again.
    function test_joining_again_keeps_the_node_in_the_round() public {
        prepare();
        open();
        commit(0);
        leave(node);
        assertTrue(federation.isInCohort(node));
        register(node);
        assertTrue(federation.isInCohort(node));
        vm.expectEmit(address(federation));
        emit IFederation.MemberAdmitted(node, 1);
        admit(node);
        assertTrue(federation.isInCohort(node));
        assertRefused(
            node,
            abi.encodeCall(IFederation.commit, (1, ROOT, 1)),
            abi.encodeWithSelector(IFederation.AlreadyCommitted.selector, 1, node)
        );
    }

    /// @notice Who was suspended in an earlier round and is admitted during a later one waits for the one after.
    function test_admit_again_in_a_later_round() public {
        prepare();
        open();
        suspend(node);
        vm.prank(aggregator);
        federation.fail(round, 1);
        vm.prank(admin);
        federation.requestEpoch(nodes[1].addr);
        vm.prank(nodes[1].addr);
        federation.publishEpoch(2, ROOT, ROOT, 6);
        open();
        vm.expectEmit(address(federation));
        emit IFederation.MemberAdmitted(node, 3);
        admit(node);
        assertFalse(federation.isInCohort(node));
    }

    /// @notice Only an admitted node can be suspended.
    function test_suspend_refuses_other_statuses() public {
        bytes memory call = abi.encodeCall(IFederation.suspend, (node));
        assertRefused(admin, call, notAdmitted(IFederation.MemberStatus.None));
        register(node);
        assertRefused(admin, call, notAdmitted(IFederation.MemberStatus.Applied));
        admit(node);
        suspend(node);
        assertRefused(admin, call, notAdmitted(IFederation.MemberStatus.Suspended));
    }

    /// @notice A node leaves by itself, and may apply again.
    function test_leave_ends_a_membership() public {
        join(node);
        vm.expectEmit(address(federation));
        emit IFederation.MemberLeft(node);
        leave(node);
        assertStatus(node, IFederation.MemberStatus.Left);
        IFederation.State memory state = federation.state();
        assertEq(state.admitted, 0);
        assertEq(state.membership, 2);
        assertTrue(state.isEpochStale);
        join(node);
        assertStatus(node, IFederation.MemberStatus.Admitted);
        assertEq(federation.state().admitted, 1);
    }

    /// @notice Only an admitted node has something to leave.
    function test_leave_refuses_other_statuses() public {
        bytes memory call = abi.encodeCall(IFederation.leave, ());
        assertRefused(node, call, notAdmitted(IFederation.MemberStatus.None));
        join(node);
        leave(node);
        assertRefused(node, call, notAdmitted(IFederation.MemberStatus.Left));
    }

    /// @notice New keys are recorded, and make no epoch stale.
    function test_rotateKeys_records_the_keys() public {
        prepare();
        vm.expectEmit(address(federation));
        emit IFederation.KeysRotated(node, KEY, CERTIFICATE);
        vm.prank(node);
        federation.rotateKeys(KEY, CERTIFICATE);
        assertFalse(federation.state().isEpochStale);
        assertEq(federation.state().membership, 5);
    }

    /// @notice Keys are those of an admitted node, and both are named.
    function test_rotateKeys_refuses_zero_digests_and_others() public {
        bytes memory reason = abi.encodeWithSelector(IFederation.ZeroDigest.selector);
        assertRefused(node, abi.encodeCall(IFederation.rotateKeys, (0, CERTIFICATE)), reason);
        assertRefused(node, abi.encodeCall(IFederation.rotateKeys, (KEY, 0)), reason);
        register(node);
        assertRefused(
            node,
            abi.encodeCall(IFederation.rotateKeys, (KEY, CERTIFICATE)),
            notAdmitted(IFederation.MemberStatus.Applied)
        );
    }

    /// @notice Before the first round nobody is in a cohort.
    function test_isInCohort_is_false_before_the_first_round() public {
        assertFalse(federation.isInCohort(node));
        join(node);
        assertFalse(federation.isInCohort(node));
    }

    function assertStatus(address who, IFederation.MemberStatus status) private view {
        assertEq(uint8(federation.member(who).status), uint8(status));
    }

    function wrongStatus(IFederation.MemberStatus expected, IFederation.MemberStatus actual)
        private
        view
        returns (bytes memory)
    {
        return abi.encodeWithSelector(IFederation.WrongStatus.selector, node, expected, actual);
    }

    function notAdmitted(IFederation.MemberStatus status) private view returns (bytes memory) {
        return abi.encodeWithSelector(IFederation.NotAdmitted.selector, node, status);
    }
}
