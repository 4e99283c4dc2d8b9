// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Vm} from "forge-std/Vm.sol";
import {Refusals} from "./Refusals.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title An admin, an aggregator, six nodes and an outsider through whole rounds of all kinds
/// @notice Sends only what the ledger has to accept, so that a refusal is a failure, and discards the rest; what it has to
/// refuse stands in Refusals.sol.
contract FederationHandler is Refusals {
    constructor() {
        createActors();
        vm.warp(clock);
        vm.recordLogs();
        ledger = IFederation(
            vm.deployCode("Federation.sol:Federation", abi.encode(admin, aggregator, address(0)))
        );
        for (uint256 i; i < NODES; ++i) {
            doRegister(nodes[i]);
            if (i < 4) doAdmit(nodes[i]);
        }
        doAdopt();
        doRequest(nodes[0]);
        doPublish();
        replay(vm.getRecordedLogs(), address(ledger));
    }
}
