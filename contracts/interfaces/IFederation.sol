// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title The ledger of one federation
/// @notice Records who may take part, what each node committed to in each round, and what came out.
/// @dev Every event below also enters `historyHash`: an auditor who replays the events and reaches another hash knows
/// that at least one is missing, altered or out of order. `UpdateCommitted` enters with the seal of its round.
interface IFederation {
    /// @notice Where a node stands. Only `Admitted` nodes belong to the rounds that open.
    enum MemberStatus {
        None,
        Applied,
        Admitted,
        Suspended,
        Left
    }

    /// @notice Where a round stands. `Finalised` and `Failed` are final; after `Retired` there are no more rounds.
    enum Phase {
        None,
        Open,
        Sealed,
        Aggregated,
        Proposed,
        Finalised,
        Failed,
        Retired
    }

    /// @notice What a node finds wrong: a chunk of the sum, a leaf of the anchored commitments, or a leaf of the
    /// proposed attestations.
    enum Subject {
        Chunk,
        Commitment,
        Attestation
    }

    /// @notice What is enforced on chain of a policy document, and the digest of the whole of it.
    /// @param digest SHA-256 of the policy document's canonical bytes.
    /// @param minContributors Fewest contributors that a round may be sealed with.
    /// @param attestationQuorum Equal attestations that finalise a round.
    /// @param maxExamples Largest example count that a commitment may carry.
    /// @param commitWindow Seconds from the opening to the commitment deadline.
    /// @param aggregateWindow Seconds from the sealing to the deadline for the aggregate. Also the overdue window: the
    /// seconds after the deadline of any phase in which still only the aggregator may give the round up.
    /// @param attestWindow Seconds that nodes have to answer: from the aggregate to the deadline for attestations, from
    /// the anchoring of a batch to the end of the commitments, and from a proposed result to its finalisation.
    /// @param batching Whether the aggregator may anchor signed commitments and propose signed results. What they hold
    /// is checked by the nodes and not by the contract. Any node of the cohort may object: to a proposed result for
    /// `attestWindow`, to a batch from the seal on; to either only until the round is over, which an attestation
    /// quorum may bring about at once.
    /// @param privacyCost What one round adds to the privacy spent, in the unit of the policy document.
    /// @param privacyBudget What all rounds together may spend; 0 where rounds are not accounted for and cost nothing.
    struct Policy {
        bytes32 digest;
        uint16 minContributors;
        uint16 attestationQuorum;
        uint32 maxExamples;
        uint24 commitWindow;
        uint24 aggregateWindow;
        uint24 attestWindow;
        bool batching;
        uint64 privacyCost;
        uint64 privacyBudget;
    }

    /// @notice The federation's standing.
    /// @param policyVersion Number of the policy that the next round follows; 0 before the first.
    /// @param epoch Number of the newest key; 0 before the first.
    /// @param membership Counts admissions, suspensions and departures.
    /// @param admitted How many nodes belong to the next round.
    /// @param isEpochStale Whether the membership has changed since the newest key was made for it.
    /// @param isAccounted Whether rounds spend privacy. The other fields are the policy's.
    struct State {
        uint24 policyVersion;
        uint24 epoch;
        uint32 membership;
        uint16 admitted;
        bool isEpochStale;
        bool isAccounted;
        bool batching;
        uint16 minContributors;
        uint16 attestationQuorum;
        uint32 maxExamples;
        uint24 commitWindow;
        uint24 aggregateWindow;
        uint24 attestWindow;
    }

    /// @notice A node's standing and its last statement.
    /// @param boundary First round of an admitted node; last round of any other, or 0.
    /// @param lastRound Last round that it committed or attested in, or 0.
    /// @param hasAttested Whether it has attested in `lastRound`.
    /// @param commitment First 24 bytes of keccak256 over its commitment in `lastRound`; 0 without one.
    struct Member {
        MemberStatus status;
        uint24 boundary;
        uint24 lastRound;
        bool hasAttested;
        bytes24 commitment;
    }

    /// @notice The newest round's standing. The terms are those of its policy when it opened.
    /// @param deadline Unix time until which the phase takes what it is for; 0 once the round is over.
    /// @param cohort How many nodes were admitted when it opened. Nobody joins or loses a cohort afterwards.
    /// @param committed How many nodes committed by their own transactions.
    /// @param batched How many commitments the anchored batch holds.
    /// @param attested How many nodes attested its candidate by their own transactions, before it was over.
    struct Round {
        uint24 number;
        Phase phase;
        uint40 deadline;
        uint16 cohort;
        uint16 committed;
        uint16 batched;
        uint16 attested;
        uint16 minContributors;
        uint16 attestationQuorum;
        uint32 maxExamples;
        uint24 aggregateWindow;
        uint24 attestWindow;
        bool batching;
    }

