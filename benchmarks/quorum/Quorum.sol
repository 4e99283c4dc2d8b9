// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title What each way of proving a quorum shares, cut down from `Federation.sol`
/// @notice Every proof reads its round's slot, extends the running hash and emits one event.
abstract contract Quorum {
    enum Phase {
        None,
        Open,
        Failed
    }

    /// @param count How many leaves the anchored batch has; the optimistic way alone writes it.
    struct Round {
        Phase phase;
        uint16 cohort;
        uint16 quorum;
        uint16 count;
        uint40 deadline;
    }

    struct Member {
        bool admitted;
        uint32 firstRound;
    }

    struct Signature {
        bytes32 r;
        bytes32 vs;
    }

    /// @notice What a node says of its update.
    struct Commitment {
        address node;
        bytes32 updateRoot;
        uint32 examples;
    }

    event Proven(uint32 indexed round, bytes32 digest, uint256 count);

    error WrongPhase(uint32 round, Phase actual);
    error CountOutOfRange(uint256 count, uint256 minimum, uint256 maximum);
    error NotInCohort(uint32 round, address node);
    error NotAscending(address previous, address next);
    error WrongSignature();

    bytes32 internal constant ATTESTATION = keccak256("Attestation(uint32 round,bytes32 modelDigest)");
    bytes32 internal constant COMMITMENT =
        keccak256("Commitment(uint32 round,address node,bytes32 updateRoot,uint32 examples)");
    /// @dev Half the order of secp256k1, rounded down: of the two signatures s and -s only the lower counts (EIP-2).
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    bytes32 private immutable DOMAIN = keccak256(
        abi.encode(
            keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
            keccak256("Quorum"),
            keccak256("1"),
            block.chainid,
            address(this)
        )
    );

    bytes32 public historyHash = keccak256("history");
    mapping(address node => Member) internal _members;
    mapping(uint32 number => Round) internal _rounds;

    function admit(address[] calldata nodes) external {
        for (uint256 i; i < nodes.length; ++i) {
            _members[nodes[i]] = Member({admitted: true, firstRound: 1});
        }
    }

    function open(uint32 round, uint16 cohort, uint16 quorum) external {
        _rounds[round] = Round({phase: Phase.Open, cohort: cohort, quorum: quorum, count: 0, deadline: 0});
    }

    function _requireQuorum(uint32 round, uint256 count) internal view {
        Round memory current = _rounds[round];
        if (current.phase != Phase.Open) revert WrongPhase(round, current.phase);
        if (count < current.quorum || count > current.cohort) {
            revert CountOutOfRange(count, current.quorum, current.cohort);
        }
    }

    function _requireInCohort(uint32 round, address node) internal view {
        Member memory member = _members[node];
        if (!member.admitted || member.firstRound > round) revert NotInCohort(round, node);
    }

    /// @dev A quorum counts distinct nodes, each of the cohort.
    function _requireNext(uint32 round, address previous, address node) internal view {
        if (node <= previous) revert NotAscending(previous, node);
        _requireInCohort(round, node);
    }

    function _record(uint32 round, bytes32 digest, uint256 count) internal {
        bytes32 entry = keccak256(abi.encode(Proven.selector, round, digest, count));
        historyHash = keccak256(abi.encode(historyHash, entry));
        emit Proven(round, digest, count);
    }

    function _hashAttestation(uint32 round, bytes32 modelDigest) internal view returns (bytes32) {
        return _hashTyped(keccak256(abi.encode(ATTESTATION, round, modelDigest)));
    }

    function _hashCommitment(uint32 round, Commitment calldata said) internal view returns (bytes32) {
        return _hashTyped(keccak256(abi.encode(COMMITMENT, round, said.node, said.updateRoot, said.examples)));
    }

    function _hashTyped(bytes32 structHash) private view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", DOMAIN, structHash));
    }

    /// @dev EIP-2098; the zero address for a malformed signature.
    function _recover(bytes32 digest, Signature calldata signature) internal pure returns (address) {
        uint256 vs = uint256(signature.vs);
        uint256 s = vs & type(uint256).max >> 1;
        if (s > HALF_ORDER) return address(0);
        return ecrecover(digest, uint8(27 + (vs >> 255)), signature.r, bytes32(s));
    }
}
