"""What a node does next in a round: one table over the ledger's phase and the journal's stage.

Rules:

1. While a round is open, the node trains once, encrypts once and commits once. What it has committed to, it
   uploads until the round is sealed.
2. What is not uploaded when the round is sealed is missed. From the published sum on, every node verifies,
   decrypts and applies, contributor or not.
3. Attesting comes after applying; the attested model is never another than the applied one.
4. A refused sum stays refused; a later round that builds on it makes the node look at it once more.
5. A failed round leaves nothing to do: the next one starts from the same base model.
6. What cannot wait is not here but with the watchtower: claims, objections, attestations pressed home,
   ends that nobody makes.
"""

from __future__ import annotations

from enum import Enum, auto

from fedproof.ledger.events import Phase
from fedproof_node.journal import Stage


class Step(Enum):
    """One thing to do in a round."""

    CONTRIBUTE = auto()
    COMMIT = auto()
    UPLOAD = auto()
    MISS = auto()
    WAIT = auto()
    CONCLUDE = auto()
    ATTEST = auto()
    FINISH = auto()


# Rows are the journal's stages, columns the ledger's phases.
_COLUMNS = (Phase.OPEN, Phase.SEALED, Phase.AGGREGATED, Phase.PROPOSED, Phase.FINALISED, Phase.FAILED)
_ROWS: dict[Stage, tuple[Step, Step, Step, Step, Step, Step]] = {
    Stage.STARTED: (Step.CONTRIBUTE, Step.MISS, Step.MISS, Step.MISS, Step.MISS, Step.FINISH),
    Stage.ENCRYPTED: (Step.COMMIT, Step.MISS, Step.MISS, Step.MISS, Step.MISS, Step.FINISH),
    Stage.COMMITTED: (Step.UPLOAD, Step.MISS, Step.MISS, Step.MISS, Step.MISS, Step.FINISH),
    Stage.UPLOADED: (Step.WAIT, Step.WAIT, Step.CONCLUDE, Step.CONCLUDE, Step.CONCLUDE, Step.FINISH),
    Stage.SKIPPED: (Step.WAIT, Step.WAIT, Step.CONCLUDE, Step.CONCLUDE, Step.CONCLUDE, Step.FINISH),
    Stage.REFUSED: (Step.WAIT, Step.WAIT, Step.WAIT, Step.WAIT, Step.WAIT, Step.FINISH),
    Stage.APPLIED: (Step.WAIT, Step.WAIT, Step.ATTEST, Step.ATTEST, Step.ATTEST, Step.FINISH),
    Stage.ATTESTED: (Step.WAIT, Step.WAIT, Step.WAIT, Step.WAIT, Step.FINISH, Step.FINISH),
    Stage.FINISHED: (Step.WAIT, Step.WAIT, Step.WAIT, Step.WAIT, Step.WAIT, Step.WAIT),
}
STEPS: dict[tuple[Phase, Stage], Step] = {
    (phase, stage): step for stage, row in _ROWS.items() for phase, step in zip(_COLUMNS, row, strict=True)
}


def next_step(phase: Phase, stage: Stage) -> Step:
    """Return what to do in a round that stands in a phase on the ledger and at a stage in the journal."""
    return STEPS[phase, stage]