    /// @notice The privacy spent by the rounds that were opened under policies with a budget, and the newest policy's
    /// terms.
    struct Privacy {
        uint64 cost;
        uint64 budget;
        uint64 spent;
    }

    // Membership

    /// @notice A node asked to take part, naming digests of its public keys and of what it says about itself.
    event MemberApplied(
        address indexed node, bytes32 wrappingKeyDigest, bytes32 certificateDigest, bytes32 metadataDigest
    );
    /// @notice A node became a member of every cohort from `firstRound` on.
    event MemberAdmitted(address indexed node, uint24 firstRound);
    /// @notice A node belongs to no round that opens from now on.
    event MemberSuspended(address indexed node);
    event MemberLeft(address indexed node);
    event KeysRotated(address indexed node, bytes32 wrappingKeyDigest, bytes32 certificateDigest);

    // Policy and keys

    event PolicyAdopted(uint24 indexed version, Policy policy, bytes32 headModel);
    /// @notice A node agreed to a policy, and so to the training plan and the first model in its document.
    event PolicyApproved(uint24 indexed version, address indexed node, bytes32 policyDigest);
    /// @notice The admin or the aggregator named the node that makes the secret key of the next epoch.
    event EpochRequested(uint24 indexed epoch, address indexed keyMaker);
    /// @notice The key maker published the digest of the encryption context and the root of the keys, wrapped for the
    /// nodes that were admitted at that count of membership changes.
    event EpochPublished(uint24 indexed epoch, bytes32 contextDigest, bytes32 wrappedKeysRoot, uint32 membership);

    // Rounds

    event RoundOpened(uint24 indexed round, uint24 policyVersion, uint24 epoch, bytes32 baseModel, uint40 deadline);
    event PrivacySpent(uint24 indexed round, uint64 cost, uint64 spent, uint64 budget);
    /// @notice A node bound itself to one encrypted update: the RFC 6962 root over its manifest and chunks.
    event UpdateCommitted(uint24 indexed round, address indexed node, bytes32 updateRoot, uint32 examples);
    /// @notice The RFC 6962 root over signed commitments, ascending by node; leaf: `abi.encode(node, updateRoot,
    /// examples, nonce, signature)`.
    event CommitmentsAnchored(uint24 indexed round, bytes32 root, uint16 count);
    /// @notice The contributors became final. `nodes` are all that committed by transaction, and those of the batch
    /// that do not count, ascending; `reasons` has a byte for each, as `seal` has it.
    event RoundSealed(uint24 indexed round, address[] nodes, bytes reasons, uint40 deadline);
    event AggregatePublished(uint24 indexed round, bytes32 aggregateRoot, uint40 deadline);
    event ModelAttested(uint24 indexed round, address indexed node, bytes32 modelDigest);
    /// @notice The aggregator holds `count` attestations: the RFC 6962 root over them, ascending by node; leaf:
    /// `abi.encode(node, signature)`.
    event ResultProposed(uint24 indexed round, bytes32 modelDigest, bytes32 root, uint16 count, uint40 deadline);
    /// @notice A node found a chunk or leaf wrong; anyone can check it from the stored ciphertexts and signatures.
    event RoundDisputed(uint24 indexed round, address indexed node, Subject subject, uint32 index);
    /// @notice A model became the head. `signers` attested by the signatures that came with the transaction.
    event RoundFinalised(uint24 indexed round, bytes32 modelDigest, uint16 attested, address[] signers);
    event RoundFailed(uint24 indexed round, Phase phase, uint8 reason);

    // Lineage

    /// @notice The head model left the federation, as a file of that SHA-256 digest.
    event CheckpointReleased(bytes32 headModel, bytes32 fileDigest);
    /// @notice No more rounds open here.
    event Retired(bytes32 headModel);
    /// @notice This ledger goes on from the head of a retired one, and from what its rounds have spent.
    event Succeeded(address indexed predecessor, bytes32 historyHash, bytes32 headModel, uint64 privacySpent);

