"""A job as its users see it, and the words to write tests about it in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api_schemas.client import Client
from api_schemas.errors import ServiceUnreachable
from api_schemas.events import ServiceEvent, WorkerEvent
from api_schemas.views import JobView, Phase, Resize
from service.processes import wait_until

PATIENCE_S = 150


def spec(**changes: Any) -> dict[str, Any]:
    """A job on one worker, of some seconds; `changes` replace or extend whole parts."""
    made: dict[str, Any] = {
        "name": "digits",
        "recipe": {"name": "classify", "config": {"model": "mlp", "hidden": 256, "depth": 2}},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "schedule": {"budget": "300 base_steps", "warmup": "10 base_steps", "lr": "cosine"},
        "ema": {"momentum": 0.99},
        "batch": {"base": 64, "per_worker": 64},
    }
    return made | changes


class FollowedJob:
    """A job, followed by its service's API alone."""

    def __init__(self, client: Callable[[], Client], id: str) -> None:
        """`client`: of the service as it runs now; one that is started again may have another address."""
        self._client = client
        self.id = id

    @property
    def client(self) -> Client:
        return self._client()

    @property
    def view(self) -> JobView:
        return self.client.job(self.id)

    def until(self, reached: Callable[[JobView], bool]) -> JobView:
        """The view once it is so; a job that ends before is a failure of the test."""

        def look() -> bool:
            try:
                view = self.view
            except ServiceUnreachable:
                return False
            return reached(view) or view.status.is_terminal

        assert wait_until(look, PATIENCE_S), self.story()
        view = self.view
        assert reached(view), self.story()
        return view

    def trains_on(self, workers: int) -> JobView:
        """Once it trains on so many workers."""
        return self.until(lambda view: view.workers == workers and view.status.phase is Phase.RUNNING)

    def progresses(self, samples: int = 1000) -> JobView:
        """Once it has seen so many samples more than now."""
        now = self.view.progress.samples
        return self.until(lambda view: view.progress.samples >= now + samples)

    def leaves_a_checkpoint_behind(self, after: int = 0) -> int:
        """Once it has one beyond so many samples, and has trained on from there; returns its samples."""

        def newest() -> int:
            return max((event.samples for event in self.said("checkpoint_saved")), default=-1)

        self.until(lambda view: after < newest() <= view.progress.samples - 500)
        return newest()

    def ends(self, phase: Phase = Phase.SUCCEEDED) -> JobView:
        view = self.until(lambda view: view.status.is_terminal)
        assert view.status.phase is phase, self.story()
        return view

    def events(self) -> list[ServiceEvent | WorkerEvent]:
        page = self.client.events(self.id, limit=1000)
        found = list(page.items)
        while page.next is not None:
            page = self.client.events(self.id, after=page.next, limit=1000)
            found += page.items
        return found

    def said(self, kind: str) -> list[Any]:
        return [event for event in self.events() if event.type == kind]

    def rows(self) -> list[Resize]:
        """Its changes of size so far."""
        return self.client.resizes(self.id, limit=1000).items

    def assert_exactly_once(self) -> None:
        """Every event once and in order; every sample of the run once; every curve point once."""
        view, ledger = self.view, self.client.ledger(self.id)
        assert (ledger.samples_lost, ledger.samples_repeated) == (0, 0)
        assert sum(epoch.samples for epoch in ledger.epochs) == view.progress.samples
        told = [(event.incarnation, event.sequence) for event in self.events()]
        for incarnation in {incarnation for incarnation, _ in told}:
            numbers = [sequence for each, sequence in told if each == incarnation]
            assert numbers == sorted(set(numbers))

    def story(self) -> str:
        """Everything that happened, for the report of a failed test."""
        view = self.view
        lines = [f"{view.status.phase}: {view.status.message}", view.status.traceback or ""]
        lines += [str(event) for event in self.events()]
        return "\n".join([*lines, *self.client.logs(self.id)])
