"""A job watched on the command line: from now on, or from its start."""

from __future__ import annotations

import json

import httpx
import pytest

from api_schemas.board import Board
from api_schemas.views import Page, Phase
from tests.api_schemas.answers import Answers, history, job_view, losses, resize_row, sse, story
from tests.api_schemas.commands import JOB, emascale, ended


def test_watching_tells_the_story_line_by_line(spec: str) -> None:
    service = ended(Phase.SUCCEEDED)
    service.add("POST", "/v1/jobs", job_view(), status=201)

    result = emascale(service, "submit", spec, "--watch")

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:2] == ["Submitted digits as 1k114apr40046ss7.", "03:04:05  digits  submitted"]
    resized = "4 -> 2 workers, kappa 4 -> 2, lr 0.4 -> 0.2, rho 0.9606 -> 0.9801; paused 0.07 s, 0 steps lost"
    assert f"03:04:05  digits  {resized}" in lines
    assert any("accuracy 0.9711 (EMA 0.9822)" in line for line in lines)


@pytest.mark.parametrize(("phase", "code"), [(Phase.SUCCEEDED, 0), (Phase.FAILED, 1), (Phase.CANCELLED, 1)])
def test_watch_ends_as_the_job_does(phase: Phase, code: int) -> None:
    result = emascale(ended(phase), "watch", "1k114apr40046ss7")

    assert result.exit_code == code
    assert "4 -> 2" in result.stdout.splitlines()[-1]
    assert phase in result.stdout


def test_watch_as_json_is_an_event_a_line() -> None:
    lines = emascale(ended(Phase.SUCCEEDED), "watch", "1k114apr40046ss7", "--from-start", "--json").stdout.splitlines()

    assert [json.loads(line)["type"] for line in lines] == [event.type for event in story()]


def test_whoever_stops_watching_hears_that_the_job_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Board) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Board, "watch", interrupted)

    result = emascale(ended(Phase.SUCCEEDED), "watch", "1k114apr40046ss7")

    assert result.exit_code == 130
    assert (
        result.stdout.splitlines()[-1]
        == "digits goes on without you; `emascale watch 1k114apr40046ss7` shows it again."
    )


@pytest.fixture
def resized() -> Answers:
    """A job that changed its size, trains, and succeeds while it is watched."""
    service, told = Answers(), story()
    service.add("GET", JOB, *[job_view()] * 3, job_view(phase=Phase.SUCCEEDED))
    service.add(
        "GET", f"{JOB}/events", history(told[6], start=7), history(told[5], start=6), history(told[9], start=10)
    )
    service.add("SSE", f"{JOB}/events", httpx.Response(200, text=sse(*told[7:], start=8)))
    service.add("GET", f"{JOB}/metrics", losses((4000, 1.5)))
    service.add("GET", f"{JOB}/resizes", Page(items=[resize_row()]))
    return service


def test_watching_begins_with_how_the_job_stands(resized: Answers) -> None:
    lines = emascale(resized, "watch", "1k114apr40046ss7").stdout.splitlines()

    change = "4 -> 2 workers, kappa 4 -> 2, lr 0.4 -> 0.2, rho 0.9606 -> 0.9801; paused 0.07 s, 0 steps lost"
    assert lines[:3] == [
        f"03:04:05  digits  last change of size: {change}",
        "03:04:05  digits  now running: 25%, loss 1.5, kappa 2, lr 0.2, rho 0.9801, 2 workers",
        "03:04:05  digits  succeeded: Trained.",
    ]
    asked = [dict(request.url.params) for request in resized.requests if request.url.path == f"{JOB}/events"]
    newest = {"newest_first": "true", "limit": "1"}
    assert asked == [newest, newest | {"type": "resized"}, {"after": "7"}]


def test_watching_a_job_that_waits_says_why() -> None:
    waits = job_view(phase=Phase.QUEUED)
    waits.status.message = "Waits for 2 workers."
    service = Answers()
    service.add("GET", JOB, *[waits] * 3, job_view(phase=Phase.SUCCEEDED))
    service.add("GET", f"{JOB}/events", history(story()[0]), history(), history(story()[9], start=2))
    service.add("GET", f"{JOB}/metrics", losses())
    service.add("GET", f"{JOB}/resizes", Page(items=[resize_row()]))

    lines = emascale(service, "watch", "1k114apr40046ss7").stdout.splitlines()

    assert lines[0] == "03:04:05  digits  now queued: Waits for 2 workers."


def test_from_the_start_everything_is_told() -> None:
    lines = emascale(ended(Phase.SUCCEEDED), "watch", "1k114apr40046ss7", "--from-start").stdout.splitlines()

    assert lines[0] == "03:04:05  digits  submitted"


def test_as_json_too_it_begins_now(resized: Answers) -> None:
    lines = emascale(resized, "watch", "1k114apr40046ss7", "--json").stdout.splitlines()

    assert [json.loads(line)["type"] for line in lines] == ["evaluated", "finished", "phase"]
    (stream,) = (each for each in resized.requests if each.headers["Accept"] == "text/event-stream")
    assert stream.headers["Last-Event-ID"] == "7"
