// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Quorum} from "./Quorum.sol";

/// @title One aggregate signature over BLS12-381, checked with the precompiles of EIP-2537
/// @notice The scheme with proofs of possession (draft-irtf-cfrg-bls-signature, section 3.3), which `register` takes as
/// checked: without them one key could cancel another.
/// @dev A point is as EIP-2537 encodes it: 4 words in G1, 8 in G2. In storage its padding is left out: 3 words, 6 in G2.
abstract contract Bls is Quorum {
    uint256 private constant PAIR_WORDS = 12;
    uint256 private constant P_HIGH = 0x1a0111ea397fe69a4b1ba7b6434bacd7;
    uint256 private constant P_LOW = 0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab;
    uint256 private constant LOW_HALF = type(uint128).max;

    address private constant MODEXP = address(0x05);
    address private constant PAIRING_CHECK = address(0x0f);

    address private immutable KEY_ADD;
    address private immutable HASH_ADD;
    address private immutable HASH_MAP;
    uint256 private immutable KEY_WORDS;
    uint256 private immutable HASH_WORDS;
    // A pair is a point of G1 and then one of G2.
    uint256 private immutable KEY_AT;
    uint256 private immutable HASH_AT;
    bytes32 private immutable TAG_HEAD;
    bytes12 private constant TAG_TAIL = "SWU_RO_POP_+"; // after the 43 bytes of the tag its length

    mapping(address node => bytes32[6]) private _keys;
    bytes32[6] private _allKeys;

    constructor(bool keysInG1, bytes32 tagHead) {
        (KEY_ADD, HASH_ADD) = keysInG1 ? (address(0x0b), address(0x0d)) : (address(0x0d), address(0x0b));
        HASH_MAP = keysInG1 ? address(0x11) : address(0x10);
        (KEY_WORDS, HASH_WORDS) = keysInG1 ? (4, 8) : (8, 4);
        (KEY_AT, HASH_AT) = keysInG1 ? (0, 4) : (4, 0);
        TAG_HEAD = tagHead;
    }

    function register(address[] calldata nodes, bytes32[6][] calldata keys) external {
        for (uint256 i; i < nodes.length; ++i) _store(_keys[nodes[i]], keys[i]);
    }

    function setAllKeys(bytes32[6] calldata key) external {
        _store(_allKeys, key);
    }

    /// @notice All signers, ascending, have signed the same attestation; their keys are added here.
    function proveBySum(uint32 round, bytes32 modelDigest, address[] calldata signers, uint256[] calldata signature)
        external
    {
        _requireQuorum(round, signers.length);
        _checkOne(_sum(round, signers), _hashAttestation(round, modelDigest), signature);
        _record(round, modelDigest, signers.length);
    }

    /// @notice All of the cohort but the absent ones, ascending, have signed the same attestation.
    function proveByAbsence(
        uint32 round,
        bytes32 modelDigest,
        address[] calldata absent,
        uint256[] calldata signature
    ) external {
        uint256 count = _rounds[round].cohort - absent.length;
        _requireQuorum(round, count);
        uint256[] memory sum = _sum(round, absent);
        if (absent.length != 0) _negate(sum);
        _load(_allKeys, sum, KEY_WORDS);
        _run(KEY_ADD, sum, 2 * KEY_WORDS, sum, 0, KEY_WORDS);
        _checkOne(sum, _hashAttestation(round, modelDigest), signature);
        _record(round, modelDigest, count);
    }

    /// @notice Each has signed a commitment of its own; nodes ascend by address.
    function proveCommitments(uint32 round, Commitment[] calldata said, uint256[] calldata signature) external {
        _requireQuorum(round, said.length);
        uint256[] memory pairs = new uint256[](PAIR_WORDS * (said.length + 1));
        address previous;
        for (uint256 i; i < said.length; ++i) {
            address node = said[i].node;
            _requireNext(round, previous, node);
            previous = node;
            _load(_keys[node], pairs, PAIR_WORDS * i + KEY_AT);
            _hashToCurve(_hashCommitment(round, said[i]), pairs, PAIR_WORDS * i + HASH_AT);
        }
        _checkPairs(pairs, signature);
        _record(round, keccak256(abi.encode(said)), said.length);
    }

    /// @dev Writes the negated generator of the keys' group.
    function _putGenerator(uint256[] memory to, uint256 at) internal pure virtual;

    /// @dev Returns room for two points; the first is the sum.
    function _sum(uint32 round, address[] calldata nodes) private view returns (uint256[] memory sum) {
        // Zeros are the point at infinity.
        sum = new uint256[](2 * KEY_WORDS);
        address previous;
        for (uint256 i; i < nodes.length; ++i) {
            _requireNext(round, previous, nodes[i]);
            previous = nodes[i];
            _load(_keys[nodes[i]], sum, KEY_WORDS);
            _run(KEY_ADD, sum, 2 * KEY_WORDS, sum, 0, KEY_WORDS);
        }
    }

    /// @dev Turns the first point into (x, -y); the point at infinity stays.
    function _negate(uint256[] memory point) private view {
        for (uint256 i = KEY_WORDS / 2; i < KEY_WORDS; i += 2) {
            uint256 low = point[i + 1];
            if (low == 0 && point[i] == 0) continue;
            unchecked {
                point[i + 1] = P_LOW - low;
                point[i] = P_HIGH - point[i] - (low > P_LOW ? 1 : 0);
            }
        }
    }

    function _checkOne(uint256[] memory key, bytes32 digest, uint256[] calldata signature) private view {
        uint256[] memory pairs = new uint256[](2 * PAIR_WORDS);
        for (uint256 i; i < KEY_WORDS; ++i) pairs[KEY_AT + i] = key[i];
        _hashToCurve(digest, pairs, HASH_AT);
        _checkPairs(pairs, signature);
    }

    /// @dev e(key, hash) ... e(-generator, signature) == 1; writes the last pair. The precompile checks the subgroups.
    function _checkPairs(uint256[] memory pairs, uint256[] calldata signature) private view {
        if (signature.length != HASH_WORDS) revert WrongSignature();
        uint256 last = pairs.length - PAIR_WORDS;
        _putGenerator(pairs, last + KEY_AT);
        for (uint256 i; i < HASH_WORDS; ++i) pairs[last + HASH_AT + i] = signature[i];
        uint256[] memory holds = new uint256[](1);
        _run(PAIRING_CHECK, pairs, pairs.length, holds, 0, 1);
        if (holds[0] != 1) revert WrongSignature();
    }

    /// @dev RFC 9380, section 3, suites BLS12381G1_XMD:SHA-256_SSWU_RO_ and BLS12381G2_XMD:SHA-256_SSWU_RO_.
    function _hashToCurve(bytes32 message, uint256[] memory to, uint256 at) private view {
        uint256[] memory elements = _hashToField(message);
        uint256[] memory points = new uint256[](2 * HASH_WORDS);
        uint256[] memory element = new uint256[](HASH_WORDS / 2);
        for (uint256 half; half < 2; ++half) {
            for (uint256 i; i < element.length; ++i) element[i] = elements[half * element.length + i];
            _run(HASH_MAP, element, element.length, points, half * HASH_WORDS, HASH_WORDS);
        }
        _run(HASH_ADD, points, 2 * HASH_WORDS, to, at, HASH_WORDS);
    }

    /// @dev Sections 5.2 and 5.3.1: 64 bytes for each coordinate of two elements, modulo p.
    function _hashToField(bytes32 message) private view returns (uint256[] memory elements) {
        elements = new uint256[](HASH_WORDS);
        bytes memory tag = abi.encodePacked(TAG_HEAD, TAG_TAIL);
        bytes32 first = sha256(
            abi.encodePacked(bytes32(0), bytes32(0), message, uint16(32 * HASH_WORDS), uint8(0), tag)
        );
        bytes32 block_;
        for (uint256 i; i < HASH_WORDS; ++i) {
            block_ = sha256(abi.encodePacked(first ^ block_, uint8(i + 1), tag));
            elements[i] = uint256(block_);
        }
        uint256[] memory power = new uint256[](8);
        (power[0], power[1], power[2]) = (64, 32, 64);
        (power[5], power[6], power[7]) = (1, P_HIGH, P_LOW);
        for (uint256 i; i < HASH_WORDS; i += 2) {
            (power[3], power[4]) = (elements[i], elements[i + 1]);
            _run(MODEXP, power, 8, elements, i, 2);
        }
    }

    function _store(bytes32[6] storage to, bytes32[6] calldata key) private {
        for (uint256 i; i < _storedWords(); ++i) to[i] = key[i];
    }

    /// @dev Three stored words are two elements of 48 bytes.
    function _load(bytes32[6] storage key, uint256[] memory to, uint256 at) private view {
        for (uint256 i; i < _storedWords(); i += 3) {
            (uint256 a, uint256 b, uint256 c) = (uint256(key[i]), uint256(key[i + 1]), uint256(key[i + 2]));
            (to[at], to[at + 1]) = (a >> 128, a << 128 | b >> 128);
            (to[at + 2], to[at + 3]) = (b & LOW_HALF, c);
            at += 4;
        }
    }

    function _storedWords() private view returns (uint256) {
        return KEY_WORDS * 3 / 4;
    }

    /// @dev The only assembly: without it every call to a precompile would copy its input and its output, and the
    /// ledger's figures would be compared with a handicap. Sizes are in words.
    function _run(
        address precompile,
        uint256[] memory input,
        uint256 inputSize,
        uint256[] memory output,
        uint256 at,
        uint256 outputSize
    ) private view {
        bool done;
        assembly ("memory-safe") {
            done :=
                staticcall(
                    gas(),
                    precompile,
                    add(input, 32),
                    mul(inputSize, 32),
                    add(output, mul(add(at, 1), 32)),
                    mul(outputSize, 32)
                )
        }
        if (!done) revert WrongSignature();
    }
}

