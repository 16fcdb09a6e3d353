"""A conductor with its crew in this process, asked over and over as the service asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from api_schemas.exchange import Allocation, Command, Departure, Launch, Predecessor, Report
from api_schemas.jobs import JobSpec
from tests.workers.crew import Ensemble
from tests.workers.shelf import Shelf
from workers import desk, losses, roll
from workers.chronicle import Chronicle
from workers.conductor import Conductor
from workers.spool import Spool

KAPPA = (0.5, 8.0)


def spec(workers: tuple[int, int]) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "any",
            "recipe": {"name": "any"},
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "schedule": {"budget": "5 epochs"},
            "batch": {"base": 8, "per_worker": 8},
            "elasticity": {"workers": workers, "kappa": KAPPA},
        }
    )


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds, looks and waits after losses so short that a test does not wait for them."""
    monkeypatch.setattr(roll, "LOOK_S", 0.01)
    monkeypatch.setattr(desk, "ROUND_S", 0.01)
    monkeypatch.setattr(losses, "BACKOFF_S", 0.01)


def now() -> datetime:
    return datetime.now(UTC)


class Stage:
    """What the service knows is in `events`; it acknowledges everything, unless `acks` is off."""

    patience_s = 10.0

    def __init__(
        self,
        *,
        workers: tuple[int, int] = (1, 8),
        before: Predecessor | None = None,
        launch: Launch | None = None,
        crew: Ensemble | None = None,
    ) -> None:
        self.crew = crew or Ensemble()
        self.shelf = Shelf()
        made = Launch(job="j", incarnation=1, spec=spec(workers), storage="memory://", before=before)
        self.launch = launch or made
        self.intent = "train"
        self.allocation = allocation(1)
        self.departures: list[Departure] = []
        self.events: list[dict[str, Any]] = []
        self.acks = True
        self.report: Report | None = None
        self.meetings = 0
        self.begin()

    def begin(self) -> None:
        """The controller starts, or starts again after `die`."""
        spool = Spool(self.shelf, self.launch.incarnation)
        chronicle = Chronicle(self.launch, spool, now)
        self.conductor = self.conduct(spool, chronicle)
        self.task = asyncio.create_task(self.conductor.run())

    def conduct(self, spool: Spool, chronicle: Chronicle) -> Conductor:
        """The engine that the launch asks for."""
        return Conductor(self.launch, self.crew, spool, chronicle, meet=self._meet, now=now)

    async def die(self) -> None:
        """The controller, with all that it was doing; the workers go on."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _meet(self) -> tuple[str, int]:
        self.meetings += 1
        return "127.0.0.1", self.meetings

    @property
    def acked(self) -> int:
        return self.events[-1]["sequence"] if self.events and self.acks else 0

    @property
    def line(self) -> int:
        """Samples at which it ends, as far as the events tell."""
        ends = {"committed": "stop", "rollback": "to_samples"}
        return next((event[ends[event["type"]]] for event in reversed(self.events) if event["type"] in ends), 0)

    async def exchange(self, wait_s: float = 0.0) -> Report:
        command = Command.model_validate(
            {
                "job": "j",
                "incarnation": self.launch.incarnation,
                "intent": self.intent,
                "allocation": self.allocation,
                "departures": self.departures,
                "acked": self.acked,
                "samples": self.line,
                "wait_s": wait_s,
            }
        )
        report = await self.conductor.exchange(command)
        heard = self.events[-1]["sequence"] if self.events else 0
        self.events += [each.model_dump() for each in report.events if each.sequence > heard]
        self.report = report
        return report

    async def until(self, condition: Callable[[], object], *, training: bool = True, ask: bool = True) -> None:
        """Ask, and let those who train train, until it holds; at the end AssertionError."""
        try:
            async with asyncio.timeout(self.patience_s):
                while not condition():
                    if training:
                        self.crew.step()
                    if ask:
                        await self.exchange()
                    await asyncio.sleep(0.002)
        except TimeoutError:
            last = self.events[-1] if self.events else None
            raise AssertionError(f"it never came to that: {self.story()}, last {last}") from None

    async def train(self, workers: int, **changes: Any) -> None:
        """Until so many do."""
        self.allocation = allocation(workers, **changes)
        await self.until(lambda: len(self.crew.trains) == workers and self.report and self.report.workers == workers)

    async def settle(self) -> None:
        """Until all that was trained is told."""
        await self.until(lambda: self.events and self.heard_of == self.crew.samples, training=False)

    @property
    def heard_of(self) -> int:
        """Samples committed, as far as the events tell."""
        return max((event["stop"] for event in self.told("committed")), default=0)

    async def finished(self) -> dict[str, Any]:
        """The last event, once the controller has nothing left to say."""
        await self.until(lambda: self.report and self.report.done)
        await self.task
        return self.events[-1]

    async def task_done(self) -> None:
        """The controller has come to an end, whether the service has heard of it or not."""
        async with asyncio.timeout(self.patience_s):
            await self.task

    # -- what was told -------------------------------------------------------------------------------------------------

    def story(self) -> list[str]:
        """The kinds of events, without the progress in between."""
        return [event["type"] for event in self.events if event["type"] not in ("committed", "metrics")]

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def check_line(self) -> None:
        """Numbers without gaps; ranges without gaps, but for rollbacks."""
        assert [event["sequence"] for event in self.events] == list(range(1, len(self.events) + 1))
        reached = 0
        for event in self.events:
            if event["type"] == "rollback":
                assert event["to_samples"] <= reached
                reached = event["to_samples"]
            elif event["type"] == "committed":
                assert event["start"] == reached < event["stop"]
                reached = event["stop"]


def allocation(workers: int, **changes: Any) -> Allocation:
    fields = {"workers": workers, "kappa": KAPPA, "cause": "api", "reason": "Asked for.", "requested_at": now()}
    return Allocation.model_validate(fields | changes)


S = TypeVar("S", bound=Stage)


def play(script: Callable[[S], Awaitable[None]], kind: Callable[..., S] = Stage, **settings: Any) -> S:  # type: ignore[assignment]
    """The script on a stage of its own, to its end."""

    async def run() -> S:
        stage = kind(**settings)
        await script(stage)
        stage.task.cancel()
        with suppress(asyncio.CancelledError):
            await stage.task
        stage.check_line()
        return stage

    return asyncio.run(run())
