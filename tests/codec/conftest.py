"""One federation's codec, shared by the tests: no test changes it."""

from __future__ import annotations

import pytest

from fedproof.codec import Codec, CodecParameters, SecretKey


@pytest.fixture(scope="session")
def parameters() -> CodecParameters:
    """15 bits and 64 contributors: two values a slot."""
    return CodecParameters.plan(bits=15, max_contributors=64, clip=0.25, max_examples=1000)


@pytest.fixture(scope="session")
def codec(parameters: CodecParameters) -> Codec:
    return Codec(parameters)


@pytest.fixture(scope="session")
def secret_key() -> SecretKey:
    return SecretKey(bytes(range(32)))
