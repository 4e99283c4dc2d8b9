// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IFederation} from "./interfaces/IFederation.sol";

/// @title The ledger of one federation
/// @notice Immutable. Roles decide who takes part and who drives the rounds; nobody can rewrite a round.
/// @dev The state machine of a round:
///
///     None --openRound--> Open --seal--> Sealed --publishAggregate--> Aggregated --finalise--> Finalised
///                           \---------------\----------------------------\------fail--> Failed
///
/// Only the current round is ever in one of the three middle phases.
contract Federation is IFederation, AccessControl {
    /// @notice Drives the rounds: opens, seals, publishes and may give up.
    bytes32 public constant AGGREGATOR_ROLE = keccak256("AGGREGATOR_ROLE");

    /// @inheritdoc IFederation
    bytes32 public historyHash;
    /// @inheritdoc IFederation
    bytes32 public headModel;
    /// @inheritdoc IFederation
    uint32 public currentRound;
    /// @inheritdoc IFederation
    uint32 public currentEpoch;
    /// @inheritdoc IFederation
    uint32 public policyVersion;
    /// @inheritdoc IFederation
    uint16 public admittedCount;
    /// @inheritdoc IFederation
    address public keyMaker;
    /// @inheritdoc IFederation
    mapping(uint32 round => mapping(bytes32 modelDigest => uint16)) public attestations;

    mapping(address node => Member) private _members;
    mapping(uint32 number => Round) private _rounds;
    mapping(uint32 version => Policy) private _policies;

    constructor(address admin, address aggregator) {
        if (admin == address(0) || aggregator == address(0)) revert ZeroAddress();
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(AGGREGATOR_ROLE, aggregator);
    }

    // Membership

    /// @inheritdoc IFederation
    function register(bytes32 wrappingKeyDigest, bytes32 certificateDigest) external {
        if (wrappingKeyDigest == 0 || certificateDigest == 0) revert ZeroDigest();
        Member storage node = _members[msg.sender];
        MemberStatus status = node.status;
        if (status != MemberStatus.None && status != MemberStatus.Applied) {
            revert WrongStatus(msg.sender, MemberStatus.Applied, status);
        }

        node.status = MemberStatus.Applied;
        _record(keccak256(abi.encode(MemberApplied.selector, msg.sender, wrappingKeyDigest, certificateDigest)));
        emit MemberApplied(msg.sender, wrappingKeyDigest, certificateDigest);
    }

    /// @inheritdoc IFederation
    function admit(address node) external onlyRole(DEFAULT_ADMIN_ROLE) {
        Member storage admitted = _members[node];
        MemberStatus status = admitted.status;
        if (status != MemberStatus.Applied && status != MemberStatus.Suspended) {
            revert WrongStatus(node, MemberStatus.Applied, status);
        }

        // A round that is under way has its cohort already, and one that has ended takes nobody either.
        uint32 firstRound = currentRound + 1;
        admitted.status = MemberStatus.Admitted;
        admitted.firstRound = firstRound;
        ++admittedCount;
        _record(keccak256(abi.encode(MemberAdmitted.selector, node, firstRound)));
        emit MemberAdmitted(node, firstRound);
    }

    /// @inheritdoc IFederation
    function suspend(address node) external onlyRole(DEFAULT_ADMIN_ROLE) {
        Member storage suspended = _members[node];
        if (suspended.status != MemberStatus.Admitted) {
            revert WrongStatus(node, MemberStatus.Admitted, suspended.status);
        }

        suspended.status = MemberStatus.Suspended;
        --admittedCount;
        _record(keccak256(abi.encode(MemberSuspended.selector, node)));
        emit MemberSuspended(node);
    }

    // Policy and keys

    /// @inheritdoc IFederation
    function adoptPolicy(Policy calldata policy_, bytes32 genesisModel) external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (policy_.digest == 0) revert ZeroDigest();
        // The sum of a single update would be that update.
        if (
            policy_.minContributors < 2 || policy_.attestationQuorum == 0 || policy_.maxExamples == 0
                || policy_.commitWindow == 0 || policy_.aggregateWindow == 0 || policy_.attestWindow == 0
        ) revert InvalidPolicy();
        bytes32 head = headModel;
        if (head == 0) {
            if (genesisModel == 0) revert ZeroDigest();
            head = genesisModel;
            headModel = genesisModel;
        }

        uint32 version = ++policyVersion;
        _policies[version] = policy_;
        _record(keccak256(abi.encode(PolicyAdopted.selector, version, policy_, head)));
        emit PolicyAdopted(version, policy_, head);
    }

    /// @inheritdoc IFederation
    function requestEpoch(address keyMaker_) external onlyRole(DEFAULT_ADMIN_ROLE) {
        MemberStatus status = _members[keyMaker_].status;
        if (status != MemberStatus.Admitted) revert NotAdmitted(keyMaker_, status);

        keyMaker = keyMaker_;
        uint32 epoch = currentEpoch + 1;
        _record(keccak256(abi.encode(EpochRequested.selector, epoch, keyMaker_)));
        emit EpochRequested(epoch, keyMaker_);
    }

    /// @inheritdoc IFederation
    function publishEpoch(uint32 epoch, bytes32 contextDigest, bytes32 wrappedKeysRoot) external {
        uint32 next = currentEpoch + 1;
        if (epoch != next) revert WrongEpoch(next, epoch);
        if (msg.sender != keyMaker) revert NotKeyMaker(epoch, keyMaker, msg.sender);
        MemberStatus status = _members[msg.sender].status;
        if (status != MemberStatus.Admitted) revert NotAdmitted(msg.sender, status);
        if (contextDigest == 0 || wrappedKeysRoot == 0) revert ZeroDigest();

        currentEpoch = epoch;
        delete keyMaker;
        _record(keccak256(abi.encode(EpochPublished.selector, epoch, contextDigest, wrappedKeysRoot)));
        emit EpochPublished(epoch, contextDigest, wrappedKeysRoot);
    }

    // Rounds

    /// @inheritdoc IFederation
    function openRound(uint32 number) external onlyRole(AGGREGATOR_ROLE) {
        uint32 previous = currentRound;
        if (number != previous + 1) revert WrongRound(previous + 1, number);
        Phase phase = _rounds[previous].phase;
        if (phase != Phase.None && phase != Phase.Finalised && phase != Phase.Failed) revert WrongPhase(previous, phase);
        uint32 version = policyVersion;
        if (version == 0) revert NoPolicy();
        uint32 epoch = currentEpoch;
        if (epoch == 0) revert NoEpoch();
        Policy memory adopted = _policies[version];
        uint16 cohort = admittedCount;
        if (cohort < adopted.minContributors) revert QuorumNotReached(number, cohort, adopted.minContributors);
        if (cohort < adopted.attestationQuorum) revert QuorumNotReached(number, cohort, adopted.attestationQuorum);
        if (2 * uint256(adopted.attestationQuorum) <= cohort) {
            revert QuorumAmbiguous(number, adopted.attestationQuorum, cohort);
        }

        uint40 deadline = _after(adopted.commitWindow);
        currentRound = number;
        _rounds[number] = Round({
            phase: Phase.Open,
            minContributors: adopted.minContributors,
            attestationQuorum: adopted.attestationQuorum,
            cohort: cohort,
            maxExamples: adopted.maxExamples,
            policyVersion: version,
            epoch: epoch,
            deadline: deadline
        });
        bytes32 baseModel = headModel;
        _record(keccak256(abi.encode(RoundOpened.selector, number, version, epoch, baseModel, deadline)));
        emit RoundOpened(number, version, epoch, baseModel, deadline);
    }

    /// @inheritdoc IFederation
    /// @dev Touches three storage slots: the round, the member and the history hash.
    function commit(uint32 number, bytes32 updateRoot, uint32 examples) external {
        Round storage current = _requirePhase(number, Phase.Open);
        _requireInTime(number, current.deadline);
        Member storage node = _requireInCohort(number);
        if (node.lastCommitted == number) revert AlreadyCommitted(number, msg.sender);
        if (updateRoot == 0) revert ZeroDigest();
        if (examples == 0 || examples > current.maxExamples) revert ExamplesOutOfRange(examples, current.maxExamples);

        node.lastCommitted = number;
        _record(keccak256(abi.encode(UpdateCommitted.selector, number, msg.sender, updateRoot, examples)));
        emit UpdateCommitted(number, msg.sender, updateRoot, examples);
    }

    /// @inheritdoc IFederation
    function seal(
        uint32 number,
        address[] calldata contributors,
        address[] calldata excluded,
        uint8[] calldata reasons
    ) external onlyRole(AGGREGATOR_ROLE) {
        Round storage current = _requirePhase(number, Phase.Open);
        if (excluded.length != reasons.length) revert LengthMismatch(excluded.length, reasons.length);
        if (contributors.length < current.minContributors) {
            revert QuorumNotReached(number, contributors.length, current.minContributors);
        }
        if (contributors.length != current.cohort && block.timestamp <= current.deadline) {
            revert DeadlineNotReached(number, current.deadline, uint40(block.timestamp));
        }
        _requireCommittedAscending(number, contributors);
        _requireCommittedAscending(number, excluded);
        _requireDisjoint(number, contributors, excluded);

        uint40 deadline = _after(_policies[current.policyVersion].aggregateWindow);
        _enter(current, Phase.Sealed, deadline);
        _record(keccak256(abi.encode(RoundSealed.selector, number, contributors, excluded, reasons, deadline)));
        emit RoundSealed(number, contributors, excluded, reasons, deadline);
    }

    /// @inheritdoc IFederation
    function publishAggregate(uint32 number, bytes32 aggregateRoot) external onlyRole(AGGREGATOR_ROLE) {
        Round storage current = _requirePhase(number, Phase.Sealed);
        _requireInTime(number, current.deadline);
        if (aggregateRoot == 0) revert ZeroDigest();

        uint40 deadline = _after(_policies[current.policyVersion].attestWindow);
        _enter(current, Phase.Aggregated, deadline);
        _record(keccak256(abi.encode(AggregatePublished.selector, number, aggregateRoot, deadline)));
        emit AggregatePublished(number, aggregateRoot, deadline);
    }

    /// @inheritdoc IFederation
    function attest(uint32 number, bytes32 modelDigest) external {
        // Rounds before the current one take no more attestations, although they stay `Finalised`.
        if (number != currentRound) revert WrongRound(currentRound, number);
        Round storage current = _rounds[number];
        if (current.phase == Phase.Aggregated) _requireInTime(number, current.deadline);
        else if (current.phase != Phase.Finalised) revert WrongPhase(number, current.phase);
        Member storage node = _requireInCohort(number);
        if (node.lastAttested == number) revert AlreadyAttested(number, msg.sender);
        if (modelDigest == 0) revert ZeroDigest();

        node.lastAttested = number;
        ++attestations[number][modelDigest];
        _record(keccak256(abi.encode(ModelAttested.selector, number, msg.sender, modelDigest)));
        emit ModelAttested(number, msg.sender, modelDigest);
    }

    /// @inheritdoc IFederation
    function finalise(uint32 number, bytes32 modelDigest) external {
        Round storage current = _requirePhase(number, Phase.Aggregated);
        uint16 count = attestations[number][modelDigest];
        if (count < current.attestationQuorum) revert QuorumNotReached(number, count, current.attestationQuorum);

        headModel = modelDigest;
        _enter(current, Phase.Finalised, 0);
        _record(keccak256(abi.encode(RoundFinalised.selector, number, modelDigest, count)));
        emit RoundFinalised(number, modelDigest, count);
    }

    /// @inheritdoc IFederation
    function fail(uint32 number, uint8 reason) external {
        Round storage current = _rounds[number];
        Phase phase = current.phase;
        if (phase == Phase.None) revert WrongRound(currentRound, number);
        if (phase == Phase.Finalised || phase == Phase.Failed) revert WrongPhase(number, phase);
        if (!hasRole(AGGREGATOR_ROLE, msg.sender)) {
            uint40 overdue = current.deadline + _policies[current.policyVersion].aggregateWindow;
            if (block.timestamp <= overdue) revert DeadlineNotReached(number, overdue, uint40(block.timestamp));
        }

        _enter(current, Phase.Failed, 0);
        _record(keccak256(abi.encode(RoundFailed.selector, number, phase, reason)));
        emit RoundFailed(number, phase, reason);
    }

    // Views

    /// @inheritdoc IFederation
    function member(address node) external view returns (Member memory) {
        return _members[node];
    }

    /// @inheritdoc IFederation
    function round(uint32 number) external view returns (Round memory) {
        return _rounds[number];
    }

    /// @inheritdoc IFederation
    function policy() external view returns (Policy memory) {
        return _policies[policyVersion];
    }

    // Internals

    /// @dev Chains one event into the history: `entry` is the hash of its topic and its arguments in order.
    function _record(bytes32 entry) private {
        historyHash = keccak256(abi.encode(historyHash, entry));
    }

    /// @inheritdoc AccessControl
    function _grantRole(bytes32 role, address account) internal override returns (bool granted) {
        granted = super._grantRole(role, account);
        if (granted) _record(keccak256(abi.encode(RoleGranted.selector, role, account, msg.sender)));
    }

    /// @inheritdoc AccessControl
    function _revokeRole(bytes32 role, address account) internal override returns (bool revoked) {
        revoked = super._revokeRole(role, account);
        if (revoked) _record(keccak256(abi.encode(RoleRevoked.selector, role, account, msg.sender)));
    }

    function _enter(Round storage current, Phase phase, uint40 deadline) private {
        current.phase = phase;
        current.deadline = deadline;
    }

    function _after(uint32 window) private view returns (uint40) {
        return uint40(block.timestamp + window);
    }

    /// @dev `currentRound` is read only to name what is wrong: no other round is in a phase that is asked for.
    function _requirePhase(uint32 number, Phase phase) private view returns (Round storage current) {
        current = _rounds[number];
        if (current.phase != phase) {
            if (number != currentRound) revert WrongRound(currentRound, number);
            revert WrongPhase(number, current.phase);
        }
    }

    function _requireInTime(uint32 number, uint40 deadline) private view {
        if (block.timestamp > deadline) revert DeadlinePassed(number, deadline, uint40(block.timestamp));
    }

    function _requireInCohort(uint32 number) private view returns (Member storage node) {
        node = _members[msg.sender];
        if (node.status != MemberStatus.Admitted) revert NotAdmitted(msg.sender, node.status);
        if (node.firstRound > number) revert NotInCohort(number, msg.sender, node.firstRound);
    }

    function _requireCommittedAscending(uint32 number, address[] calldata nodes) private view {
        address previous;
        for (uint256 i; i < nodes.length; ++i) {
            address node = nodes[i];
            if (node <= previous) revert NotAscending(previous, node);
            if (_members[node].lastCommitted != number) revert NotCommitted(number, node);
            previous = node;
        }
    }

    /// @dev One merge over two ascending lists.
    function _requireDisjoint(uint32 number, address[] calldata left, address[] calldata right) private pure {
        uint256 i;
        uint256 j;
        while (i < left.length && j < right.length) {
            if (left[i] == right[j]) revert ContributorExcluded(number, left[i]);
            if (left[i] < right[j]) ++i;
            else ++j;
        }
    }
}