    error NotAdmitted(address node, MemberStatus status);
    error WrongStatus(address node, MemberStatus expected, MemberStatus actual);
    error NotInCohort(uint24 round, address node);
    error InvalidPolicy();
    error NoPolicy();
    error WrongPolicy(uint24 version, bytes32 expected, bytes32 actual);
    error NotKeyMaker(uint24 epoch, address keyMaker, address caller);
    error WrongEpoch(uint24 expected, uint24 actual);
    error NoEpoch();
    /// @notice The membership has changed since the key was wrapped.
    error StaleEpoch(uint24 epoch, uint32 membership);
    error WrongRound(uint24 expected, uint24 actual);
    error WrongPhase(uint24 round, Phase actual);
    error DeadlinePassed(uint24 round, uint40 deadline, uint40 time);
    /// @notice `deadline` has to have passed first: the phase's, or to give a round up or seal it without being the
    /// aggregator, that plus the overdue window.
    error DeadlineNotReached(uint24 round, uint40 deadline, uint40 time);
    error AlreadyCommitted(uint24 round, address node);
    /// @notice Of a second batch; and of a seal by anyone but the aggregator, which alone knows whose the leaves are.
    error AlreadyAnchored(uint24 round);
    error AlreadyAttested(uint24 round, address node);
    error BatchingNotAllowed(uint24 round);
    error NotCommitted(uint24 round, address node);
    error NotAscending(address previous, address next);
    error LengthMismatch(uint256 expected, uint256 actual);
    /// @notice Not every node that committed by transaction was named in the seal.
    error CommitmentsMissing(uint24 round, uint256 expected, uint256 actual);
    /// @notice Only the aggregator knows which updates did not arrive.
    error ExclusionNotAllowed(uint24 round, address caller);
    error ExamplesOutOfRange(uint32 examples, uint32 maximum);
    error CountOutOfRange(uint256 count, uint256 minimum, uint256 maximum);
    error QuorumNotReached(uint24 round, uint256 actual, uint256 required);
    error QuorumAmbiguous(uint24 round, uint256 quorum, uint256 cohort);
    error ModelsDiffer(uint24 round, bytes32 attested, bytes32 given);
    error InvalidSignature(uint24 round, address node);
    error BudgetExceeded(uint24 round, uint256 needed, uint256 budget);
    /// @notice The contract alone gives a round up for a disagreement or a dispute.
    error ReservedReason(uint8 reason);
    error NotRetired(address predecessor);
    error ZeroDigest();
    error ZeroAddress();

    /// @notice Apply to take part, or (until admitted) name other keys. Also after leaving.
    /// @param metadataDigest Of a document about the node that is kept off chain, salted where it could be guessed.
    function register(bytes32 wrappingKeyDigest, bytes32 certificateDigest, bytes32 metadataDigest) external;

    /// @notice Admit an applied or suspended node. Admin only. It joins the next round, never one that has begun.
    function admit(address node) external;

    /// @notice Suspend an admitted node. Admin only. The newest round keeps it in its cohort, under way or over.
    function suspend(address node) external;

    /// @notice Take part no longer, from the next round on. For the node itself.
    function leave() external;

    /// @notice Name other keys, which count from the next epoch on. For an admitted node.
    function rotateKeys(bytes32 wrappingKeyDigest, bytes32 certificateDigest) external;

    /// @notice Adopt the next version of the policy; a round under way keeps its own. Admin only.
    /// @param genesisModel Digest of the first model; ignored once there is a head model.
    function adoptPolicy(Policy calldata policy, bytes32 genesisModel) external;

    /// @notice Agree to the newest policy. For an admitted node.
    function approvePolicy(uint24 version, bytes32 digest) external;

    /// @notice Name the admitted node that makes the next epoch's secret key. The admin or the aggregator.
    function requestEpoch(address node) external;

    /// @notice Publish the next epoch. Only its key maker.
    /// @param membership The count of membership changes that the keys were wrapped at: the present one.
    function publishEpoch(uint24 epoch, bytes32 contextDigest, bytes32 wrappedKeysRoot, uint32 membership) external;

    /// @notice Open a round on the head model. Aggregator only; the round before must have ended, and the newest epoch
    /// must be of the present membership. The cohort must be able to reach both quorums, and the attestation quorum
    /// must be more than half of it.
    /// @param round The next round's number, so that a transaction sent twice does not open two.
    function openRound(uint24 round) external;

    /// @notice Commit to one encrypted update. Once per node and round, before the deadline.
    function commit(uint24 round, bytes32 updateRoot, uint32 examples) external;

