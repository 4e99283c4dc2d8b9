"""Tests of encryption against a reader that knows docs/format.md and nothing of SEAL."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.codec import Codec, CodecParameters, SecretKey
from fedproof.codec.bits import Words
from fedproof.codec.cipher import (
    Cipher,
    CiphertextSum,
    SumDecryptor,
    UpdateEncryptor,
    add_modular,
    scale_down,
    scale_up,
)
from fedproof.codec.seal_files import open_exchange
from fedproof.errors import ConfigurationError

# BLAKE2b's initial values (RFC 7693): the first 64 bits of the square roots' fractions.
IV = [math.isqrt(prime << 128) % 2**64 for prime in (2, 3, 5, 7, 11, 13, 17, 19)]
# The order of the message's words in each round; the last two rounds repeat the first two.
SIGMA = [
    [int(digit, 16) for digit in row]
    for row in (
        "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
        "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
        "0123456789abcdef", "ea489fd61c02b753",
    )
]  # fmt: skip
MIXES = [
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
]  # fmt: skip


def rotate(words: Words, bits: int) -> Words:
    return words >> np.uint64(bits) | words << np.uint64(64 - bits)


def hash_blake2xb(message: bytes, *, key: bytes, size: int) -> bytes:
    """Return BLAKE2Xb (the BLAKE2X paper, 2016), all its blocks of 64 bytes at once.

    The standard library hashes the root, but not the blocks: it refuses their tree depth of 0.
    """
    root = hashlib.blake2b(message, digest_size=64, key=key, node_offset=size << 32).digest()
    blocks = np.arange(size // 64, dtype=np.uint64)
    start = [np.full_like(blocks, word) for word in IV]
    start[0] = start[0] ^ np.uint64(64 | 64 << 32)  # digest size 64, key 0, fanout 0, depth 0, leaf size 64
    start[1] = start[1] ^ (blocks | np.uint64(size << 32))
    start[2] = start[2] ^ np.uint64(64 << 8)  # node depth 0, inner size 64
    words = [np.uint64(word) for word in np.frombuffer(root + bytes(64), dtype="<u8").tolist()]
    state = start + [np.full_like(blocks, word) for word in IV]
    state[12] = state[12] ^ np.uint64(64)  # bytes so far
    state[14] = ~state[14]  # the last block
    for row in SIGMA:
        for number, (a, b, c, d) in enumerate(MIXES):
            for word, (down, up) in zip(row[2 * number : 2 * number + 2], ((32, 24), (16, 63)), strict=True):
                state[a] = state[a] + state[b] + words[word]
                state[d] = rotate(state[d] ^ state[a], down)
                state[c] = state[c] + state[d]
                state[b] = rotate(state[b] ^ state[c], up)
    digest = [start[i] ^ state[i] ^ state[i + 8] for i in range(8)]
    return np.stack(digest, axis=1).astype("<u8").tobytes()


def stream_words(seed: bytes) -> Iterator[int]:
    """Yield the 64-bit words of a seed's stream."""
    counter = 0
    while True:
        buffer = hash_blake2xb(counter.to_bytes(8, "little"), key=seed, size=4096)
        yield from np.frombuffer(buffer, dtype="<u8").tolist()
        counter += 1


def expand_seed(seed: bytes, modulus: int) -> list[int]:
    """Return the second polynomial that a seed stands for."""
    words = stream_words(seed)
    largest = 2**64 - 1
    bound = largest - largest % modulus - 1
    coefficients = [next(words) for _ in range(4096)]
    for index, word in enumerate(coefficients):
        while word >= bound:
            word = next(words)  # noqa: PLW2901 (the loop is the format's)
        coefficients[index] = word % modulus
    return coefficients


def read_bits(packed: bytes, width: int) -> list[int]:
    """Return the 4,096 integers in a packed polynomial."""
    total = int.from_bytes(packed, "little")
    return [total >> (index * width) & ((1 << width) - 1) for index in range(4096)]


