"""Whatever is cut short is refused, wherever the cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedproof.errors import ConfigurationError, FedproofError, MalformedMessage
from fedproof.manifest import AggregateManifest, UpdateManifest
from fedproof.model import ModelLayout
from fedproof.policy import Policy
from tests.fuzz.keys import INFO, KEY, SECRET
from tests.fuzz.samples import AGGREGATE, LAYOUT, POLICY, UPDATE
from tests.hostile import chunk_kinds, file_kinds, key_kinds

STRUCTURES: dict[str, tuple[Callable[[], bytes], Callable[[bytes], object], type[FedproofError]]] = {
    "update_manifest": (UPDATE.encode, UpdateManifest.parse, MalformedMessage),
    "aggregate_manifest": (AGGREGATE.encode, AggregateManifest.parse, MalformedMessage),
    "policy": (POLICY.canonical, Policy.parse, MalformedMessage),
    "model_file": (file_kinds.model_file, file_kinds.parse_model, MalformedMessage),
    "wrapping_key": (file_kinds.wrapping_key_file, file_kinds.parse_wrapping_key, ConfigurationError),
    "wrapped_key": (key_kinds.wrapped, key_kinds.unwrap, MalformedMessage),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_prefix_is_refused(name: str) -> None:
    """A structure is taken whole, and no cut of it is, byte by byte."""
    make, parse, error = STRUCTURES[name]
    raw = make()
    parse(raw)
    for end in range(len(raw)):
        with pytest.raises(error):
            parse(raw[:end])


def test_every_prefix_of_a_layout_is_refused_or_shorter() -> None:
    """A layout may end after any tensor, since it does not say how many there are; its digest does."""
    raw = LAYOUT.encode()
    whole = 0
    for end in range(len(raw)):
        try:
            shorter = ModelLayout.parse(raw[:end])
        except MalformedMessage:
            continue
        whole += 1
        assert shorter.tensors == LAYOUT.tensors[:whole]
        assert shorter.digest != LAYOUT.digest
    assert whole == len(LAYOUT.tensors) - 1


def test_no_prefix_of_a_chunk_is_taken() -> None:
    """Neither of an update's nor of a sum's: at the first and last bytes, and about each limit of a frame."""
    for raw, parse, frame in (
        (chunk_kinds.update_chunk(), chunk_kinds.parse_update, chunk_kinds.FRAME),
        (chunk_kinds.sum_chunk(), chunk_kinds.parse_sum, chunk_kinds.SUM_FRAME),
    ):
        parse(raw)
        limits = [limit for start in range(0, len(raw) + 1, frame) for limit in (start, start - 64)]
        ends = {limit + near for limit in limits for near in range(-70, 71)}
        for end in sorted(ends & set(range(len(raw)))):
            with pytest.raises(MalformedMessage, match=f"expected {len(raw)} bytes, got {end}$"):
                parse(raw[:end])


def test_examples_are_what_they_stand_for() -> None:
    """What the tests spoil is good before they do."""
    assert UpdateManifest.parse(UPDATE.encode()) == UPDATE
    assert AggregateManifest.parse(AGGREGATE.encode()) == AGGREGATE
    assert Policy.parse(POLICY.canonical()) == POLICY
    assert ModelLayout.parse(LAYOUT.encode()) == LAYOUT
    assert KEY.unwrap(key_kinds.wrapped(), info=INFO) == SECRET
