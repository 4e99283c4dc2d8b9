"""One federation's codec, shared by the tests: no test changes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fedproof.codec import Codec, CodecParameters, SecretKey
from fedproof.codec.cipher import SumDecryptor, UpdateEncryptor
from fedproof.codec.workers import CodecWorkers


@pytest.fixture(scope="session")
def parameters() -> CodecParameters:
    """15 bits and 64 contributors: two values a slot."""
    return CodecParameters.plan(bits=15, max_contributors=64)


@pytest.fixture(scope="session")
def codec(parameters: CodecParameters) -> Codec:
    return Codec(parameters)


@pytest.fixture(scope="session")
def secret_key() -> SecretKey:
    return SecretKey(bytes(range(32)))


@pytest.fixture(scope="session")
def encryptor(codec: Codec, secret_key: SecretKey) -> UpdateEncryptor:
    return codec.make_encryptor(secret_key)


@pytest.fixture(scope="session")
def decryptor(codec: Codec, secret_key: SecretKey) -> SumDecryptor:
    return codec.make_decryptor(secret_key)


@pytest.fixture(scope="module")
def workers(parameters: CodecParameters, secret_key: SecretKey) -> Iterator[CodecWorkers]:
    """Two processes that a test may kill: they come back."""
    with CodecWorkers(parameters, processes=2, secret_key=secret_key) as started:
        yield started
