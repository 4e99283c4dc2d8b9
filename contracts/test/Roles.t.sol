// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract RolesTest is FederationTest {
    bytes32 private constant ADMIN = 0;
    bytes32 private constant AGGREGATOR = keccak256("AGGREGATOR_ROLE");

    IAccessControl private roles;

    function setUp() public override {
        super.setUp();
        roles = IAccessControl(address(federation));
    }

    /// @notice A ledger begins with one admin and one aggregator, and the history with their roles.
    function test_constructor_grants_the_roles() public {
        vm.expectEmit();
        emit IAccessControl.RoleGranted(ADMIN, admin, address(this));
        vm.expectEmit();
        emit IAccessControl.RoleGranted(AGGREGATOR, aggregator, address(this));
        federation = deploy(address(0));
        roles = IAccessControl(address(federation));
        assertTrue(roles.hasRole(ADMIN, admin));
        assertTrue(roles.hasRole(AGGREGATOR, aggregator));
        assertFalse(roles.hasRole(AGGREGATOR, admin));
        bytes32 topic = IAccessControl.RoleGranted.selector;
        bytes32 history = chain(0, abi.encode(topic, ADMIN, admin, address(this)));
        history = chain(history, abi.encode(topic, AGGREGATOR, aggregator, address(this)));
        assertEq(federation.historyHash(), history);
        assertEq(federation.predecessor(), address(0));
    }

    /// @notice Nobody is admin or aggregator of a ledger without either.
    function test_constructor_refuses_the_zero_address() public {
        bytes memory reason = abi.encodeWithSelector(IFederation.ZeroAddress.selector);
        assertDeploymentRefused(address(0), aggregator, address(0), reason);
        assertDeploymentRefused(admin, address(0), address(0), reason);
    }

    /// @notice A change of roles enters the history, and one that changes nothing does not.
    function test_grantRole_and_revokeRole_enter_the_history() public {
        bytes32 history = federation.historyHash();
        vm.startPrank(admin);
        vm.expectEmit(address(federation));
        emit IAccessControl.RoleGranted(AGGREGATOR, stranger, admin);
        roles.grantRole(AGGREGATOR, stranger);
        history = chain(history, abi.encode(IAccessControl.RoleGranted.selector, AGGREGATOR, stranger, admin));
        assertEq(federation.historyHash(), history);
        roles.grantRole(AGGREGATOR, stranger);
        assertEq(federation.historyHash(), history);

        vm.expectEmit(address(federation));
        emit IAccessControl.RoleRevoked(AGGREGATOR, stranger, admin);
        roles.revokeRole(AGGREGATOR, stranger);
        history = chain(history, abi.encode(IAccessControl.RoleRevoked.selector, AGGREGATOR, stranger, admin));
        assertEq(federation.historyHash(), history);
        roles.revokeRole(AGGREGATOR, stranger);
        assertEq(federation.historyHash(), history);
        vm.stopPrank();
    }

    /// @notice The admin hands its role over, and has none of its power afterwards.
    function test_admin_hands_its_role_over() public {
        register(nodes[0].addr);
        vm.prank(admin);
        roles.grantRole(ADMIN, stranger);
        vm.prank(stranger);
        roles.revokeRole(ADMIN, admin);
        assertRefused(admin, abi.encodeCall(IFederation.admit, (nodes[0].addr)), unauthorized(admin, ADMIN));
        assertRefused(admin, abi.encodeCall(IAccessControl.grantRole, (ADMIN, admin)), unauthorized(admin, ADMIN));
        vm.prank(stranger);
        federation.admit(nodes[0].addr);
    }

    /// @notice An admin that renounces its role leaves a ledger whose rounds go on and whose members stay.
    function test_admin_renounces_its_role() public {
        prepare();
        vm.expectEmit(address(federation));
        emit IAccessControl.RoleRevoked(ADMIN, admin, admin);
        vm.prank(admin);
        roles.renounceRole(ADMIN, admin);
        assertRefused(admin, abi.encodeCall(IFederation.suspend, (nodes[0].addr)), unauthorized(admin, ADMIN));
        reachFinalised();
        open();
    }

    /// @notice Nobody renounces somebody else's role.
    function test_renounceRole_refuses_others() public {
        assertRefused(
            stranger,
            abi.encodeCall(IAccessControl.renounceRole, (AGGREGATOR, aggregator)),
            abi.encodeWithSelector(IAccessControl.AccessControlBadConfirmation.selector)
        );
    }

    /// @notice Between two rounds the admin names another aggregator.
    function test_aggregator_is_replaced_between_rounds() public {
        prepare();
        vm.startPrank(admin);
        roles.grantRole(AGGREGATOR, stranger);
        roles.revokeRole(AGGREGATOR, aggregator);
        vm.stopPrank();
        assertRefused(aggregator, abi.encodeCall(IFederation.openRound, (1)), unauthorized(aggregator, AGGREGATOR));
        vm.prank(stranger);
        federation.openRound(1);
    }

    /// @notice Nobody becomes aggregator of a round that has begun, the admin least of all.
    function test_grantRole_refuses_an_aggregator_within_a_round() public {
        prepare();
        open();
        assertGrantRefused(IFederation.Phase.Open);
        commitFirst(5);
        seal(list(0, 5), new bytes(5));
        assertGrantRefused(IFederation.Phase.Sealed);
        publish();
        assertGrantRefused(IFederation.Phase.Aggregated);
        propose(MODEL, 3);
        assertGrantRefused(IFederation.Phase.Proposed);
        vm.startPrank(admin);
        roles.grantRole(ADMIN, stranger);
        vm.stopPrank();
        finalise(MODEL, 0, 3);
        vm.prank(admin);
        roles.grantRole(AGGREGATOR, admin);
    }

    /// @notice A round whose aggregator loses its role waits for whoever ends it once it is overdue.
    function test_revokeRole_leaves_the_round_to_anyone() public {
        prepare();
        open();
        commitFirst(5);
        vm.prank(admin);
        roles.revokeRole(AGGREGATOR, aggregator);
        uint40 overdue = federation.currentRound().deadline + AGGREGATE_WINDOW;
        assertRefused(
            aggregator,
            abi.encodeCall(IFederation.seal, (1, list(0, 5), new bytes(5))),
            abi.encodeWithSelector(IFederation.DeadlineNotReached.selector, 1, overdue, vm.getBlockTimestamp())
        );
        vm.warp(overdue + 1);
        federation.fail(1, 1);
    }

    /// @notice A key is requested by the admin or the aggregator, and nobody else.
    function testFuzz_requestEpoch_is_refused_to_others(address caller) public {
        vm.assume(caller != admin && caller != aggregator);
        assertRefused(caller, abi.encodeCall(IFederation.requestEpoch, (caller)), unauthorized(caller, ADMIN));
    }

    /// @notice The admin's calls are refused to all others.
    function testFuzz_admins_calls_are_refused_to_others(address caller) public {
        vm.assume(caller != admin);
        bytes memory reason = unauthorized(caller, ADMIN);
        assertRefused(caller, abi.encodeCall(IFederation.admit, (caller)), reason);
        assertRefused(caller, abi.encodeCall(IFederation.suspend, (caller)), reason);
        assertRefused(caller, abi.encodeCall(IFederation.adoptPolicy, (makePolicy(), GENESIS)), reason);
        assertRefused(caller, abi.encodeCall(IFederation.releaseCheckpoint, (ROOT)), reason);
        assertRefused(caller, abi.encodeCall(IFederation.retire, ()), reason);
        assertRefused(caller, abi.encodeCall(IAccessControl.grantRole, (AGGREGATOR, caller)), reason);
        assertRefused(caller, abi.encodeCall(IAccessControl.revokeRole, (ADMIN, admin)), reason);
    }

    /// @notice The aggregator's calls are refused to all others, the admin among them, in the phase they belong to.
    function testFuzz_aggregators_calls_are_refused_to_others(address caller) public {
        vm.assume(caller != aggregator);
        prepare();
        assertAggregatorsCallsRefused(caller);
        assertAggregatorsCallsRefused(admin);
    }

    function assertAggregatorsCallsRefused(address caller) private {
        bytes memory reason = unauthorized(caller, AGGREGATOR);
        assertRefused(caller, abi.encodeCall(IFederation.openRound, (1)), reason);
        uint256 snapshot = vm.snapshotState();
        open();
        assertRefused(caller, abi.encodeCall(IFederation.anchorCommitments, (1, ROOT, 5)), reason);
        commitFirst(5);
        uint40 overdue = federation.currentRound().deadline + AGGREGATE_WINDOW;
        bytes memory early =
            abi.encodeWithSelector(IFederation.DeadlineNotReached.selector, 1, overdue, vm.getBlockTimestamp());
        assertRefused(caller, abi.encodeCall(IFederation.seal, (1, list(0, 5), new bytes(5))), early);
        assertRefused(caller, abi.encodeCall(IFederation.fail, (1, 1)), early);
        seal(list(0, 5), new bytes(5));
        assertRefused(caller, abi.encodeCall(IFederation.publishAggregate, (1, ROOT)), reason);
        publish();
        assertRefused(caller, abi.encodeCall(IFederation.proposeResult, (1, MODEL, ROOT, 3)), reason);
        vm.revertToState(snapshot);
    }

    function assertGrantRefused(IFederation.Phase phase) private {
        assertRefused(
            admin,
            abi.encodeCall(IAccessControl.grantRole, (AGGREGATOR, admin)),
            abi.encodeWithSelector(IFederation.WrongPhase.selector, 1, phase)
        );
    }

    function chain(bytes32 history, bytes memory entry) private pure returns (bytes32) {
        return keccak256(abi.encode(history, keccak256(entry)));
    }

    function unauthorized(address caller, bytes32 role) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, caller, role);
    }
}