    /// @notice Anchor signed commitments, once, early enough that a node which is left out can still `commit`. Aggregator only.
    function anchorCommitments(uint24 round, bytes32 root, uint16 count) external;

    /// @notice Make the contributors final. The aggregator; before the deadline only if the whole cohort contributes.
    /// Once the overdue window has passed, anyone, with nobody excluded.
    /// @param nodes All that committed by transaction, and those of the batch that do not count; ascending.
    /// @param reasons One byte for each: 0 where it contributes; plus 128 where it committed by transaction and has a
    /// leaf in the batch as well, which does not count then.
    function seal(uint24 round, address[] calldata nodes, bytes calldata reasons) external;

    /// @notice Publish the root of the encrypted sum. Aggregator only.
    function publishAggregate(uint24 round, bytes32 aggregateRoot) external;

    /// @notice Attest the model that a node derived from the verified sum. Once per node and round. The quorum
    /// finalises the round; a model other than the one attested before fails it. Also after the finalisation,
    /// for the record.
    function attest(uint24 round, bytes32 modelDigest) external;

    /// @notice Propose a result on signed attestations that the contract does not see. Aggregator only. It can be
    /// finalised once `attestWindow` has passed without a contradiction.
    function proposeResult(uint24 round, bytes32 modelDigest, bytes32 root, uint16 count) external;

    /// @notice Make a model the head. Anyone: with enough signatures (EIP-712, or EIP-1271 of a contract) beside the
    /// attestations that came by transaction, or with none once a proposal stood uncontradicted.
    function finalise(uint24 round, bytes32 modelDigest, address[] calldata signers, bytes[] calldata signatures) external;

    /// @notice Object to the sum, the batch or the proposal, which fails the round. For a node of the cohort.
    function dispute(uint24 round, Subject subject, uint32 index) external;

    /// @notice Give a round up. The aggregator at any time; anyone once the overdue window after the phase's deadline has
    /// passed. Until then nobody else ends a round that the aggregator can still seal or anyone finalise.
    function fail(uint24 round, uint8 reason) external;

    /// @notice Record that the head model left the federation. Admin only.
    function releaseCheckpoint(bytes32 fileDigest) external;

    /// @notice End this ledger between two rounds, so that a successor may go on from its head. Admin only. Nothing is
    /// recorded afterwards.
    function retire() external;

    function historyHash() external view returns (bytes32);
    function headModel() external view returns (bytes32);

    /// @notice Digest of the newest policy's document; zero before the first.
    function policyDigest() external view returns (bytes32);

    /// @notice What the newest round's nodes attest, once one has by transaction or a result is proposed; until then,
    /// what an earlier round left.
    function candidate() external view returns (bytes32);

    /// @notice The ledger that this one goes on from, or zero.
    function predecessor() external view returns (address);

    /// @notice Who may publish the next epoch; zero while none is asked for.
    function keyMaker() external view returns (address);
    function state() external view returns (State memory);
    function privacy() external view returns (Privacy memory);
    function currentRound() external view returns (Round memory);
    function member(address node) external view returns (Member memory);

    /// @notice Whether a node belongs to the newest round's cohort, whether that round is under way or over.
    function isInCohort(address node) external view returns (bool);

    /// @notice The EIP-712 digest of `Commitment(uint24 round,address node,bytes32 baseModel,bytes32 updateRoot,uint32
    /// examples,uint64 nonce)`.
    function hashCommitment(
        uint24 round,
        address node,
        bytes32 baseModel,
        bytes32 updateRoot,
        uint32 examples,
        uint64 nonce
    ) external view returns (bytes32);

    /// @notice The EIP-712 digest of `Attestation(uint24 round,address node,bytes32 modelDigest)`.
    function hashAttestation(uint24 round, address node, bytes32 modelDigest) external view returns (bytes32);

    /// @notice Whether a node signed a digest: with its own key, or (EIP-1271) as a contract that says so with at
    /// most 500,000 gas.
    function isSignedBy(address node, bytes32 digest, bytes calldata signature) external view returns (bool);

    /// @notice Whether a leaf stands at an index of an RFC 6962 tree (RFC 9162, section 2.1.3.2).
    function isIncluded(
        bytes32 root,
        uint256 size,
        uint256 index,
        bytes calldata leaf,
        bytes32[] calldata path
    ) external pure returns (bool);
}
