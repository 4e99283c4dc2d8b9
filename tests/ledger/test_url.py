"""What of an address may be shown, and which addresses are the same."""

from __future__ import annotations

import pytest

from fedproof.ledger.url import drop_doubles, hide_secrets, name_endpoints


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("https://me:hunter2@Chain.example:443/v3/APIKEY?token=abc#d", "https://chain.example:443"),
        ("http://me@[::1]:8545/", "http://[::1]:8545"),
        ("127.0.0.1:8545/APIKEY", "[hidden]"),
        ("http:///APIKEY", "[hidden]"),
        ("http://me:hunter2@host:APIKEY", "[hidden]"),
        ("http://[hunter2", "[hidden]"),
        ("", "[hidden]"),
    ],
)
def test_only_scheme_host_and_port_are_shown(url: str, shown: str) -> None:
    """What cannot be taken apart is hidden as a whole."""
    assert hide_secrets(url) == shown


def test_endpoints_of_one_host_are_told_apart() -> None:
    """By their place among the addresses, which is no secret."""
    urls = ["https://chain.example/v3/a", "https://other.example/b", "https://chain.example/v3/c"]
    assert name_endpoints(urls) == [
        "https://chain.example (number 1)",
        "https://other.example",
        "https://chain.example (number 3)",
    ]


@pytest.mark.parametrize(
    "other",
    [
        "http://chain.example",
        "http://chain.example/",
        "HTTP://Chain.Example:80//",
        "http://chain.example.",
        "http://me:hunter2@chain.example",
        "http://chain.example#x",
    ],
)
def test_another_spelling_is_the_same_endpoint(other: str) -> None:
    """It counts once."""
    assert drop_doubles(["http://chain.example", other]) == ["http://chain.example"]


@pytest.mark.parametrize(
    "other",
    [
        "https://chain.example",
        "http://chain.example:8545",
        "http://chain.example/v3",
        "http://chain.example?key=a",
        "http://other.example",
        "http://chain.example:APIKEY",
    ],
)
def test_another_place_is_another_endpoint(other: str) -> None:
    """Both stay, in their order."""
    assert drop_doubles([other, "http://chain.example"]) == [other, "http://chain.example"]