def multiply_by_ternary(polynomial: list[int], ternary: np.ndarray, modulus: int) -> list[int]:  # type: ignore[type-arg]
    """Return the product modulo X^4096 + 1, the ternary factor's residue 2 meaning -1."""
    low, high = (np.array([c >> shift & (1 << 30) - 1 for c in polynomial]) for shift in (0, 30))
    product = [0, 0]
    for part, coefficients in enumerate((low, high)):
        total = np.zeros(4096, dtype=np.int64)
        for degree in np.flatnonzero(ternary).tolist():
            rotated = np.concatenate([-coefficients[4096 - degree :], coefficients[: 4096 - degree]])
            total += rotated if ternary[degree] == 1 else -rotated
        product[part] = total  # type: ignore[call-overload]
    return [(int(lo) + (int(hi) << 30)) % modulus for lo, hi in zip(*product, strict=True)]  # type: ignore[arg-type]


def expand_secret(seed: bytes, context_digest: bytes) -> np.ndarray:  # type: ignore[type-arg]
    """Return the secret polynomial's residues modulo 3."""
    fields = [b"fedproof.secret-key.v1", context_digest, seed]
    encoded = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    stream = hashlib.shake_256(encoded).digest(8192)
    return np.array([octet % 3 for octet in stream if octet != 255][:4096])


@pytest.mark.parametrize("bits", [8, 15, 24])
def test_a_reader_of_the_documented_format_decrypts(bits: int, secret_key: SecretKey) -> None:
    """Seeds, bit packing, key expansion, BFV and fields, each computed anew, give back what was encrypted."""
    parameters = CodecParameters.plan(bits=bits, max_contributors=16)
    codec = Codec(parameters)
    rng = np.random.default_rng(bits)
    values = rng.integers(-parameters.limit, parameters.limit + 1, parameters.values_per_frame)
    frame = codec.encrypt_chunk(values, codec.make_encryptor(secret_key))

    modulus, width = parameters.coeff_modulus, parameters.coeff_modulus.bit_length()
    first, seed = read_bits(frame[:-64], width), frame[-64:]
    second = expand_seed(seed, modulus)
    secret = expand_secret(secret_key.reveal(), parameters.digest)
    masked = [
        (one + other) % modulus
        for one, other in zip(first, multiply_by_ternary(second, secret, modulus), strict=True)
    ]
    plain_modulus = parameters.plain_modulus
    slots = [
        (coefficient * plain_modulus * 2 + modulus) // (2 * modulus) % plain_modulus for coefficient in masked
    ]
    mask, field_bits = (1 << parameters.field_bits) - 1, parameters.field_bits
    decoded = [
        (slot >> (field * field_bits) & mask) - (1 << (bits - 1))
        for field in range(parameters.values_per_slot)
        for slot in slots
    ]
    assert decoded == values.tolist()

    both = codec.sum_chunks([frame])
    half = len(both) // 2
    assert read_bits(both[:half], width) == first
    assert read_bits(both[half:], width) == second


def test_the_noise_is_within_its_bound(parameters: CodecParameters, secret_key: SecretKey) -> None:
    """Fresh noise never exceeds 21.5, which the planner counts on, and is not absent either."""
    frames = 4
    cipher = Cipher(parameters)
    slots = np.random.default_rng(3).integers(0, parameters.plain_modulus, (frames, 4096), dtype=np.uint64)
    polynomials, seeds = UpdateEncryptor(cipher, secret_key).encrypt(slots)
    modulus, plain_modulus = parameters.coeff_modulus, parameters.plain_modulus
    secret = expand_secret(secret_key.reveal(), parameters.digest)
    doubled = []
    for first, seed, plaintext in zip(polynomials.tolist(), seeds, slots.tolist(), strict=True):
        product = multiply_by_ternary(expand_seed(seed.tobytes(), modulus), secret, modulus)
        for one, other, slot in zip(first, product, plaintext, strict=True):
            # Twice the noise times t, in integers: 2 (t (c0 + c1 s) - q m), brought to around zero.
            error = 2 * (plain_modulus * ((one + other) % modulus) - modulus * slot)
            error = (error + plain_modulus * modulus) % (
                2 * plain_modulus * modulus
            ) - plain_modulus * modulus
            doubled.append(error / (2 * plain_modulus))
    assert max(abs(error) for error in doubled) <= 21.5
    assert np.std(doubled) == pytest.approx((21 / 2) ** 0.5, rel=0.05)


