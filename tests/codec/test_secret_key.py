"""Tests of the secret key: it works, and it does not show."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

from fedproof.codec import CodecParameters, SecretKey
from fedproof.errors import MalformedMessage

SEED = b"0123456789abcdefghijklmnopqrstuv"


@dataclasses.dataclass(frozen=True)
class Holder:
    secret_key: SecretKey


def test_reveal_returns_what_was_wrapped() -> None:
    """A key made of revealed bytes is the same key; keys of other bytes are not."""
    key = SecretKey(SEED)
    assert key.reveal() == SEED
    assert SecretKey(key.reveal()) == key
    assert SecretKey.generate() != SecretKey.generate()
    assert key != SEED


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_of_another_size_are_refused(size: int) -> None:
    """A key has 32 bytes; the message says how many came, and none of them."""
    with pytest.raises(MalformedMessage, match=f"^secret key: expected 32 bytes, got {size}$"):
        SecretKey(bytes(size))


def test_printing_hides_the_key() -> None:
    """Neither repr, str, format nor a container that holds the key prints a byte of it."""
    key = SecretKey(SEED)
    shown = [repr(key), str(key), f"{key}", repr([key]), repr(Holder(key)), str({"key": key})]
    assert all("hidden" in text and "0123" not in text and SEED.hex()[:8] not in text for text in shown)
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("attempt", [pickle.dumps, copy.copy, copy.deepcopy])
def test_pickling_and_copying_are_refused(attempt: object) -> None:
    """A key does not travel to another process or into a file by accident."""
    with pytest.raises(TypeError, match="a secret key is not pickled"):
        attempt(SecretKey(SEED))  # type: ignore[operator]
    with pytest.raises(TypeError):
        bytes(SecretKey(SEED))  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        hash(SecretKey(SEED))


def test_expanded_polynomials_are_uniform_and_bound_to_the_context(parameters: CodecParameters) -> None:
    """-1, 0 and 1 are equally likely, and another modulus gives another polynomial."""
    polynomial = SecretKey(SEED).expand(parameters)
    assert polynomial.shape == (4096,)
    counts = np.bincount(polynomial.astype(np.int64), minlength=3)
    assert np.all(np.abs(counts - 4096 / 3) < 5 * (4096 * 2 / 9) ** 0.5)
    assert np.array_equal(SecretKey(SEED).expand(parameters), polynomial)
    other = CodecParameters.plan(bits=12, max_contributors=64)
    assert not np.array_equal(SecretKey(SEED).expand(other), polynomial)
    assert not np.array_equal(SecretKey(SEED[::-1]).expand(parameters), polynomial)
