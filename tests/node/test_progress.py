"""The table of what comes next has an answer everywhere, and the answers keep the rules."""

from __future__ import annotations

import pytest
from fedproof_node.journal import TRANSITIONS, Stage
from fedproof_node.progress import STEPS, Step, next_step

from fedproof.ledger.events import Phase

# A retired ledger's last round stays what it was.
PHASES = [phase for phase in Phase if phase not in (Phase.NONE, Phase.RETIRED)]

# Where each step may leave the journal, when nothing goes wrong and when something does.
LEAVES = {
    Step.CONTRIBUTE: {Stage.ENCRYPTED, Stage.SKIPPED},
    Step.COMMIT: {Stage.COMMITTED, Stage.SKIPPED},
    Step.UPLOAD: {Stage.UPLOADED, Stage.SKIPPED},
    Step.MISS: {Stage.SKIPPED},
    Step.CONCLUDE: {Stage.APPLIED, Stage.REFUSED, Stage.FINISHED},
    Step.ATTEST: {Stage.ATTESTED, Stage.REFUSED},
    Step.FINISH: {Stage.FINISHED},
}


def test_every_phase_and_stage_has_a_step() -> None:
    """No combination that a restart could find is missing."""
    assert set(STEPS) == {(phase, stage) for phase in PHASES for stage in Stage}


def test_every_step_is_one_that_the_journal_takes() -> None:
    """Whatever a step leads to, the journal's table allows it."""
    for (_, stage), step in STEPS.items():
        if step is not Step.WAIT:
            assert LEAVES[step] <= TRANSITIONS[stage], (stage, step)


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.FINISHED])
def test_a_failed_round_is_always_finished(stage: Stage) -> None:
    """A round that failed on the ledger leaves nothing open in the journal."""
    assert next_step(Phase.FAILED, stage) is Step.FINISH


def test_nothing_is_sent_once_the_round_is_sealed() -> None:
    """Training, committing and uploading happen in open rounds only."""
    sending = {Step.CONTRIBUTE, Step.COMMIT, Step.UPLOAD}
    assert {phase for (phase, _), step in STEPS.items() if step in sending} == {Phase.OPEN}


def test_nothing_is_attested_that_was_not_applied() -> None:
    """Attesting follows APPLIED alone, and decrypting never follows a refusal."""
    assert {stage for (_, stage), step in STEPS.items() if step is Step.ATTEST} == {Stage.APPLIED}
    assert Stage.REFUSED not in {stage for (_, stage), step in STEPS.items() if step is Step.CONCLUDE}