def test_seal_decrypts_what_we_encrypt(parameters: CodecParameters, secret_key: SecretKey) -> None:
    """A sum is a BFV ciphertext: SEAL's own decryptor returns what ours does, and what was added up."""
    cipher = Cipher(parameters)
    encryptor = UpdateEncryptor(cipher, secret_key)
    rng = np.random.default_rng(5)
    # Updates leave room for their sum in each coefficient.
    most = parameters.plain_modulus // parameters.max_contributors
    plaintexts = rng.integers(0, most, (parameters.max_contributors, 3, 4096), dtype=np.uint64)
    total = CiphertextSum(cipher)
    for plaintext in plaintexts:
        total.add(*encryptor.encrypt(plaintext))
    ciphertexts = total.result()
    expected = plaintexts.sum(axis=0)
    assert (SumDecryptor(cipher, secret_key).decrypt(ciphertexts) == expected).all()
    decryptor = seal.Decryptor(cipher.context, cipher.expand_key(secret_key))
    ciphertext, opened = seal.Ciphertext(cipher.context), seal.Plaintext()
    with open_exchange() as exchange:
        for words, slots in zip(ciphertexts, expected, strict=True):
            exchange.load(ciphertext, cipher.context, *cipher.polynomials(2).join(words))
            decryptor.decrypt(ciphertext, opened)
            came, _ = cipher.plaintext.split(exchange.save(opened))
            assert (came == slots).all()


def test_we_decrypt_what_seal_encrypts(parameters: CodecParameters, secret_key: SecretKey) -> None:
    """SEAL's own encryption of a plaintext, of any size that a chunk may have, is opened."""
    cipher = Cipher(parameters)
    encryptor = seal.Encryptor(cipher.context, cipher.expand_key(secret_key))
    slots = np.random.default_rng(6).integers(0, parameters.plain_modulus, (16, 4096), dtype=np.uint64)
    ciphertexts = np.empty((16, 2 * 4096), dtype=np.uint64)
    plaintext, ciphertext = seal.Plaintext(), seal.Ciphertext(cipher.context)
    with open_exchange() as exchange:
        for frame, coefficients in enumerate(slots):
            exchange.load(plaintext, cipher.context, *cipher.plaintext.join(coefficients))
            encryptor.encrypt_symmetric(plaintext, ciphertext)
            ciphertexts[frame], _ = cipher.polynomials(2).split(exchange.save(ciphertext))
    decryptor = SumDecryptor(cipher, secret_key)
    for frames in (1, 2, 16):
        assert (decryptor.decrypt(ciphertexts[:frames]) == slots[:frames]).all()


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(8, 24), st.integers(2, 1000), st.data())
def test_scaling_is_exact(bits: int, contributors: int, data: st.DataObject) -> None:
    """Up, down and modulo q, every result is that of big integers, at any size of q and t."""
    parameters = CodecParameters.plan(bits=bits, max_contributors=contributors)
    q, t = parameters.coeff_modulus, parameters.plain_modulus
    # The last number before a multiple of q / t is halfway to be rounded up, and the like.
    edges = st.builds(
        lambda m, part, off: (m * q * 2 + part * q) // (2 * t) + off,
        st.integers(0, t - 1), st.integers(0, 1), st.integers(-2, 2),
    ).filter(lambda p: 0 <= p < q)  # fmt: skip
    masked = data.draw(st.lists(st.one_of(st.integers(0, q - 1), edges), min_size=1, max_size=20))
    words = np.array(masked, dtype=np.uint64)
    assert scale_down(words, parameters).tolist() == [(2 * t * p + q) // (2 * q) % t for p in masked]
    assert add_modular(words, words[::-1], parameters).tolist() == [
        (one + other) % q for one, other in zip(masked, reversed(masked), strict=True)
    ]
    plaintexts = data.draw(st.lists(st.integers(0, t - 1), min_size=1, max_size=20))
    scaled = scale_up(np.array(plaintexts, dtype=np.uint64), parameters).tolist()
    for came, m in zip(scaled, plaintexts, strict=True):
        # Twice the distance from q m / t, times t.
        assert abs(2 * (came * t - q * m)) <= t + t // 2**30
        assert 0 <= came < q


def test_parameters_that_seal_refuses_name_the_reason(parameters: CodecParameters) -> None:
    """A modulus that is no prime for this ring is refused with SEAL's own reason."""
    other = dataclasses.replace(parameters, coeff_modulus=parameters.coeff_modulus + 2)
    with pytest.raises(ConfigurationError, match=rf"SEAL accepts, got q = {other.coeff_modulus}: \w+"):
        Cipher(other)
