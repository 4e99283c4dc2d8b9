// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title The ledger of one federation
/// @notice Records who may take part, what each node committed to in each round, and what came out.
/// @dev Every event below also enters `historyHash`: an auditor who replays the events and reaches another
/// hash knows that at least one is missing, altered or out of order.
interface IFederation {
    /// @notice Where a node stands. Only `Admitted` nodes commit and attest.
    enum MemberStatus {
        None,
        Applied,
        Admitted,
        Suspended
    }

    /// @notice Where a round stands. `Finalised` and `Failed` are final.
    enum Phase {
        None,
        Open,
        Sealed,
        Aggregated,
        Finalised,
        Failed
    }

    /// @notice What is enforced on chain of a policy document, and the digest of the whole of it.
    /// @param digest SHA-256 of the policy document's canonical bytes.
    /// @param minContributors Fewest contributors that a round may be sealed with.
    /// @param attestationQuorum Equal attestations that finalise a round.
    /// @param maxExamples Largest example count that a commitment may carry.
    /// @param commitWindow Seconds from the opening to the commitment deadline.
    /// @param aggregateWindow Seconds from the sealing to the deadline for the aggregate. Also the overdue window: the
    /// seconds after the deadline of any phase in which still only the aggregator may fail the round.
    /// @param attestWindow Seconds from the aggregate to the deadline for attestations.
    struct Policy {
        bytes32 digest;
        uint16 minContributors;
        uint16 attestationQuorum;
        uint32 maxExamples;
        uint32 commitWindow;
        uint32 aggregateWindow;
        uint32 attestWindow;
    }

    /// @notice A node's standing and the rounds that it takes part in.
    /// @param firstRound First round whose cohort the node belongs to, counted from its last admission.
    /// @param lastCommitted Last round that it committed in, or 0.
    /// @param lastAttested Last round that it attested in, or 0.
    struct Member {
        MemberStatus status;
        uint32 firstRound;
        uint32 lastCommitted;
        uint32 lastAttested;
    }

    /// @notice A round's standing.
    /// @param cohort How many nodes were admitted when the round opened. Nobody joins a cohort afterwards, so at most
    /// `cohort` nodes ever attest, and one digest at most can gather more than half of them.
    /// @param deadline Unix time after which the phase is overdue: commitments are refused, and an overdue window later
    /// (`Policy.aggregateWindow` of the round's own policy) anyone may fail the round.
    struct Round {
        Phase phase;
        uint16 minContributors;
        uint16 attestationQuorum;
        uint16 cohort;
        uint32 maxExamples;
        uint32 policyVersion;
        uint32 epoch;
        uint40 deadline;
    }

    // Membership

    /// @notice A node asked to take part, naming the SHA-256 digests of its public keys.
    event MemberApplied(address indexed node, bytes32 wrappingKeyDigest, bytes32 certificateDigest);
    /// @notice A node became a member of every cohort from `firstRound` on.
    event MemberAdmitted(address indexed node, uint32 firstRound);
    event MemberSuspended(address indexed node);

    // Policy and keys

    event PolicyAdopted(uint32 indexed version, Policy policy, bytes32 headModel);
    /// @notice The admin named the node that makes the secret key of the next epoch.
    event EpochRequested(uint32 indexed epoch, address indexed keyMaker);
    /// @notice The key maker published the digest of the encryption context and the root of the wrapped keys.
    event EpochPublished(uint32 indexed epoch, bytes32 contextDigest, bytes32 wrappedKeysRoot);

    // Rounds

    event RoundOpened(uint32 indexed round, uint32 policyVersion, uint32 epoch, bytes32 baseModel, uint40 deadline);
    /// @notice A node bound itself to one encrypted update: the RFC 6962 root over its manifest and chunks.
    event UpdateCommitted(uint32 indexed round, address indexed node, bytes32 updateRoot, uint32 examples);
    /// @notice The contributors became final, ascending by address. `excluded` committed, but do not count.
    event RoundSealed(uint32 indexed round, address[] contributors, address[] excluded, uint8[] reasons, uint40 deadline);
    event AggregatePublished(uint32 indexed round, bytes32 aggregateRoot, uint40 deadline);
    event ModelAttested(uint32 indexed round, address indexed node, bytes32 modelDigest);
    event RoundFinalised(uint32 indexed round, bytes32 modelDigest, uint16 attestations);
    event RoundFailed(uint32 indexed round, Phase phase, uint8 reason);

