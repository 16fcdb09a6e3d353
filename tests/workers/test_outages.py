"""Storage that fails now and then, controllers that die, and a service that asks rarely: its history stays one line."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.scribe import Life, Worker
from workers.storage import StorageError

WORDS = st.lists(st.sampled_from(["train", "busy", "resize", "lose", "flush", "ask", "free"]), max_size=8)
LIVES = st.lists(st.tuples(st.sampled_from(["write", "delete", ""]), WORDS), max_size=6)
"""What the storage refuses at first, and what happens then, before the controller dies."""


class Service:
    """Takes each number once, and asks with what it has."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.line = 0

    def ask(self, life: Life) -> None:
        acked = len(self.events)
        life.chronicle.catch_up(acked, self.line)
        write(life)
        with suppress(StorageError):
            life.spool.trim(acked)
        for event in life.spool.after(acked):
            assert event["sequence"] == len(self.events) + 1
            self.events.append(event)
            self._follow(event)

    def _follow(self, event: dict[str, Any]) -> None:
        if event["type"] == "committed":
            assert event["start"] == self.line < event["stop"], "told once, and without a gap"
            self.line = event["stop"]
        elif event["type"] == "rollback":
            assert event["to_samples"] < self.line
            self.line = event["to_samples"]


def write(life: Life) -> None:
    with suppress(StorageError):
        life.flush()


class Job:
    """Its worker, which trains in memory, whatever becomes of the controllers."""

    def __init__(self) -> None:
        self.worker = Worker()
        self.most = 0  # samples
        self._named = 1
        self.worker.enter(1)

    def train(self, samples: int, *, point: bool = False) -> None:
        self.worker.train(samples, point=point)
        self.most = max(self.most, self.worker.samples)

    def lose(self) -> None:
        """The worker; another one goes on from a checkpoint."""
        old, self._named = self.worker, self._named + 1
        self.worker = Worker(f"w{self._named}", old.samples // 32 * 32, generation=old.generation, size=old.size)
        self.worker.enter(old.generation + 1, restored=True)


@settings(deadline=None, max_examples=300)
@given(LIVES)
def test_whatever_fails_the_service_has_one_line_and_its_end(lives: list[tuple[str, list[str]]]) -> None:
    life, service, job = Life(), Service(), Job()
    for refused, words in lives:
        life.shelf.refused = {refused}
        for word in words:
            play(word, life, service, job)
            job.worker.poll(life.chronicle)
        life.begin(asked=False)
    life.shelf.refused = set()
    job.train(job.most - job.worker.samples + 8)  # beyond what was trained on more than once
    job.worker.poll(life.chronicle)
    life.chronicle.say("finished", outcome="succeeded", code="finished", message="The budget is used up.")
    write(life)
    life.begin(asked=False)
    service.ask(life)
    assert service.events[-1]["type"] == "finished"
    assert service.line == job.worker.samples


def play(word: str, life: Life, service: Service, job: Job) -> None:
    match word:
        case "train":
            job.train(8, point=True)
        case "busy":
            for _ in range(5):
                job.train(8)
                job.worker.poll(life.chronicle)
                write(life)
        case "resize":
            job.worker.enter(job.worker.generation + 1, size=job.worker.size % 3 + 1)
        case "lose":
            job.lose()
        case "flush":
            write(life)
        case "ask":
            service.ask(life)
        case "free":
            life.shelf.refused = set()
