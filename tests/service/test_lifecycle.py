"""The transition table, walked."""

from __future__ import annotations

import pytest

from api_schemas.views import Phase
from service.lifecycle import ACTIVE, TRANSITIONS, Happening, follow

LIVING = [phase for phase in Phase if not phase.is_terminal]


def reachable(start: Phase) -> set[Phase]:
    seen, new = {start}, {start}
    while new:
        new = {phase for known in new for phase in TRANSITIONS.get(known, {}).values()} - seen
        seen |= new
    return seen


def test_every_phase_can_be_reached_from_queued() -> None:
    assert reachable(Phase.QUEUED) == set(Phase)


def test_every_happening_matters_somewhere() -> None:
    assert {happening for moves in TRANSITIONS.values() for happening in moves} == set(Happening)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.is_terminal])
@pytest.mark.parametrize("happening", Happening)
def test_nothing_follows_an_end(phase: Phase, happening: Happening) -> None:
    assert follow(phase, happening) is None


@pytest.mark.parametrize("phase", LIVING)
@pytest.mark.parametrize(
    ("happening", "end"),
    [
        (Happening.SUCCEEDED, Phase.SUCCEEDED),
        (Happening.FAILED, Phase.FAILED),
        (Happening.CANCELLED, Phase.CANCELLED),
    ],
)
def test_every_living_job_can_end(phase: Phase, happening: Happening, end: Phase) -> None:
    assert follow(phase, happening) is end


@pytest.mark.parametrize("phase", LIVING)
def test_a_cancelled_job_never_trains_again(phase: Phase) -> None:
    after = follow(phase, Happening.CANCEL_REQUESTED) or phase
    assert reachable(after) <= {Phase.CANCELLING, Phase.CANCELLED, Phase.SUCCEEDED, Phase.FAILED}


@pytest.mark.parametrize("phase", ACTIVE)
def test_an_active_job_survives_every_loss(phase: Phase) -> None:
    assert follow(phase, Happening.RANK_LOST) is Phase.RECOVERING
    assert follow(phase, Happening.CONTROLLER_LOST) is Phase.RECOVERING
    assert follow(phase, Happening.PARKED) is Phase.QUEUED
    assert follow(phase, Happening.PAUSED) is Phase.QUEUED  # without a request: its cluster stops
    assert follow(Phase.RECOVERING, Happening.RESIZED) is Phase.RUNNING


def test_the_usual_life() -> None:
    phase = Phase.QUEUED
    lived = [phase]
    for happening in (
        Happening.LAUNCHED,
        Happening.STARTED,
        Happening.RESIZE_BEGAN,
        Happening.RESIZED,
        Happening.SUCCEEDED,
    ):
        phase = follow(phase, happening) or pytest.fail(f"{happening} does nothing in {phase}")
        lived.append(phase)
    assert lived == ["queued", "starting", "running", "resizing", "running", "succeeded"]
