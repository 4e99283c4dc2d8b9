// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {StdAssertions} from "forge-std/StdAssertions.sol";
import {StdUtils} from "forge-std/StdUtils.sol";
import {Vm} from "forge-std/Vm.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title A fresh ledger, who acts on it, and the steps of a round
abstract contract FederationTest is StdAssertions, StdUtils {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint24 internal constant COMMIT_WINDOW = 1 hours;
    uint24 internal constant AGGREGATE_WINDOW = 20 minutes;
    uint24 internal constant ATTEST_WINDOW = 10 minutes;
    bytes32 internal constant GENESIS = keccak256("genesis model");
    bytes32 internal constant MODEL = keccak256("model");
    bytes32 internal constant OTHER_MODEL = keccak256("other model");
    bytes32 internal constant ROOT = keccak256("root");

    address internal admin = vm.createWallet("admin").addr;
    address internal aggregator = vm.createWallet("aggregator").addr;
    address internal stranger = vm.createWallet("stranger").addr;
    /// @dev Wallets and not addresses, because nodes also sign. Ascending, as the ledger wants them listed.
    Vm.Wallet[] internal nodes;
    IFederation internal federation;
    /// @dev The newest round that these steps opened.
    uint24 internal round;

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        createNodes(5);
        federation = deploy(address(0));
    }

    function createNodes(uint256 count) internal {
        delete nodes;
        for (uint256 i; i < count; ++i) {
            nodes.push(vm.createWallet(string.concat("node ", vm.toString(i))));
            for (uint256 j = i; j > 0 && nodes[j].addr < nodes[j - 1].addr; --j) {
                Vm.Wallet memory lower = nodes[j];
                nodes[j] = nodes[j - 1];
                nodes[j - 1] = lower;
            }
        }
    }

    function deploy(address predecessor) internal returns (IFederation) {
        return IFederation(vm.deployCode("Federation.sol:Federation", abi.encode(admin, aggregator, predecessor)));
    }

    /// @dev Wants the ledger to refuse a call with exactly this error.
    function assertRefused(address caller, bytes memory call, bytes memory reason) internal {
        vm.prank(caller);
        (bool isAccepted, bytes memory answer) = address(federation).call(call);
        assertFalse(isAccepted, "accepted");
        assertEq(answer, reason);
    }

    /// @dev Wants a ledger not to come into being, with exactly this error. vm.expectRevert is no help: it says nothing
    /// of a creation that succeeds.
    function assertDeploymentRefused(address admin_, address aggregator_, address predecessor, bytes memory reason)
        internal
    {
        bytes memory code =
            bytes.concat(vm.getCode("Federation.sol:Federation"), abi.encode(admin_, aggregator_, predecessor));
        address created;
        bytes memory answer;
        assembly ("memory-safe") {
            created := create(0, add(code, 0x20), mload(code))
            answer := mload(0x40)
            mstore(answer, returndatasize())
            returndatacopy(add(answer, 0x20), 0, returndatasize())
            mstore(0x40, add(answer, and(add(returndatasize(), 0x3f), not(0x1f))))
        }
        assertEq(created, address(0), "created");
        assertEq(answer, reason);
    }

    /// @dev Wants the newest round to be over.
    function assertEnded(IFederation.Phase phase) internal view {
        assertEq(uint8(federation.currentRound().phase), uint8(phase));
        assertEq(federation.currentRound().deadline, 0);
    }

    function zeroDigest() internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IFederation.ZeroDigest.selector);
    }

    /// @dev Where round 1 is the newest.
    function wrongRound(uint24 number) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IFederation.WrongRound.selector, 1, number);
    }

    /// @dev In the first second after it, in round 1.
    function deadlinePassed(uint40 deadline) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IFederation.DeadlinePassed.selector, 1, deadline, deadline + 1);
    }

    // Membership, policy, keys

    function register(address node) internal {
        vm.prank(node);
        federation.register(keccak256("wrapping key"), keccak256("certificate"), keccak256("metadata"));
    }

    function admit(address node) internal {
        vm.prank(admin);
        federation.admit(node);
    }

    function suspend(address node) internal {
        vm.prank(admin);
        federation.suspend(node);
    }

    function leave(address node) internal {
        vm.prank(node);
        federation.leave();
    }

    function join(address node) internal {
        register(node);
        admit(node);
    }

    function makePolicy() internal pure returns (IFederation.Policy memory) {
        return IFederation.Policy({
            digest: keccak256("policy"),
            minContributors: 2,
            attestationQuorum: 3,
            maxExamples: 1_000,
            commitWindow: COMMIT_WINDOW,
            aggregateWindow: AGGREGATE_WINDOW,
            attestWindow: ATTEST_WINDOW,
            batching: true,
            privacyCost: 0,
            privacyBudget: 0
        });
    }

    function adopt(IFederation.Policy memory policy) internal {
        vm.prank(admin);
        federation.adoptPolicy(policy, GENESIS);
    }

    function renewEpoch() internal {
        IFederation.State memory state = federation.state();
        vm.prank(admin);
        federation.requestEpoch(nodes[0].addr);
        vm.prank(nodes[0].addr);
        federation.publishEpoch(state.epoch + 1, keccak256("context"), keccak256("keys"), state.membership);
    }

    /// @dev All nodes, the usual policy and a first key: a round can open.
    function prepare() internal {
        prepare(makePolicy());
    }

    function prepare(IFederation.Policy memory policy) internal {
        for (uint256 i; i < nodes.length; ++i) {
            join(nodes[i].addr);
        }
        adopt(policy);
        renewEpoch();
    }

    // Rounds

    function open() internal {
        ++round;
        vm.prank(aggregator);
        federation.openRound(round);
    }

    function commit(uint256 node) internal {
        vm.prank(nodes[node].addr);
        federation.commit(round, makeUpdateRoot(node), 100);
    }

    function makeUpdateRoot(uint256 node) internal pure returns (bytes32) {
        return keccak256(abi.encode("update", node));
    }

    function commitFirst(uint256 count) internal {
        for (uint256 i; i < count; ++i) {
            commit(i);
        }
    }

    function anchor(uint16 count) internal {
        vm.prank(aggregator);
        federation.anchorCommitments(round, ROOT, count);
    }

    /// @dev The addresses of nodes `from` to `to - 1`.
    function list(uint256 from, uint256 to) internal view returns (address[] memory listed) {
        listed = new address[](to - from);
        for (uint256 i; i < listed.length; ++i) {
            listed[i] = nodes[from + i].addr;
        }
    }

    function seal(address[] memory listed, bytes memory reasons) internal {
        vm.prank(aggregator);
        federation.seal(round, listed, reasons);
    }

    function publish() internal {
        vm.prank(aggregator);
        federation.publishAggregate(round, ROOT);
    }

    function attest(uint256 node, bytes32 model) internal {
        vm.prank(nodes[node].addr);
        federation.attest(round, model);
    }

    function propose(bytes32 model, uint16 count) internal {
        vm.prank(aggregator);
        federation.proposeResult(round, model, ROOT, count);
    }

    function sign(uint256 node, bytes32 model) internal view returns (bytes memory) {
        bytes32 digest = federation.hashAttestation(round, nodes[node].addr, model);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(nodes[node].privateKey, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev The attestations of nodes `from` to `to - 1`.
    function signAll(uint256 from, uint256 to, bytes32 model) internal view returns (bytes[] memory signatures) {
        signatures = new bytes[](to - from);
        for (uint256 i; i < signatures.length; ++i) {
            signatures[i] = sign(from + i, model);
        }
    }

    /// @dev Attested by the signatures of nodes `from` to `to - 1`.
    function finalise(bytes32 model, uint256 from, uint256 to) internal {
        bytes[] memory signatures = signAll(from, to, model);
        federation.finalise(round, model, list(from, to), signatures);
    }

    // The shortest way of a new round to a phase

    function reachSealed() internal {
        open();
        commitFirst(nodes.length);
        seal(list(0, nodes.length), new bytes(nodes.length));
    }

    function reachAggregated() internal {
        reachSealed();
        publish();
    }

    function reachProposed() internal {
        reachAggregated();
        propose(MODEL, 3);
    }

    function reachFinalised() internal {
        reachAggregated();
        finalise(MODEL, 0, 3);
    }

    function reachFailed() internal {
        open();
        vm.prank(aggregator);
        federation.fail(round, 1);
    }

    function reachRetired() internal {
        reachFinalised();
        vm.prank(admin);
        federation.retire();
    }
}
