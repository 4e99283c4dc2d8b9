"""Check 7: from round to round, clips change as the policy allows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedproof_auditor.chronicle import Chronicle, RoundRecord
from fedproof_auditor.documents import AdoptedPolicy
from fedproof_auditor.findings import Failure


def verify_clips(
    chronicle: Chronicle, policies: Mapping[int, AdoptedPolicy], clips: Mapping[int, tuple[float, ...]]
) -> Iterator[Failure]:
    """Check 7: yield, for each round, the first clip of its base model that nobody could have derived.

    docs/format.md, "Next clips". Which clip it is within these bounds follows from the decrypted sum:

    1. No clip exceeds the policy's, and none is below half of what it was, or the policy's if that is less,
       or 2^-40 of the policy's. The policy is that of the round that made the model.
    2. Where that policy's clip margin is 0, and in the genesis model, every clip is the policy's.

    Args:
        chronicle: what happened.
        policies: the documents, by version; what one that is missing allows is not known.
        clips: by round, those of its base model; none where no sound update names them.
    """
    maker: RoundRecord | None = None
    for record in sorted(chronicle.rounds.values(), key=lambda each: each.number):
        came = clips.get(record.number, ())
        adopted = policies.get(maker.opened.policy_version if maker else 1)
        # A predecessor's policies and rounds stand in its own ledger.
        is_known = maker is not None or not chronicle.has_inherited
        if came and adopted and is_known:
            codec = adopted.document.codec
            before = clips.get(maker.number, ()) if maker else ()
            if maker is None or codec.clip_margin == 0:  # 2
                lowest = (codec.clip,) * len(came)
            else:  # 1
                floor = codec.clip * 2.0**-40
                lowest = tuple(min(codec.clip, each, max(each / 2, floor)) for each in before)
                lowest = lowest or (0.0,) * len(came)
            yield from _compare(came, lowest, codec.clip, round_number=record.number)
        if record.finalised:
            maker = record


def _compare(
    clips: tuple[float, ...], lowest: tuple[float, ...], highest: float, *, round_number: int
) -> Iterator[Failure]:
    if len(clips) != len(lowest):
        what, expected, got = "number of the base model's clips", str(len(lowest)), str(len(clips))
        yield Failure(check=7, round=round_number, field=what, expected=expected, got=got)
        return
    for group, (clip, low) in enumerate(zip(clips, lowest, strict=True)):
        if not low <= clip <= highest:
            what = f"base model's clip {group}"
            expected = f"{low} to {highest}" if low < highest else str(highest)
            yield Failure(check=7, round=round_number, field=what, expected=expected, got=str(clip))
            return
