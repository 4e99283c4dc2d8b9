// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {InclusionProof} from "./InclusionProof.sol";
import {IFederation} from "./interfaces/IFederation.sol";

/// @title The ledger of one federation
/// @notice Immutable. Roles decide who takes part and who drives the rounds; nobody can rewrite a round.
/// @dev The state machine of a round:
///
///     None --openRound--> Open --seal--> Sealed --publishAggregate--> Aggregated --attest, finalise--> Finalised
///                                                                       \--proposeResult--> Proposed --finalise--^
///
/// From each of the four phases in the middle, `fail` leads to Failed; so does a dispute or a contradiction, once there
/// is something to object to. Only the newest round is kept: what came before is in the events and in `historyHash`.
///
/// The price of a transaction is the storage slots that it changes, so what changes together stands together: a
/// commitment changes its member's slot and the round's, and enters `historyHash` with the seal.
contract Federation is IFederation, AccessControl {
    /// @notice Drives the rounds: opens, anchors, seals, publishes, proposes and may give up. Asks for epochs.
    bytes32 public constant AGGREGATOR_ROLE = keccak256("AGGREGATOR_ROLE");

    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant DOMAIN_NAME = keccak256("fedproof");
    bytes32 private constant DOMAIN_VERSION = keccak256("1");
    bytes32 private constant COMMITMENT_TYPE = keccak256(
        "Commitment(uint24 round,address node,bytes32 baseModel,bytes32 updateRoot,uint32 examples,uint64 nonce)"
    );
    bytes32 private constant ATTESTATION_TYPE = keccak256("Attestation(uint24 round,address node,bytes32 modelDigest)");

    /// @dev Of the rounds that failed by an objection and not by `fail`.
    uint8 private constant REASON_DISAGREEMENT = 5;
    uint8 private constant REASON_DISPUTE = 6;
    /// @dev Added to the reason of a node that committed by transaction and in the batch, too.
    uint8 private constant LEAF_TOO = 128;
    /// @dev What a node's contract may spend on a signature: enough for P-256 in Solidity, and no more of the
    /// caller's, whatever it does.
    uint256 private constant SIGNATURE_GAS = 500_000;

    /// @dev What a seal's list says.
    /// @param committed How many nodes of it committed by transaction.
    /// @param contributing How many of these count.
    /// @param leaves How many leaves of the batch do not count.
    /// @param excluded How many nodes of the list do not count at all.
    struct Tally {
        uint256 committed;
        uint256 contributing;
        uint256 leaves;
        uint256 excluded;
    }

    /// @inheritdoc IFederation
    bytes32 public historyHash;
    /// @inheritdoc IFederation
    bytes32 public headModel;
    /// @inheritdoc IFederation
    bytes32 public candidate;
    /// @inheritdoc IFederation
    bytes32 public policyDigest;
    /// @inheritdoc IFederation
    /// @dev No immutable: the code on chain is compared with the artifact's, byte by byte.
    // slither-disable-next-line immutable-states
    address public predecessor;
    /// @inheritdoc IFederation
    address public keyMaker;

    State private _state;
    Round private _round;
    Privacy private _privacy;
    mapping(address node => Member) private _members;

    constructor(address admin, address aggregator, address predecessor_) {
        if (admin == address(0) || aggregator == address(0)) revert ZeroAddress();
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(AGGREGATOR_ROLE, aggregator);
        if (predecessor_ == address(0)) return;

        IFederation before = IFederation(predecessor_);
        if (before.currentRound().phase != Phase.Retired) revert NotRetired(predecessor_);
        bytes32 finalHash = before.historyHash();
        bytes32 head = before.headModel();
        uint64 spent = before.privacy().spent;
        predecessor = predecessor_;
        headModel = head;
        _privacy.spent = spent;
        _record(keccak256(abi.encode(Succeeded.selector, predecessor_, finalHash, head, spent)));
        emit Succeeded(predecessor_, finalHash, head, spent);
    }

    // Membership

    /// @inheritdoc IFederation
    function register(bytes32 wrappingKeyDigest, bytes32 certificateDigest, bytes32 metadataDigest) external {
        if (wrappingKeyDigest == 0 || certificateDigest == 0) revert ZeroDigest();
        Member storage node = _members[msg.sender];
        MemberStatus status = node.status;
        if (status == MemberStatus.Admitted || status == MemberStatus.Suspended) {
            revert WrongStatus(msg.sender, MemberStatus.Applied, status);
        }

        node.status = MemberStatus.Applied;
        _record(
            keccak256(
                abi.encode(MemberApplied.selector, msg.sender, wrappingKeyDigest, certificateDigest, metadataDigest)
            )
        );
        emit MemberApplied(msg.sender, wrappingKeyDigest, certificateDigest, metadataDigest);
    }

    /// @inheritdoc IFederation
    function admit(address node) external onlyRole(DEFAULT_ADMIN_ROLE) {
        Member storage admitted = _members[node];
        MemberStatus status = admitted.status;
        if (status != MemberStatus.Applied && status != MemberStatus.Suspended) {
            revert WrongStatus(node, MemberStatus.Applied, status);
        }

        // Nobody joins a round that has begun, and nobody who is in the newest is taken out by a new admission.
        uint24 current = _round.number;
        uint24 firstRound = isInCohort(node) ? current : current + 1;
        admitted.status = MemberStatus.Admitted;
        admitted.boundary = firstRound;
        ++_state.admitted;
        _changeMembership();
        _record(keccak256(abi.encode(MemberAdmitted.selector, node, firstRound)));
        emit MemberAdmitted(node, firstRound);
    }

    /// @inheritdoc IFederation
    function suspend(address node) external onlyRole(DEFAULT_ADMIN_ROLE) {
        _dismiss(node, MemberStatus.Suspended);
        _record(keccak256(abi.encode(MemberSuspended.selector, node)));
        emit MemberSuspended(node);
    }

    /// @inheritdoc IFederation
    function leave() external {
        _dismiss(msg.sender, MemberStatus.Left);
        _record(keccak256(abi.encode(MemberLeft.selector, msg.sender)));
        emit MemberLeft(msg.sender);
    }

    /// @inheritdoc IFederation
    function rotateKeys(bytes32 wrappingKeyDigest, bytes32 certificateDigest) external {
        if (wrappingKeyDigest == 0 || certificateDigest == 0) revert ZeroDigest();
        _requireAdmitted(msg.sender);

        // Not a change of membership: otherwise one node could make every epoch stale.
        _record(keccak256(abi.encode(KeysRotated.selector, msg.sender, wrappingKeyDigest, certificateDigest)));
        emit KeysRotated(msg.sender, wrappingKeyDigest, certificateDigest);
    }

    // Policy and keys

    /// @inheritdoc IFederation
    function adoptPolicy(Policy calldata policy, bytes32 genesisModel) external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (policy.digest == 0) revert ZeroDigest();
        // The sum of a single update would be that update.
        if (
            policy.minContributors < 2 || policy.attestationQuorum == 0 || policy.maxExamples == 0
                || policy.commitWindow == 0 || policy.aggregateWindow == 0 || policy.attestWindow == 0
                || (policy.batching && policy.attestWindow >= policy.commitWindow)
                || (policy.privacyCost != 0 && policy.privacyBudget == 0)
        ) revert InvalidPolicy();
        bytes32 head = headModel;
        if (head == 0) {
            if (genesisModel == 0) revert ZeroDigest();
            head = genesisModel;
            headModel = genesisModel;
        }

        uint24 version = _state.policyVersion + 1;
        _state.policyVersion = version;
        _state.minContributors = policy.minContributors;
        _state.attestationQuorum = policy.attestationQuorum;
        _state.maxExamples = policy.maxExamples;
        _state.commitWindow = policy.commitWindow;
        _state.aggregateWindow = policy.aggregateWindow;
        _state.attestWindow = policy.attestWindow;
        _state.batching = policy.batching;
        _state.isAccounted = policy.privacyBudget != 0;
        _privacy.cost = policy.privacyCost;
        _privacy.budget = policy.privacyBudget;
        policyDigest = policy.digest;
        _record(keccak256(abi.encode(PolicyAdopted.selector, version, policy, head)));
        emit PolicyAdopted(version, policy, head);
    }

    /// @inheritdoc IFederation
    function approvePolicy(uint24 version, bytes32 digest) external {
        if (version == 0 || version != _state.policyVersion || digest != policyDigest) {
            revert WrongPolicy(_state.policyVersion, policyDigest, digest);
        }
        _requireAdmitted(msg.sender);

        _record(keccak256(abi.encode(PolicyApproved.selector, version, msg.sender, digest)));
        emit PolicyApproved(version, msg.sender, digest);
    }

    /// @inheritdoc IFederation
    function requestEpoch(address node) external {
        // Also the aggregator: else a ledger whose admin has gone would stop for good when the next node leaves.
        if (!hasRole(AGGREGATOR_ROLE, msg.sender)) _checkRole(DEFAULT_ADMIN_ROLE);
        _requireAdmitted(node);

        // slither-disable-next-line missing-zero-check (the zero address is never admitted)
        keyMaker = node;
        uint24 epoch = _state.epoch + 1;
        _record(keccak256(abi.encode(EpochRequested.selector, epoch, node)));
        emit EpochRequested(epoch, node);
    }

    /// @inheritdoc IFederation
    function publishEpoch(
        uint24 epoch,
        bytes32 contextDigest,
        bytes32 wrappedKeysRoot,
        uint32 membership
    ) external {
        uint24 next = _state.epoch + 1;
        if (epoch != next) revert WrongEpoch(next, epoch);
        if (msg.sender != keyMaker) revert NotKeyMaker(epoch, keyMaker, msg.sender);
        _requireAdmitted(msg.sender);
        if (contextDigest == 0 || wrappedKeysRoot == 0) revert ZeroDigest();
        if (membership != _state.membership) revert StaleEpoch(epoch, _state.membership);

        _state.epoch = epoch;
        _state.isEpochStale = false;
        delete keyMaker;
        _record(keccak256(abi.encode(EpochPublished.selector, epoch, contextDigest, wrappedKeysRoot, membership)));
        emit EpochPublished(epoch, contextDigest, wrappedKeysRoot, membership);
    }

    // Rounds

    /// @inheritdoc IFederation
    function openRound(uint24 number) external onlyRole(AGGREGATOR_ROLE) {
        uint24 previous = _round.number;
        if (number != previous + 1) revert WrongRound(previous + 1, number);
        if (_isUnderWay() || _round.phase == Phase.Retired) revert WrongPhase(previous, _round.phase);
        State memory terms = _state;
        if (terms.policyVersion == 0) revert NoPolicy();
        if (terms.epoch == 0) revert NoEpoch();
        if (terms.isEpochStale) revert StaleEpoch(terms.epoch, terms.membership);
        uint16 cohort = terms.admitted;
        if (cohort < terms.minContributors) revert QuorumNotReached(number, cohort, terms.minContributors);
        if (cohort < terms.attestationQuorum) revert QuorumNotReached(number, cohort, terms.attestationQuorum);
        if (2 * uint256(terms.attestationQuorum) <= cohort) {
            revert QuorumAmbiguous(number, terms.attestationQuorum, cohort);
        }

        uint40 deadline = _after(terms.commitWindow);
        _round = Round({
            number: number,
            phase: Phase.Open,
            deadline: deadline,
            cohort: cohort,
            committed: 0,
            batched: 0,
            attested: 0,
            minContributors: terms.minContributors,
            attestationQuorum: terms.attestationQuorum,
            maxExamples: terms.maxExamples,
            aggregateWindow: terms.aggregateWindow,
            attestWindow: terms.attestWindow,
            batching: terms.batching
        });
        bytes32 baseModel = headModel;
        _record(
            keccak256(
                abi.encode(RoundOpened.selector, number, terms.policyVersion, terms.epoch, baseModel, deadline)
            )
        );
        emit RoundOpened(number, terms.policyVersion, terms.epoch, baseModel, deadline);
        if (terms.isAccounted) _spendPrivacy(number);
    }

    /// @inheritdoc IFederation
    /// @dev Changes two storage slots: the member's and the round's.
    function commit(uint24 number, bytes32 updateRoot, uint32 examples) external {
        if (updateRoot == 0) revert ZeroDigest();
        bytes24 commitment = bytes24(keccak256(abi.encode(number, msg.sender, updateRoot, examples)));
        Round storage current = _round;
        uint16 committed;
        {
            // Read side by side, a slot is loaded once.
            (uint24 currentNumber, Phase phase, uint40 deadline) = (current.number, current.phase, current.deadline);
            uint32 maxExamples = current.maxExamples;
            committed = current.committed;
            if (number != currentNumber) revert WrongRound(currentNumber, number);
            if (phase != Phase.Open) revert WrongPhase(number, phase);
            if (block.timestamp > deadline) revert DeadlinePassed(number, deadline, uint40(block.timestamp));
            if (examples == 0 || examples > maxExamples) revert ExamplesOutOfRange(examples, maxExamples);
        }
        Member storage node = _members[msg.sender];
        (MemberStatus status, uint24 boundary, uint24 lastRound) = (node.status, node.boundary, node.lastRound);
        if (!_isMemberOf(status, boundary, number)) revert NotInCohort(number, msg.sender);
        if (lastRound == number) revert AlreadyCommitted(number, msg.sender);

        (node.lastRound, node.hasAttested, node.commitment) = (number, false, commitment);
        current.committed = committed + 1;
        emit UpdateCommitted(number, msg.sender, updateRoot, examples);
    }

    /// @inheritdoc IFederation
    function anchorCommitments(uint24 number, bytes32 root, uint16 count) external onlyRole(AGGREGATOR_ROLE) {
        Round storage current = _requirePhase(number, Phase.Open);
        if (!current.batching) revert BatchingNotAllowed(number);
        if (current.batched != 0) revert AlreadyAnchored(number);
        if (root == 0) revert ZeroDigest();
        if (count == 0 || count > current.cohort) revert CountOutOfRange(count, 1, current.cohort);
        // A node that is left out has this long to commit by itself.
        uint40 latest = current.deadline - current.attestWindow;
        if (block.timestamp > latest) revert DeadlinePassed(number, latest, uint40(block.timestamp));

        current.batched = count;
        _record(keccak256(abi.encode(CommitmentsAnchored.selector, number, root, count)));
        emit CommitmentsAnchored(number, root, count);
    }

    /// @inheritdoc IFederation
    function seal(uint24 number, address[] calldata nodes, bytes calldata reasons) external {
        Round storage current = _requirePhase(number, Phase.Open);
        if (nodes.length != reasons.length) revert LengthMismatch(nodes.length, reasons.length);
        (bytes32 commitments, Tally memory tally) = _readCommitments(number, nodes, reasons);
        if (tally.committed != current.committed) {
            revert CommitmentsMissing(number, current.committed, tally.committed);
        }
        if (tally.leaves > current.batched) revert CountOutOfRange(tally.leaves, 0, current.batched);
        uint256 contributors = tally.contributing + current.batched - tally.leaves;
        if (contributors < current.minContributors) {
            revert QuorumNotReached(number, contributors, current.minContributors);
        }
        if (contributors > current.cohort) revert CountOutOfRange(contributors, 0, current.cohort);
        if (!hasRole(AGGREGATOR_ROLE, msg.sender)) {
            _requireOverdue(current);
            if (tally.excluded != 0) revert ExclusionNotAllowed(number, msg.sender);
            if (current.batched != 0) revert AlreadyAnchored(number);
        } else if (contributors != current.cohort && block.timestamp <= current.deadline) {
            revert DeadlineNotReached(number, current.deadline, uint40(block.timestamp));
        }

        uint40 deadline = _after(current.aggregateWindow);
        _enter(current, Phase.Sealed, deadline);
        _record(keccak256(abi.encode(RoundSealed.selector, number, nodes, reasons, deadline, commitments)));
        emit RoundSealed(number, nodes, reasons, deadline);
    }

    /// @inheritdoc IFederation
    function publishAggregate(uint24 number, bytes32 aggregateRoot) external onlyRole(AGGREGATOR_ROLE) {
        Round storage current = _requirePhase(number, Phase.Sealed);
        _requireInTime(current);
        if (aggregateRoot == 0) revert ZeroDigest();

        uint40 deadline = _after(current.attestWindow);
        _enter(current, Phase.Aggregated, deadline);
        _record(keccak256(abi.encode(AggregatePublished.selector, number, aggregateRoot, deadline)));
        emit AggregatePublished(number, aggregateRoot, deadline);
    }

    /// @inheritdoc IFederation
    function attest(uint24 number, bytes32 modelDigest) external {
        Round storage current = _round;
        Phase phase = current.phase;
        if (number != current.number) revert WrongRound(current.number, number);
        if (phase == Phase.Aggregated || phase == Phase.Proposed) _requireInTime(current);
        else if (phase != Phase.Finalised) revert WrongPhase(number, phase);
        Member storage node = _requireInCohort(number);
        bool isFirst = node.lastRound != number;
        if (!isFirst && node.hasAttested) revert AlreadyAttested(number, msg.sender);
        if (modelDigest == 0) revert ZeroDigest();

        if (isFirst) {
            node.lastRound = number;
            delete node.commitment;
        }
        node.hasAttested = true;
        _record(keccak256(abi.encode(ModelAttested.selector, number, msg.sender, modelDigest)));
        emit ModelAttested(number, msg.sender, modelDigest);
        if (phase == Phase.Finalised) return;
        if (!_hasCandidate(current)) candidate = modelDigest;
        else if (candidate != modelDigest) return _fail(current, REASON_DISAGREEMENT);
        if (++current.attested >= current.attestationQuorum) {
            _finalise(current, modelDigest, new address[](0));
        }
    }

    /// @inheritdoc IFederation
    function proposeResult(uint24 number, bytes32 modelDigest, bytes32 root, uint16 count)
        external
        onlyRole(AGGREGATOR_ROLE)
    {
        Round storage current = _requirePhase(number, Phase.Aggregated);
        _requireInTime(current);
        if (!current.batching) revert BatchingNotAllowed(number);
        if (modelDigest == 0 || root == 0) revert ZeroDigest();
        if (count < current.attestationQuorum || count > current.cohort) {
            revert CountOutOfRange(count, current.attestationQuorum, current.cohort);
        }
        if (_hasCandidate(current) && candidate != modelDigest) revert ModelsDiffer(number, candidate, modelDigest);

        candidate = modelDigest;
        uint40 deadline = _after(current.attestWindow);
        _enter(current, Phase.Proposed, deadline);
        _record(keccak256(abi.encode(ResultProposed.selector, number, modelDigest, root, count, deadline)));
        emit ResultProposed(number, modelDigest, root, count, deadline);
    }

    /// @inheritdoc IFederation
    function finalise(
        uint24 number,
        bytes32 modelDigest,
        address[] calldata signers,
        bytes[] calldata signatures
    ) external {
        Round storage current = _round;
        if (number != current.number) revert WrongRound(current.number, number);
        if (current.phase != Phase.Aggregated && current.phase != Phase.Proposed) {
            revert WrongPhase(number, current.phase);
        }
        if (modelDigest == 0) revert ZeroDigest();
        if (_hasCandidate(current) && candidate != modelDigest) revert ModelsDiffer(number, candidate, modelDigest);
        if (signers.length != signatures.length) revert LengthMismatch(signers.length, signatures.length);
        if (current.phase == Phase.Proposed && signers.length == 0) {
            if (block.timestamp <= current.deadline) {
                revert DeadlineNotReached(number, current.deadline, uint40(block.timestamp));
            }
        } else {
            _requireSigned(number, modelDigest, signers, signatures);
            uint256 count = current.attested + signers.length;
            if (count < current.attestationQuorum) {
                revert QuorumNotReached(number, count, current.attestationQuorum);
            }
        }

        _finalise(current, modelDigest, signers);
    }

    /// @inheritdoc IFederation
    function dispute(uint24 number, Subject subject, uint32 index) external {
        Round storage current = _round;
        Phase phase = current.phase;
        if (number != current.number) revert WrongRound(current.number, number);
        if (phase != Phase.Sealed && phase != Phase.Aggregated && phase != Phase.Proposed) {
            revert WrongPhase(number, phase);
        }
        _requireInCohort(number);

        _record(keccak256(abi.encode(RoundDisputed.selector, number, msg.sender, subject, index)));
        emit RoundDisputed(number, msg.sender, subject, index);
        _fail(current, REASON_DISPUTE);
    }

    /// @inheritdoc IFederation
    function fail(uint24 number, uint8 reason) external {
        Round storage current = _round;
        if (number == 0 || number != current.number) revert WrongRound(current.number, number);
        if (!_isUnderWay()) revert WrongPhase(number, current.phase);
        if (reason == REASON_DISAGREEMENT || reason == REASON_DISPUTE) revert ReservedReason(reason);
        if (!hasRole(AGGREGATOR_ROLE, msg.sender)) _requireOverdue(current);

        _fail(current, reason);
    }

    // Lineage

    /// @inheritdoc IFederation
    function releaseCheckpoint(bytes32 fileDigest) external onlyRole(DEFAULT_ADMIN_ROLE) {
        bytes32 head = headModel;
        if (fileDigest == 0 || head == 0) revert ZeroDigest();

        _record(keccak256(abi.encode(CheckpointReleased.selector, head, fileDigest)));
        emit CheckpointReleased(head, fileDigest);
    }

    /// @inheritdoc IFederation
    function retire() external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (_isUnderWay()) revert WrongPhase(_round.number, _round.phase);

        bytes32 head = headModel;
        _record(keccak256(abi.encode(Retired.selector, head)));
        _round.phase = Phase.Retired;
        emit Retired(head);
    }

    // Views

    /// @inheritdoc IFederation
    function state() external view returns (State memory) {
        return _state;
    }

    /// @inheritdoc IFederation
    function privacy() external view returns (Privacy memory) {
        return _privacy;
    }

    /// @inheritdoc IFederation
    function currentRound() external view returns (Round memory) {
        return _round;
    }

    /// @inheritdoc IFederation
    function member(address node) external view returns (Member memory) {
        return _members[node];
    }

    /// @inheritdoc IFederation
    function isInCohort(address node) public view returns (bool) {
        return _round.number != 0 && _isMemberOf(_members[node], _round.number);
    }

    /// @inheritdoc IFederation
    function hashCommitment(
        uint24 number,
        address node,
        bytes32 baseModel,
        bytes32 updateRoot,
        uint32 examples,
        uint64 nonce
    ) external view returns (bytes32) {
        return _hashTyped(
            keccak256(abi.encode(COMMITMENT_TYPE, number, node, baseModel, updateRoot, examples, nonce))
        );
    }

    /// @inheritdoc IFederation
    function hashAttestation(uint24 number, address node, bytes32 modelDigest) public view returns (bytes32) {
        return _hashTyped(keccak256(abi.encode(ATTESTATION_TYPE, number, node, modelDigest)));
    }

    /// @inheritdoc IFederation
    function isSignedBy(address node, bytes32 digest, bytes calldata signature) public view returns (bool) {
        // Before the node's code is looked at, which costs 2,600 gas that most nodes, having none, save here.
        // slither-disable-next-line unused-return (the third value only explains the second)
        (address recovered, ECDSA.RecoverError failure,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (failure == ECDSA.RecoverError.NoError && recovered == node) return true;
        bytes memory question = abi.encodeCall(IERC1271.isValidSignature, (digest, signature));
        bool isAnswered;
        bytes32 answer;
        // Of what it returns one word is read, however much there is: Solidity would copy, and pay for, all of it.
        // slither-disable-next-line assembly
        assembly ("memory-safe") {
            isAnswered := staticcall(SIGNATURE_GAS, node, add(question, 0x20), mload(question), 0, 0x20)
            isAnswered := and(isAnswered, gt(returndatasize(), 0x1f))
            answer := mload(0)
        }
        return isAnswered && answer == bytes32(IERC1271.isValidSignature.selector);
    }

    /// @inheritdoc IFederation
    function isIncluded(
        bytes32 root,
        uint256 size,
        uint256 index,
        bytes calldata leaf,
        bytes32[] calldata path
    ) external pure returns (bool) {
        return InclusionProof.verify(root, size, index, leaf, path);
    }

    // Internals

    /// @dev Chains one event into the history: `entry` is the hash of its topic and its arguments in order. A retired
    /// ledger records nothing more, so that a successor's link to its history stays true.
    function _record(bytes32 entry) private {
        if (_round.phase == Phase.Retired) revert WrongPhase(_round.number, Phase.Retired);
        historyHash = keccak256(abi.encode(historyHash, entry));
    }

    /// @inheritdoc AccessControl
    /// @dev Nobody becomes aggregator of a round that has begun: the admin would have power over it. To revoke the role is
    /// possible at any time, and leaves the round to whoever fails it.
    function _grantRole(bytes32 role, address account) internal override returns (bool granted) {
        if (role == AGGREGATOR_ROLE && _isUnderWay()) revert WrongPhase(_round.number, _round.phase);
        granted = super._grantRole(role, account);
        if (granted) _record(keccak256(abi.encode(RoleGranted.selector, role, account, msg.sender)));
    }

    /// @inheritdoc AccessControl
    function _revokeRole(bytes32 role, address account) internal override returns (bool revoked) {
        revoked = super._revokeRole(role, account);
        if (revoked) _record(keccak256(abi.encode(RoleRevoked.selector, role, account, msg.sender)));
    }

    /// @dev The newest round keeps the node in its cohort, also when it is over: a late attestation may be a dissent.
    function _dismiss(address node, MemberStatus status) private {
        Member storage dismissed = _requireAdmitted(node);
        uint24 current = _round.number;
        dismissed.boundary = _isMemberOf(dismissed, current) ? current : 0;
        dismissed.status = status;
        --_state.admitted;
        _changeMembership();
    }

    function _changeMembership() private {
        ++_state.membership;
        _state.isEpochStale = true;
    }

    function _spendPrivacy(uint24 number) private {
        Privacy memory ledger = _privacy;
        uint256 needed = uint256(ledger.spent) + ledger.cost;
        if (needed > ledger.budget) revert BudgetExceeded(number, needed, ledger.budget);

        // A round counts from its opening, also if it fails: an accountant errs on the side of privacy.
        _privacy.spent = uint64(needed);
        _record(keccak256(abi.encode(PrivacySpent.selector, number, ledger.cost, uint64(needed), ledger.budget)));
        emit PrivacySpent(number, ledger.cost, uint64(needed), ledger.budget);
    }

    function _finalise(Round storage current, bytes32 modelDigest, address[] memory signers) private {
        headModel = modelDigest;
        _enter(current, Phase.Finalised, 0);
        uint24 number = current.number;
        uint16 attested = current.attested;
        _record(keccak256(abi.encode(RoundFinalised.selector, number, modelDigest, attested, signers)));
        emit RoundFinalised(number, modelDigest, attested, signers);
    }

    function _fail(Round storage current, uint8 reason) private {
        Phase phase = current.phase;
        uint24 number = current.number;
        _enter(current, Phase.Failed, 0);
        _record(keccak256(abi.encode(RoundFailed.selector, number, phase, reason)));
        emit RoundFailed(number, phase, reason);
    }

    function _enter(Round storage current, Phase phase, uint40 deadline) private {
        current.phase = phase;
        current.deadline = deadline;
    }

    function _after(uint24 window) private view returns (uint40) {
        return uint40(block.timestamp + window);
    }

    function _isUnderWay() private view returns (bool) {
        Phase phase = _round.phase;
        return phase >= Phase.Open && phase <= Phase.Proposed;
    }

    /// @dev Asked about the newest round only: of a node that is not admitted, `boundary` is the last one.
    function _isMemberOf(Member storage node, uint24 number) private view returns (bool) {
        return _isMemberOf(node.status, node.boundary, number);
    }

    function _isMemberOf(MemberStatus status, uint24 boundary, uint24 number) private pure returns (bool) {
        return status == MemberStatus.Admitted ? boundary <= number : boundary == number;
    }

    /// @dev Whether somebody has attested or proposed a model in the round.
    function _hasCandidate(Round storage current) private view returns (bool) {
        return current.attested != 0 || current.phase == Phase.Proposed;
    }

    function _requirePhase(uint24 number, Phase phase) private view returns (Round storage current) {
        current = _round;
        if (number != current.number) revert WrongRound(current.number, number);
        if (current.phase != phase) revert WrongPhase(number, current.phase);
    }

    function _requireInTime(Round storage current) private view {
        if (block.timestamp > current.deadline) {
            revert DeadlinePassed(current.number, current.deadline, uint40(block.timestamp));
        }
    }

    function _requireOverdue(Round storage current) private view {
        uint40 overdue = current.deadline + current.aggregateWindow;
        if (block.timestamp <= overdue) revert DeadlineNotReached(current.number, overdue, uint40(block.timestamp));
    }

    function _requireAdmitted(address node) private view returns (Member storage admitted) {
        admitted = _members[node];
        if (admitted.status != MemberStatus.Admitted) revert NotAdmitted(node, admitted.status);
    }

    function _requireInCohort(uint24 number) private view returns (Member storage node) {
        node = _members[msg.sender];
        if (!_isMemberOf(node, number)) revert NotInCohort(number, msg.sender);
    }

    /// @dev Returns the hash over the commitments of the nodes that committed by transaction, and what the list says.
    function _readCommitments(uint24 number, address[] calldata nodes, bytes calldata reasons)
        private
        view
        returns (bytes32 digest, Tally memory tally)
    {
        bytes24[] memory commitments = new bytes24[](nodes.length);
        address previous = address(0);
        for (uint256 i; i < nodes.length; ++i) {
            address node = nodes[i];
            if (node <= previous) revert NotAscending(previous, node);
            previous = node;
            Member storage listed = _members[node];
            uint8 reason = uint8(reasons[i]);
            bool isExcluded = reason % LEAF_TOO != 0;
            if (isExcluded) ++tally.excluded;
            if (listed.lastRound == number) {
                commitments[i] = listed.commitment;
                ++tally.committed;
                if (!isExcluded) ++tally.contributing;
                if (reason >= LEAF_TOO) ++tally.leaves;
            } else {
                if (!isExcluded || reason >= LEAF_TOO) revert NotCommitted(number, node);
                ++tally.leaves;
            }
        }
        digest = keccak256(abi.encode(commitments));
    }

    function _requireSigned(
        uint24 number,
        bytes32 modelDigest,
        address[] calldata signers,
        bytes[] calldata signatures
    ) private view {
        address previous = address(0);
        for (uint256 i; i < signers.length; ++i) {
            address signer = signers[i];
            if (signer <= previous) revert NotAscending(previous, signer);
            previous = signer;
            Member storage node = _members[signer];
            if (!_isMemberOf(node, number)) revert NotInCohort(number, signer);
            if (node.lastRound == number && node.hasAttested) revert AlreadyAttested(number, signer);
            if (!isSignedBy(signer, hashAttestation(number, signer, modelDigest), signatures[i])) {
                revert InvalidSignature(number, signer);
            }
        }
    }

    function _hashTyped(bytes32 structHash) private view returns (bytes32) {
        // Computed anew each time, so that on a fork of the chain it is the fork's.
        bytes32 domain =
            keccak256(abi.encode(DOMAIN_TYPE, DOMAIN_NAME, DOMAIN_VERSION, block.chainid, address(this)));
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }
}
