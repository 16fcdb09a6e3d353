"""The demo's story, told by a real service whose workers are played, and its verdict."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from api_schemas.board import Board
from api_schemas.client import Client
from api_schemas.jobs import JobSpec
from api_schemas.views import Evaluation, Phase
from deploy.demo.play import Result, clear, play, spec
from deploy.demo.server import deferred_interrupts
from deploy.demo.verdict import shortcomings
from service.app import create_app
from service.db import Database
from service.settings import Settings
from tests.api_schemas.answers import job_view, resize_row
from tests.databases import fresh_database
from tests.service.world import Controller, committed, finished, resized, started
from tests.serving import served

SAMPLES = 5000  # of a played job


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with fresh_database(Settings(data_folder=tmp_path).database_url) as database:
        yield database


@pytest.fixture
def client(tmp_path: Path, database: Database) -> Iterator[Client]:
    with served(create_app(Settings(data_folder=tmp_path), database)) as address, Client(address) as client:
        yield client


class Stage:
    """Plays the workers of both jobs: each time the demo sleeps, the next thing happens."""

    def __init__(self, client: Client, database: Database, acts: Sequence[Callable[[Stage], object]]) -> None:
        self._client = client
        self._database = database
        self._acts = iter(acts)
        self.controllers: dict[str, Controller] = {}

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        next(self._acts)(self)

    def launch(self, name: str, workers: int) -> None:
        (row,) = self._client.jobs(name=name).items
        self.controllers[name] = Controller.launch(self._database, row.id)
        self.report(name, started(workers=workers, total_samples=SAMPLES))

    def report(self, name: str, *bodies: dict[str, Any]) -> None:
        self.controllers[name].report(*bodies)

    def names(self) -> list[str]:
        return [row.name for row in self._client.iter_jobs()]


def test_the_story(client: Client, database: Database) -> None:
    known: list[list[str]] = []
    acts: list[Callable[[Stage], object]] = [
        lambda stage: stage.launch("a", 4),
        lambda stage: stage.report("a", committed(0, 1400)),
        lambda stage: known.append(stage.names()),
        lambda stage: stage.report("a", committed(1400, 1600)),
        lambda stage: known.append(stage.names()),
        lambda stage: (stage.report("a", resized(1600, (4, 2))), stage.launch("b", 2)),
        lambda stage: stage.report("b", finished("succeeded")),
        lambda stage: stage.report("a", resized(2000, (2, 4)), committed(1600, SAMPLES), finished("succeeded")),
    ]
    stage, output = Stage(client, database, acts), StringIO()

    with Board(client, Console(file=output, width=200)) as board:
        first, second = play(client, board, stage.sleep)

    assert known == [["a"], ["b", "a"]], "b arrives once 30 % of a is done"
    assert [row.workers for row in first.resizes] == [(4, 2), (2, 4)]
    assert second.view.spec.priority > first.view.spec.priority
    assert {line.split()[1] for line in output.getvalue().splitlines()} == {"a", "b"}
    assert shortcomings([first, second]) == [
        "The EMA model of job a has an accuracy of None; expected: at least 0.95.",
        "The EMA model of job b has an accuracy of None; expected: at least 0.95.",
    ]


def test_a_first_job_that_fails_ends_the_story(client: Client, database: Database) -> None:
    stage = Stage(client, database, [lambda stage: stage.launch("a", 4), lambda s: s.report("a", finished("failed"))])

    with Board(client, Console(file=StringIO())) as board:
        results = play(client, board, stage.sleep)

    assert [result.view.status.phase for result in results] == [Phase.FAILED]


def test_what_an_earlier_demo_left_is_removed(client: Client, database: Database) -> None:
    stage = Stage(client, database, [lambda stage: stage.report("a", finished("cancelled"))])
    for name in ("a", "b"):
        client.submit(spec(name))
    stage.launch("a", 4)

    clear(client, stage.sleep)

    assert stage.names() == []


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_job_files_are_valid_and_refused_nowhere(client: Client, name: str) -> None:
    preview = client.preview_submit(spec(name))

    assert JobSpec.model_validate(spec(name)) == preview.spec
    assert [size.error for size in preview.sizes if size.error] == []


def result(name: str, *sizes: tuple[int, int], **changes: Any) -> Result:
    evaluation = Evaluation(samples=1, target={"accuracy": 0.9}, ema={"accuracy": 0.96})
    view = job_view(name=name, phase=Phase.SUCCEEDED, evaluation=evaluation).model_copy(update=changes)
    return Result(view=view, resizes=[resize_row(id=n, workers=each) for n, each in enumerate(sizes, 1)])


GOOD = (result("a", (4, 2), (2, 4)), result("b"))


def with_row(**changes: Any) -> Result:
    good = GOOD[0]
    return Result(view=good.view, resizes=[*good.resizes, resize_row(id=3, workers=(4, 4), **changes)])


def scored(accuracy: float | None) -> Evaluation:
    return Evaluation(samples=1, target={"accuracy": 0.99}, ema=None if accuracy is None else {"accuracy": accuracy})


@pytest.mark.parametrize(
    ("results", "missing"),
    [
        (GOOD, []),
        ((with_row(cause="rank_lost", steps_lost=1), GOOD[1]), []),
        ((with_row(steps_lost=1), GOOD[1]), ["lost 1 steps"]),
        ((with_row(samples_lost=32), GOOD[1]), ["32 samples"]),
        ((result("a", (4, 2)), GOOD[1]), ["grow back"]),
        ((result("a", (1, 4)), GOOD[1]), ["give way"]),
        (GOOD[:1], ["never arrived"]),
        ((GOOD[0], result("b", evaluation=scored(0.949))), ["0.949"]),
        ((GOOD[0], result("b", evaluation=scored(None))), ["None"]),
        ((GOOD[0], result("b", status=job_view(phase=Phase.FAILED).status)), ["Job b failed"]),
    ],
)
def test_the_verdict(results: Sequence[Result], missing: list[str]) -> None:
    found = shortcomings(results)

    assert len(found) == len(missing)
    assert all(part in sentence for part, sentence in zip(missing, found, strict=True))


def test_an_interrupt_waits_for_the_end_of_what_must_be_whole() -> None:
    done = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell runs in the background

    def interrupted() -> None:
        with deferred_interrupts():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            done.append("whole")

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["whole"]