/// @title Keys in G1 and signatures in G2, as on Ethereum's beacon chain
contract BlsMinPk is Bls(true, "BLS_SIG_BLS12381G2_XMD:SHA-256_S") {
    function _putGenerator(uint256[] memory to, uint256 at) internal pure override {
        to[at] = 0x17f1d3a73197d7942695638c4fa9ac0f;
        to[at + 1] = 0xc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb;
        to[at + 2] = 0x114d1d6855d545a8aa7d76c8cf2e21f2;
        to[at + 3] = 0x67816aef1db507c96655b9d5caac42364e6f38ba0ecb751bad54dcd6b939c2ca;
    }
}

/// @title Keys in G2 and signatures in G1
contract BlsMinSig is Bls(false, "BLS_SIG_BLS12381G1_XMD:SHA-256_S") {
    function _putGenerator(uint256[] memory to, uint256 at) internal pure override {
        to[at] = 0x024aa2b2f08f0a91260805272dc51051;
        to[at + 1] = 0xc6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8;
        to[at + 2] = 0x13e02b6052719f607dacd3a088274f65;
        to[at + 3] = 0x596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e;
        to[at + 4] = 0x0d1b3cc2c7027888be51d9ef691d77bc;
        to[at + 5] = 0xb679afda66c73f17f9ee3837a55024f78c71363275a75d75d86bab79f74782aa;
        to[at + 6] = 0x13fa4d4a0ad8b1ce186ed5061789213d;
        to[at + 7] = 0x993923066dddaf1040bc3ff59f825c78df74f2d75467e25e0f55f8a00fa030ed;
    }
}
