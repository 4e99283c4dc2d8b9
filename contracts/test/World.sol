// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {StdAssertions} from "forge-std/StdAssertions.sol";
import {Vm} from "forge-std/Vm.sol";
import {Replay} from "./Replay.sol";
import {Wallet} from "./Wallets.sol";
import {IFederation} from "../interfaces/IFederation.sol";

/// @title What a handler knows of the ledger without asking it
/// @notice Each step is told here, too, by the interface's words and not by the contract's code; the invariants compare.
abstract contract World is StdAssertions, Replay {
    /// @notice How a model became the head.
    /// @param attested Distinct nodes of the cohort that attested it, by transaction or signature.
    /// @param hasStood Whether it was proposed and nobody objected until its deadline had passed.
    struct Finalisation {
        uint24 round;
        bytes32 model;
        uint256 attested;
        bool hasStood;
    }

    /// @notice What a node has done in the newest round.
    /// @param hasLeaf Whether the batch holds a commitment of it.
    /// @param hasCounted Whether it attested by transaction before the round was over.
    struct Part {
        bool isOfCohort;
        bytes24 commitment;
        bool hasLeaf;
        bool hasAttested;
        bool hasCounted;
    }

    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 internal constant NODES = 6;

    IFederation public ledger;
    address internal admin = address(0xAD01);
    address internal aggregator = address(0xA661);
    address internal outsider;
    /// @dev Ascending, with the keys that they sign with. The first key's is a contract, which signs by EIP-1271.
    address[] internal nodes;
    mapping(address node => uint256) internal keys;
    uint256 internal clock = 1_800_000_000;

    // The ledger as it has to be
    IFederation.Round internal round;
    IFederation.State internal terms;
    IFederation.Privacy internal ledgerOfPrivacy;
    Finalisation internal finalisation;
    bytes32 public head;
    uint32 public membershipOfEpoch;
    bool internal hasCandidate;
    bytes32 internal candidate;
    bool internal isBudgetKept = true;
    mapping(address node => IFederation.MemberStatus) public statusOf;
    mapping(address node => Part) internal parts;
    /// @notice Distinct nodes that a sealed round counts as contributors.
    uint256 public contributors;
    /// @notice The hash of the round's terms as it opened, and of the nodes' commitments as it was sealed.
    bytes32 public openedTerms;
    bytes32 public sealedCommitments;

    // What has happened
    /// @notice Bit `8 * from + to` of each pair of phases that one step led through.
    uint256 public transitions;
    uint256 public opened;
    /// @notice The ledgers before this one, and a hash of each as it retired.
    IFederation[] internal retired;
    bytes32[] internal retiredAs;
    mapping(string step => uint256) public accepted;
    uint256 private _random;

    /// @dev A step of the ledger at the handler's own time, with the events that it left.
    modifier step(uint256 seed) {
        _random = uint256(keccak256(abi.encode(seed, _random)));
        vm.warp(clock);
        vm.recordLogs();
        IFederation.Phase before = round.phase;
        _;
        replay(vm.getRecordedLogs(), address(ledger));
        transitions |= 1 << (8 * uint256(before) + uint256(ledger.currentRound().phase));
    }

    modifier counted(string memory name) {
        _;
        ++accepted[name];
    }

    /// @dev Who takes part, and a ledger with a policy and a first key.
    function createActors() internal {
        for (uint256 key = 1; key <= NODES; ++key) {
            address node = vm.addr(key);
            keys[node] = key;
            nodes.push(node);
            for (uint256 j = key - 1; j > 0 && nodes[j] < nodes[j - 1]; --j) {
                (nodes[j - 1], nodes[j]) = (nodes[j], nodes[j - 1]);
            }
        }
        vm.etch(vm.addr(1), type(Wallet).runtimeCode);
        outsider = vm.addr(NODES + 1);
        keys[outsider] = NODES + 1;
    }

    // Chance

    function draw(uint256 bound) internal returns (uint256) {
        _random = uint256(keccak256(abi.encode(_random)));
        return _random % bound;
    }

    function drawDigest() internal returns (bytes32) {
        return keccak256(abi.encode(draw(type(uint256).max)));
    }

    /// @dev Any node of which `fits` holds; discards the call where there is none.
    function pick(function(address) internal view returns (bool) fits) internal returns (address) {
        uint256 start = draw(NODES);
        for (uint256 i; i < NODES; ++i) {
            address node = nodes[(start + i) % NODES];
            if (fits(node)) return node;
        }
        vm.assume(false);
        return address(0);
    }

    /// @dev Sleeps until a moment has passed, or discards the call.
    function sleepPast(uint256 moment) internal {
        if (clock > moment) return;
        vm.assume(draw(2) == 0);
        sleepUntil(moment + 1 + (draw(2) == 0 ? 0 : draw(100)));
    }

    function sleepUntil(uint256 moment) internal {
        if (clock < moment) clock = moment;
        vm.warp(clock);
    }

    // What holds of nodes and rounds

    function isAdmitted(address node) internal view returns (bool) {
        return statusOf[node] == IFederation.MemberStatus.Admitted;
    }

    function isMember(address node) internal view returns (bool) {
        return parts[node].isOfCohort;
    }

    function hasNotCommitted(address node) internal view returns (bool) {
        return isMember(node) && parts[node].commitment == 0;
    }

    function hasCommitted(address node) internal view returns (bool) {
        return parts[node].commitment != 0;
    }

    function hasNotAttested(address node) internal view returns (bool) {
        return isMember(node) && !parts[node].hasAttested;
    }

    function count(function(address) internal view returns (bool) fits) internal view returns (uint256 found) {
        for (uint256 i; i < NODES; ++i) {
            if (fits(nodes[i])) ++found;
        }
    }

    function isUnderWay() public view returns (bool) {
        return round.phase >= IFederation.Phase.Open && round.phase <= IFederation.Phase.Proposed;
    }

    function isAt(IFederation.Phase phase) internal view returns (bool) {
        return round.phase == phase;
    }

    function isRetired() internal view returns (bool) {
        return isAt(IFederation.Phase.Retired);
    }

    /// @dev After it others than the aggregator end the round.
    function overdue() internal view returns (uint256) {
        return uint256(round.deadline) + round.aggregateWindow;
    }

    /// @dev What honest nodes derive in this round.
    function makeModel() internal view returns (bytes32) {
        return keccak256(abi.encode("model", round.number));
    }

    function enter(IFederation.Phase phase, uint256 deadline) internal {
        round.phase = phase;
        round.deadline = uint40(deadline);
    }

    function becomeFailed() internal {
        enter(IFederation.Phase.Failed, 0);
    }

    function becomeFinalised(bytes32 model, uint256 attested, bool hasStood) internal {
        finalisation = Finalisation({round: round.number, model: model, attested: attested, hasStood: hasStood});
        head = model;
        enter(IFederation.Phase.Finalised, 0);
    }

    // For the invariants

    function getNodes() external view returns (address[] memory) {
        return nodes;
    }

    function getPart(address node) external view returns (Part memory) {
        return parts[node];
    }

    function getRetired() external view returns (IFederation[] memory, bytes32[] memory) {
        return (retired, retiredAs);
    }

    function getRound() external view returns (IFederation.Round memory) {
        return round;
    }

    function getTerms() external view returns (IFederation.State memory) {
        return terms;
    }

    function getPrivacy() external view returns (IFederation.Privacy memory, bool) {
        return (ledgerOfPrivacy, isBudgetKept);
    }

    function getFinalisation() external view returns (Finalisation memory) {
        return finalisation;
    }

    function getCandidate() external view returns (bool, bytes32) {
        return (hasCandidate, candidate);
    }

    /// @notice Over all of a ledger but its members.
    function hashLedger(IFederation ledger_) public view returns (bytes32) {
        return keccak256(
            abi.encode(
                ledger_.historyHash(),
                ledger_.headModel(),
                ledger_.policyDigest(),
                ledger_.keyMaker(),
                ledger_.currentRound(),
                ledger_.state(),
                ledger_.privacy()
            )
        );
    }

    function hashTerms(IFederation.Round memory terms_) public pure returns (bytes32) {
        return keccak256(
            abi.encode(
                terms_.number,
                terms_.cohort,
                terms_.minContributors,
                terms_.attestationQuorum,
                terms_.maxExamples,
                terms_.aggregateWindow,
                terms_.attestWindow,
                terms_.batching
            )
        );
    }

    /// @notice Over the counts and commitments that the ledger has of a round.
    function hashCommitments() public view returns (bytes32 digest) {
        IFederation.Round memory current = ledger.currentRound();
        digest = keccak256(abi.encode(current.committed, current.batched));
        for (uint256 i; i < NODES; ++i) {
            IFederation.Member memory member = ledger.member(nodes[i]);
            bytes24 commitment = member.lastRound == current.number ? member.commitment : bytes24(0);
            digest = keccak256(abi.encode(digest, commitment));
        }
    }
}
