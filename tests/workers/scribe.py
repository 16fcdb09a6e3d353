"""A controller's chronicle, life after life, and a lead whose reports it hears."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from api_schemas.events import parse_event
from api_schemas.exchange import Launch, Predecessor
from api_schemas.jobs import JobSpec
from tests.workers.shelf import Shelf
from workers.chronicle import Chronicle
from workers.journal import Journal
from workers.spool import Spool
from workers.status import Phase, Status

START = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = JobSpec.model_validate(
    {
        "name": "any",
        "recipe": {"name": "any"},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "schedule": {"budget": "5 epochs"},
        "batch": {"base": 8, "per_worker": 8},
    }
)


@dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


@dataclass
class Life:
    """One life of a controller after the other, on the same storage."""

    shelf: Shelf = field(default_factory=Shelf)
    clock: Clock = field(default_factory=Clock)
    incarnation: int = 1
    before: Predecessor | None = None

    def __post_init__(self) -> None:
        self.begin()

    def begin(self, *, asked: bool = True) -> None:
        """`asked`: by the service, which has nothing yet."""
        self.spool = Spool(self.shelf, self.incarnation)
        launch = Launch(job="j", incarnation=self.incarnation, spec=SPEC, storage="memory://", before=self.before)
        self.chronicle = Chronicle(launch, self.spool, self.clock)
        if asked:
            self.chronicle.catch_up(0, self.before.samples if self.before else 0)
        if self.before and not self.spool.last:
            self.chronicle.inherit(Spool(self.shelf, self.before.incarnation), self.before.acked)

    def flush(self) -> None:
        if self.chronicle.pending:
            self.spool.append(*self.chronicle.collect())

    def told(self, *kinds: str) -> list[dict[str, Any]]:
        """What the service gets, every event as the contract has it."""
        self.flush()
        events = self.spool.after(0)
        for event in events:
            parse_event(event)
        return [event for event in events if not kinds or event["type"] in kinds]

    def ranges(self) -> list[tuple[int, int, int]]:
        """Start, stop, generation."""
        return [(each["start"], each["stop"], each["generation"]) for each in self.told("committed")]


@dataclass
class Worker:
    """Trains, and writes as a lead does; the chronicle polls it as the roll would."""

    name: str = "w0"
    samples: int = 0
    generation: int = 0
    size: int = 1
    batch: int = 8
    journal: Journal = field(default_factory=Journal)

    def enter(self, generation: int, *, size: int = 1, restored: bool = False) -> None:
        old, self.size, self.generation = self.size, size, generation
        self.journal.record(
            "entered",
            generation=generation,
            cause="api",
            reason="Asked for.",
            decide_s=0.5,
            pause_s=0.1,
            samples=self.samples,
            restored=restored,
            workers=(old, size),
            kappa=(float(old), float(size)),
            batch=(self.batch * old, self.batch * size),
            before={"lr": 0.1 * old},
            after={"lr": 0.1 * size},
            state_factors={},
            warnings=[],
            horizon={"epoch_size": 100, "total_samples": 500, "bn_momentum": None, "other": 1},
        )

    def train(self, samples: int, *, point: bool = False) -> None:
        self.samples += samples
        if point:
            self.journal.point(self.samples, {"loss": 1.0})

    def poll(self, chronicle: Chronicle) -> Status:
        status = Status(
            phase=Phase.TRAINING,
            generation=self.generation,
            samples=self.samples,
            committed=self.samples,
            records=tuple(self.journal.records(chronicle.heard(self.name))),
            points=tuple(self.journal.points(chronicle.seen)),
        )
        chronicle.hear(self.name, status)
        return status
