"""Which clips may follow which, under one policy and from one policy to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from fedproof_auditor.chronicle import Chronicle
from fedproof_auditor.clips import verify_clips
from fedproof_auditor.documents import AdoptedPolicy

from fedproof.ledger.events import Succeeded
from tests.auditor.world import World, make_digest

Clips = Mapping[int, tuple[float, ...]]


@pytest.fixture(scope="module")
def chronicle(world: World) -> Chronicle:
    """Three finalised rounds and one that failed; the second and what follows are under another policy."""
    chronicle = world.audit().chronicle
    for number, record in chronicle.rounds.items():
        if number > 1:
            record.opened = replace(record.opened, policy_version=2)
    return chronicle


def find_failures(world: World, chronicle: Chronicle, clips: Clips, **second: float) -> list[tuple[int, str]]:
    """Return the round and the expectation of each failure; the first policy's clip is 0.5, its margin 4."""
    policies = {
        version: AdoptedPolicy(replace(world.policy, codec=codec), world.policy.codec_parameters())
        for version, codec in ((1, world.policy.codec), (2, replace(world.policy.codec, **second)))  # type: ignore[arg-type]
    }
    failures = verify_clips(chronicle, policies, clips)
    return [(failure.round or 0, failure.expected) for failure in failures]


@pytest.mark.parametrize(
    ("clips", "second", "failures"),
    [
        # The genesis model's are the first policy's clip.
        ({1: (0.5, 0.5)}, {"clip": 0.1}, []),
        ({1: (0.5, 0.4)}, {"clip": 0.4}, [(1, "0.5")]),
        # A new policy's settings take effect with the model that its first round makes.
        ({1: (0.5,), 2: (0.25,), 3: (0.125,)}, {"clip": 0.2}, []),
        ({1: (0.5,), 2: (0.25,), 3: (0.21,)}, {"clip": 0.2}, [(3, "0.125 to 0.2")]),
        ({2: (0.5,), 3: (0.1,)}, {"clip": 0.1}, []),
        ({2: (0.5,), 3: (0.09,)}, {"clip": 0.1}, [(3, "0.1")]),
        ({2: (0.5,), 3: (2.0,)}, {"clip": 2.0}, []),
        # Without a margin every clip is the policy's.
        ({2: (0.3,), 3: (0.5,)}, {"clip_margin": 0.0}, []),
        ({2: (0.5,), 3: (0.3,)}, {"clip_margin": 0.0}, [(3, "0.5")]),
        # What a round that failed was clipped to leaves no trace; of one that is not known, nothing follows.
        ({3: (0.1,), 4: (0.05,)}, {}, []),
        ({3: (0.1,), 4: (0.04,)}, {}, [(4, "0.05 to 0.5")]),
        ({4: (0.6,)}, {}, [(4, "0.0 to 0.5")]),
        ({2: (0.5, 0.5), 4: (0.01, 0.01)}, {}, []),
    ],
)
def test_clips_follow_from_those_before(
    world: World,
    chronicle: Chronicle,
    clips: Clips,
    second: dict[str, float],
    failures: list[tuple[int, str]],
) -> None:
    """They stay within the policy of the round that made them, and at most halve."""
    assert find_failures(world, chronicle, clips, **second) == failures


def test_a_missing_policy_allows_nothing_to_be_told(world: World, chronicle: Chronicle) -> None:
    """Without the document there is no failure here; check 3 has one."""
    assert list(verify_clips(chronicle, {}, {1: (9.0,)})) == []


def test_a_successors_first_clips_are_not_known(world: World, chronicle: Chronicle) -> None:
    """What the predecessor's head may be clipped to stands in its ledger; what follows is bound by it."""
    succeeded = Succeeded(
        predecessor=world.evidence.contract,
        history_hash=make_digest("end"),
        head_model=make_digest("head"),
        privacy_spent=0,
        block_number=0,
        transaction_hash=make_digest("deployment"),
        log_index=2,
    )
    inherited = replace(chronicle, succeeded=succeeded)
    assert find_failures(world, inherited, {1: (0.1,), 2: (0.05,)}) == []
    assert find_failures(world, inherited, {1: (0.1,), 2: (0.04,)}) == [(2, "0.05 to 0.5")]
