from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from api_schemas import events
from api_schemas.board import Board
from api_schemas.views import JobView, Phase, Progress
from api_schemas.wording import describe, number
from tests.api_schemas.answers import Answers, history, job_view, losses, story

JOB, EVENTS, METRICS = (f"/v1/jobs/1k114apr40046ss7{part}" for part in ("", "/events", "/metrics"))


def at(samples: int, phase: Phase = Phase.RUNNING) -> JobView:
    return job_view(phase=phase, progress=Progress(samples=samples, total_samples=16000))


def asked(service: Answers, path: str, name: str) -> list[str | None]:
    return [request.url.params.get(name) for request in service.requests if request.url.path == path]


@pytest.fixture
def service() -> Answers:
    """A job that is seen at its start, with 10 %, 30 % and 35 % done, and at its end."""
    answers, told = Answers(), story()
    answers.add("GET", JOB, at(0), at(1600), at(4800), at(5600), at(16000, Phase.SUCCEEDED))
    answers.add("GET", EVENTS, history(*told[:2], more=True), history(told[2], start=3), history())
    answers.add("GET", EVENTS, history(told[5], start=4), history(), history(*told[7:], start=5))
    answers.add("GET", METRICS, losses((1600, 2.0)), losses((1600, 2.0), (4800, 1.0)), losses(), losses((16000, None)))
    return answers


def test_plain_output_tells_events_and_every_tenth(service: Answers) -> None:
    console = Console(file=StringIO(), width=160)
    with Board(service.client(), console) as board:
        board.add(job_view(progress=Progress()))
        board.watch(sleep=lambda _: None)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    assert [line.removeprefix("03:04:05  digits  ") for line in lines] == [
        "submitted",
        "starting: Workers start.",
        "training on 4 workers: batch 256, kappa 4",
        " 10%, loss 2, kappa 2, lr 0.2, rho 0.9801, 2 workers",
        "4 -> 2 workers, kappa 4 -> 2, lr 0.4 -> 0.2, rho 0.9606 -> 0.9801; paused 0.07 s, 0 steps lost",
        " 30%, loss 1, kappa 2, lr 0.2, rho 0.9801, 2 workers",
        "evaluation after 16000 samples: accuracy 0.9711 (EMA 0.9822)",
        "succeeded: Trained.",
        "100%, loss -, kappa 2, lr 0.2, rho 0.9801, 2 workers",
    ]


def short_of(reason: str) -> JobView:
    status = job_view().status.model_copy(update={"code": "short_of_slots", "message": reason})
    return job_view(status=status)


def test_why_a_job_is_smaller_than_asked_for_is_told_when_it_changes() -> None:
    service, console = Answers(), Console(file=StringIO(), width=160)
    service.add("GET", JOB, *[short_of("Shared with b.")] * 2, short_of("Shared with c."), job_view())
    service.add("GET", JOB, *[short_of("Shared with c.")] * 2, job_view(phase=Phase.SUCCEEDED))
    service.add("GET", EVENTS, history())
    service.add("GET", METRICS, losses())
    with Board(service.client(), console) as board:
        board.add(short_of("Shared with b."))
        board.watch(sleep=lambda _: None)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    assert lines == [f"03:04:05  digits  Shared with {other}." for other in "bcc"]


def test_nothing_is_asked_for_twice(service: Answers) -> None:
    with Board(service.client(), Console(file=StringIO())) as board:
        board.add(job_view(progress=Progress()))
        board.watch(sleep=lambda _: None)

    assert asked(service, EVENTS, "after") == [None, "2", "3", "3", "4", "4"]
    assert asked(service, METRICS, "from") == ["0", "1600", "4800", "0"], "an empty curve was rolled back"


def test_a_terminal_shows_every_job_and_what_happened_last() -> None:
    service = Answers()
    for job in ("1k114apr40046ss7", "def456"):
        service.add("GET", f"/v1/jobs/{job}", job_view(job, name=f"name of {job[:6]}"))
        service.add("GET", f"/v1/jobs/{job}/events", history(*story(job)[:6]))
        service.add("GET", f"/v1/jobs/{job}/metrics", losses((2000, 1.25)))
    console = Console(file=StringIO(), force_terminal=True, width=160, markup=False, highlight=False)
    with Board(service.client(), console) as board:
        board.add(job_view("1k114apr40046ss7"))
        board.add(job_view("def456"))
        board.refresh()
    shown = console.file.getvalue()  # type: ignore[attr-defined]

    for part in ("name of 1k114a", "name of def456", "25%", "1.25", "0.9801", "4 -> 2 workers"):
        assert part in shown
    assert shown.count("\x1b[?25h") == 1, "the cursor comes back"


def test_a_long_sentence_stays_beside_its_name() -> None:
    service = Answers()
    service.add("GET", JOB, job_view())
    service.add("GET", EVENTS, history(story()[5]))
    service.add("GET", METRICS, losses())
    console = Console(file=StringIO(), force_terminal=True, color_system=None, width=80, markup=False, highlight=False)
    with Board(service.client(), console) as board:
        board.add(job_view())
        board.refresh()
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    at = next(number for number, line in enumerate(lines) if "4 -> 2 workers" in line)
    assert lines[at + 1].startswith(" " * 18), "time, name, and the gaps between them"
    assert lines[at + 1].strip().endswith("0 steps lost")


def test_what_numbers_tell_is_not_told_again() -> None:
    for phase, told in ((Phase.RUNNING, False), (Phase.RESIZING, False), (Phase.RECOVERING, True)):
        event = story()[1].model_copy(update={"phase": phase})
        assert (describe(event) is not None) == told


def test_a_size_that_is_taken_back_is_no_size() -> None:
    head = story()[0].model_dump(include={"job", "incarnation", "generation", "sequence", "at"})
    told = [events.ResizeRequested(**head, workers=workers) for workers in (3, None)]

    assert [describe(event) for event in told] == ["asked for 3 workers", "what was asked for was taken back"]


def test_what_was_changed_is_told_field_by_field() -> None:
    head = story()[0].model_dump(include={"job", "incarnation", "generation", "sequence", "at"})
    changes = {
        "elasticity.workers": ((1, 4), (1, 8)),
        "elasticity.kappa": ((1e-3, 1e4), (1.0, 1.5)),
        "priority": (0, 7),
        "labels": ({}, {"team": "vision", "stage": "two"}),
    }
    assert describe(events.Updated(**head, changes=changes)) == (
        "elasticity.workers 1 to 4 -> 1 to 8; elasticity.kappa 0.001 to 1e+04 -> 1 to 1.5; priority 0 -> 7; "
        "labels none -> team=vision, stage=two"
    )


def test_a_loss_is_told_once() -> None:
    head = story()[0].model_dump(include={"job", "incarnation", "generation", "sequence", "at"})
    reason = "Worker w2 was lost: It was killed."
    told = [
        events.RankLost(**head, rank=1, reason=reason),
        events.PhaseChanged(**head, phase=Phase.RECOVERING, code="rank_lost", message=reason),
        events.Resizing(**head, workers=(3, 2), cause="rank_lost", reason=reason),
        events.Resizing(**head, workers=(2, 3), cause="joined", reason="One came."),
    ]

    assert [describe(event) for event in told] == [
        reason,
        None,
        "3 -> 2 workers announced",
        "2 -> 3 workers announced: One came.",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.123456, "0.1235"), (12, "12"), ([0.9, 0.999], "0.9, 0.999"), (True, "True")]
)
def test_numbers(value: Any, text: str) -> None:
    assert number(value) == text
