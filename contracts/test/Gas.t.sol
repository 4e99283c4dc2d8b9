// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FederationTest} from "./FederationTest.sol";

/// @title What users pay
/// @notice Each call is a transaction here: 21,000 gas, its calldata, cold storage, refunds. The committed figures are in
/// snapshots/Gas.json, and `make gas` writes them.
contract Gas is FederationTest {
    function test_membership() public {
        register(nodes[0].addr);
        uint256 total = vm.snapshotGasLastCall("Gas", "register");
        vm.prank(admin);
        federation.admit(nodes[0].addr);
        total += vm.snapshotGasLastCall("Gas", "admit the first node");
        vm.snapshotValue("Gas", "join: register and admit", total);
    }
}