    error NotAdmitted(address node, MemberStatus status);
    error WrongStatus(address node, MemberStatus expected, MemberStatus actual);
    error NotInCohort(uint32 round, address node, uint32 firstRound);
    error InvalidPolicy();
    error NoPolicy();
    error NotKeyMaker(uint32 epoch, address keyMaker, address caller);
    error WrongEpoch(uint32 expected, uint32 actual);
    error NoEpoch();
    error WrongRound(uint32 expected, uint32 actual);
    error WrongPhase(uint32 round, Phase actual);
    error DeadlinePassed(uint32 round, uint40 deadline, uint40 time);
    /// @notice `deadline` has to have passed first. For `fail` that is the phase's deadline plus the overdue window.
    error DeadlineNotReached(uint32 round, uint40 deadline, uint40 time);
    error AlreadyCommitted(uint32 round, address node);
    error AlreadyAttested(uint32 round, address node);
    error NotCommitted(uint32 round, address node);
    error NotAscending(address previous, address next);
    error ContributorExcluded(uint32 round, address node);
    error LengthMismatch(uint256 excluded, uint256 reasons);
    error ExamplesOutOfRange(uint32 examples, uint32 maximum);
    error QuorumNotReached(uint32 round, uint256 actual, uint256 required);
    error QuorumAmbiguous(uint32 round, uint256 quorum, uint256 cohort);
    error ZeroDigest();
    error ZeroAddress();

    /// @notice Apply to take part, or (while still `Applied`) name other keys.
    function register(bytes32 wrappingKeyDigest, bytes32 certificateDigest) external;

    /// @notice Admit an applied or suspended node. Admin only. It joins the next round, never one that is under way.
    function admit(address node) external;

    /// @notice Suspend an admitted node. Admin only. Commitments it has made stand.
    function suspend(address node) external;

    /// @notice Adopt the next version of the policy; open rounds keep theirs. Admin only.
    /// @param genesisModel Digest of the first model; ignored once there is a head model.
    function adoptPolicy(Policy calldata policy, bytes32 genesisModel) external;

    /// @notice Name the admitted node that makes the next epoch's secret key. Admin only.
    function requestEpoch(address keyMaker) external;

    /// @notice Publish the next epoch. Only its key maker.
    function publishEpoch(uint32 epoch, bytes32 contextDigest, bytes32 wrappedKeysRoot) external;

    /// @notice Open a round on the head model. Aggregator only; the round before must have ended. The cohort must be
    /// able to reach both quorums, and the attestation quorum must be more than half of it.
    /// @param round The next round's number, so that a transaction sent twice does not open two.
    function openRound(uint32 round) external;

    /// @notice Commit to one encrypted update. Once per node and round, before the deadline.
    function commit(uint32 round, bytes32 updateRoot, uint32 examples) external;

    /// @notice Make the contributors final. Aggregator only. Before the deadline only if the whole cohort contributes.
    /// @param contributors Committed nodes, ascending.
    /// @param excluded Committed nodes that do not count, ascending, each with a reason code.
    function seal(
        uint32 round,
        address[] calldata contributors,
        address[] calldata excluded,
        uint8[] calldata reasons
    ) external;

    /// @notice Publish the root of the encrypted sum. Aggregator only.
    function publishAggregate(uint32 round, bytes32 aggregateRoot) external;

    /// @notice Attest the model that a node derived from the verified sum. Once per node and round; also after the finalisation.
    function attest(uint32 round, bytes32 modelDigest) external;

    /// @notice Make the attested model the head. Anyone, once the quorum is reached.
    function finalise(uint32 round, bytes32 modelDigest) external;

    /// @notice Give a round up. The aggregator at any time; anyone once the overdue window after the phase's deadline has
    /// passed. Until then nobody else ends a round that the aggregator can still seal or anyone finalise.
    function fail(uint32 round, uint8 reason) external;

    function historyHash() external view returns (bytes32);
    function headModel() external view returns (bytes32);
    function currentRound() external view returns (uint32);
    function currentEpoch() external view returns (uint32);
    function policyVersion() external view returns (uint32);
    function admittedCount() external view returns (uint16);

    /// @notice Who may publish the epoch after `currentEpoch`; zero while none is asked for.
    function keyMaker() external view returns (address);
    function member(address node) external view returns (Member memory);
    function round(uint32 number) external view returns (Round memory);
    function policy() external view returns (Policy memory);
    function attestations(uint32 round, bytes32 modelDigest) external view returns (uint16);
}
