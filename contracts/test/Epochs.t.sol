// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract EpochsTest is FederationTest {
    bytes32 private constant CONTEXT = keccak256("context");
    bytes32 private constant KEYS = keccak256("keys");

    address private maker;

    function setUp() public override {
        super.setUp();
        maker = nodes[0].addr;
        join(maker);
    }

    /// @notice The admin names who makes the next key, and may change its mind.
    function test_requestEpoch_names_the_key_maker() public {
        join(nodes[1].addr);
        for (uint256 i; i < 2; ++i) {
            vm.expectEmit(address(federation));
            emit IFederation.EpochRequested(1, nodes[i].addr);
            request(nodes[i].addr);
            assertEq(federation.keyMaker(), nodes[i].addr);
        }
        assertRefused(maker, publication(1, 2), notKeyMaker(nodes[1].addr, maker));
    }

    /// @notice The aggregator may, too: a ledger that has no admin any more goes on when a node has left.
    function test_requestEpoch_needs_no_admin() public {
        vm.prank(admin);
        IAccessControl(address(federation)).renounceRole(0, admin);
        vm.prank(aggregator);
        federation.requestEpoch(maker);
        vm.prank(maker);
        federation.publishEpoch(1, CONTEXT, KEYS, 1);
    }

    /// @notice Only an admitted node can be asked for a key.
    function test_requestEpoch_refuses_others() public {
        register(nodes[1].addr);
        assertRefused(
            admin,
            abi.encodeCall(IFederation.requestEpoch, (nodes[1].addr)),
            notAdmitted(nodes[1].addr, IFederation.MemberStatus.Applied)
        );
        assertRefused(
            admin,
            abi.encodeCall(IFederation.requestEpoch, (address(0))),
            notAdmitted(address(0), IFederation.MemberStatus.None)
        );
    }

    /// @notice A new key is fresh, and its request is used up.
    function test_publishEpoch_records_the_key() public {
        request(maker);
        vm.expectEmit(address(federation));
        emit IFederation.EpochPublished(1, CONTEXT, KEYS, 1);
        vm.prank(maker);
        federation.publishEpoch(1, CONTEXT, KEYS, 1);
        IFederation.State memory state = federation.state();
        assertEq(state.epoch, 1);
        assertFalse(state.isEpochStale);
        assertEq(federation.keyMaker(), address(0));
        assertRefused(maker, publication(2, 1), notKeyMaker(2, address(0), maker));
    }

    /// @notice Epochs are numbered without gaps.
    function test_publishEpoch_refuses_other_epochs() public {
        request(maker);
        assertRefused(maker, publication(0, 1), abi.encodeWithSelector(IFederation.WrongEpoch.selector, 1, 0));
        assertRefused(maker, publication(2, 1), abi.encodeWithSelector(IFederation.WrongEpoch.selector, 1, 2));
    }

    /// @notice Nobody but the key maker publishes a key, whatever its role.
    function test_publishEpoch_refuses_others() public {
        request(maker);
        assertRefused(admin, publication(1, 1), notKeyMaker(maker, admin));
        assertRefused(stranger, publication(1, 1), notKeyMaker(maker, stranger));
    }

    /// @notice A key maker that was suspended publishes nothing.
    function test_publishEpoch_refuses_a_suspended_key_maker() public {
        request(maker);
        suspend(maker);
        assertRefused(maker, publication(1, 2), notAdmitted(maker, IFederation.MemberStatus.Suspended));
    }

    /// @notice A publication names context and keys.
    function test_publishEpoch_refuses_zero_digests() public {
        request(maker);
        bytes memory reason = abi.encodeWithSelector(IFederation.ZeroDigest.selector);
        assertRefused(maker, abi.encodeCall(IFederation.publishEpoch, (1, 0, KEYS, 1)), reason);
        assertRefused(maker, abi.encodeCall(IFederation.publishEpoch, (1, CONTEXT, 0, 1)), reason);
    }

    /// @notice Keys wrapped for another membership than the present one are refused.
    function test_publishEpoch_refuses_keys_for_another_membership() public {
        request(maker);
        join(nodes[1].addr);
        bytes memory reason = abi.encodeWithSelector(IFederation.StaleEpoch.selector, 1, 2);
        assertRefused(maker, publication(1, 1), reason);
        assertRefused(maker, publication(1, 3), reason);
        vm.prank(maker);
        federation.publishEpoch(1, CONTEXT, KEYS, 2);
    }

    function request(address node) private {
        vm.prank(admin);
        federation.requestEpoch(node);
    }

    function publication(uint24 epoch, uint32 membership) private pure returns (bytes memory) {
        return abi.encodeCall(IFederation.publishEpoch, (epoch, CONTEXT, KEYS, membership));
    }

    function notKeyMaker(address keyMaker, address caller) private pure returns (bytes memory) {
        return notKeyMaker(1, keyMaker, caller);
    }

    function notKeyMaker(uint24 epoch, address keyMaker, address caller) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IFederation.NotKeyMaker.selector, epoch, keyMaker, caller);
    }

    function notAdmitted(address node, IFederation.MemberStatus status) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IFederation.NotAdmitted.selector, node, status);
    }
}
