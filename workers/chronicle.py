"""What a controller tells the service: the reports of its workers as one gapless line of numbered events.

Workers report what they did; here it becomes history. A range of samples is told once, by the generation that trained
on it; a line that was taken up again from an earlier sample begins with a rollback. All of it can be found again from
the spool's notes, so another life of the controller goes on in the middle of a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from api_schemas.exchange import Launch
from api_schemas.views import RESUME
from workers.spool import Event, Spool
from workers.status import Status

_CHANGE = ("cause", "reason", "samples", "workers", "kappa", "batch", "before", "after", "state_factors", "warnings")

RESUMED = (RESUME, "It goes on after a pause.")
"""Cause and reason of what a resumed job begins with."""


class Chronicle:
    """The history of one incarnation of a job."""

    def __init__(self, launch: Launch, spool: Spool, now: Callable[[], datetime]) -> None:
        """`now` is timezone-aware."""
        self._job = launch.job
        self._incarnation = launch.incarnation
        self._spool = spool
        self._now = now
        self._unsaid: list[dict[str, Any]] = []
        self._sequence = spool.last
        notes = spool.notes
        self.started: bool = notes.get("started", False)  # a generation of this incarnation has trained
        self.generation: int = notes.get("generation", 0)  # the last one that trains or trained
        self._sized_at: int = notes.get("sized_at", -1)  # samples at which its last size began
        self.committed: int = notes.get("committed", launch.before.samples if launch.before else 0)
        self.exported: bool = notes.get("exported", False)
        self.finished: bool = notes.get("finished", False)
        self.named: int = notes.get("named", 0)  # workers so far
        self.announced: int = notes.get("announced", 0)  # the highest number of a generation
        self.wished: dict[str, Any] | None = notes.get("wished")  # the last allocation, as JSON
        self.answered: dict[str, Any] | None = notes.get("answered")  # that of the last generation announced
        self.retired: int = notes.get("retired", 0)  # the last generation that was told to leave a checkpoint and end
        self.parting: str = notes.get("parting", "")  # why
        self.saved: int = notes.get("saved", -1)  # samples of the last checkpoint of this incarnation; -1: none yet
        self.resumes: bool = notes.get("resumes", False)  # the incarnation before was paused
        self._heard: dict[str, int] = dict(notes.get("heard", {}))
        self._seen: int = notes.get("seen", self.committed)
        self._seen_before = self._seen
        self._reached = self.committed
        self._had: tuple[int, int] | None = None  # by the service: events, and samples; None: it has not asked yet
        self._progressed_at = _time(notes) or now()

    @property
    def is_saved(self) -> bool:
        """Whether all that was trained on is in a checkpoint of this incarnation."""
        reached: int = max(self.committed, self._reached)
        return self.saved == reached

    @property
    def pending(self) -> bool:
        """Whether something was said that is not in the spool yet."""
        doubted = self._spool.in_doubt and self._had is not None
        return doubted or self._sequence > self._spool.last or self._reached > self.committed

    @property
    def is_durable(self) -> bool:
        """Whether another life would find all that was said."""
        return not self.pending and not self._spool.is_behind

    def heard(self, worker: str) -> int:
        """The number of the last record of this worker that is in the spool: it may forget the ones up to there."""
        heard: dict[str, int] = self._spool.notes.get("heard", {})
        return heard.get(worker, 0)

    @property
    def seen(self) -> int:
        """Samples of the last point of the curves that is in the spool: the workers may forget those up to there."""
        seen: int = self._spool.notes.get("seen", self._seen_before)
        return min(seen, self._seen)

    def has_kept(self, worker: str, status: Status) -> bool:
        """Whether all that was heard with this status is in the spool."""
        told = max((number for number, _ in status.records), default=0)
        trains = self.started and status.generation == self.generation
        return self.heard(worker) >= told and (not trains or self._spool.notes.get("committed", 0) >= status.committed)

    def catch_up(self, acked: int, samples: int) -> None:
        """What the service has, as it asks: all events up to `acked`, and with them the line up to `samples`.

        It may be more than this life knows of: an earlier one gives out what it cannot store. So what was said before
        the first question goes on from there.
        """
        self._had = acked, samples

    def inherit(self, spool: Spool, acked: int) -> None:
        """Say again, as this incarnation, what the one before said and the service never acknowledged.

        One that was told it had finished, and is followed by this one, was paused.
        """
        self.resumes = bool(spool.notes.get("finished"))
        self._progressed_at = _time(spool.notes) or self._progressed_at
        unheard, self.committed = _continued(spool.unheard(acked), self.committed)
        self._reached = self.committed
        for event in unheard:
            if event["type"] != "finished":
                self._say(event["type"], **{name: value for name, value in event.items() if name not in self._own()})

    def say(self, kind: str, **fields: Any) -> None:
        """An event of the controller's own, or a record as a worker wrote it; first, what was trained on."""
        self._commit()
        self._say(kind, **fields)
        self.exported = self.exported or kind == "exported"
        self.finished = self.finished or kind == "finished"
        if kind == "checkpoint_saved":
            self.saved = fields["samples"]

    def hear(self, worker: str, status: Status) -> None:
        """What a worker has to report."""
        for number, record in status.records:
            if number > self._heard.get(worker, 0):
                self._heard[worker] = number
                self._take(dict(record))
        if status.generation != self.generation or not self.started:
            return  # a generation that nobody has reported yet
        if status.committed > self._reached:
            self._reached, self._progressed_at = status.committed, self._now()
        fresh = [point for point in status.points if self._seen < point[0] <= self._reached]
        if fresh:
            self._seen = fresh[-1][0]
            self.say("metrics", points=fresh)

    def told(self) -> int:
        """The number of the last event, with all that was trained on."""
        self._commit()
        return self._sequence

    def collect(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What was said since the last call, and the notes beside it: for `Spool.append`."""
        self._commit()
        if self._spool.in_doubt and self._had is not None:
            self._go_on(*self._had)
        unsaid, self._unsaid = self._unsaid, []
        return unsaid, self._notes()

    def _take(self, record: dict[str, Any]) -> None:
        kind = record.pop("type")
        if kind == "entered":
            self._enter(record)
        else:
            self.say(kind, **record)

    def _enter(self, change: dict[str, Any]) -> None:
        """A generation trains: bring the line to where it begins, then say so. Some say it twice."""
        if self.started and (change["generation"], change["samples"]) <= (self.generation, self._sized_at):
            return
        self._sized_at = change["samples"]
        if self.started and change["generation"] == self.generation:
            self._commit()
            self._resized(change, 0)  # it has trained before, and goes on; others may have told of later steps already
            return
        reached = max(self.committed, self._reached)
        lost = reached - change["samples"]
        self._reached = max(reached, change["samples"])
        self._commit()
        if lost > 0:
            self._say("rollback", to_samples=change["samples"], samples_lost=lost)
            self.committed = self._reached = self._seen = change["samples"]
        self.generation = change["generation"]
        if self.started:
            self._resized(change, max(0, lost))
        else:
            self._started(change)
            if self.resumes and change["samples"]:  # else it begins
                self._resized(change, max(0, lost))
        self._progressed_at = self._now()

    def _started(self, change: dict[str, Any]) -> None:
        horizon = change["horizon"]
        self.started = True
        self._say(
            "started",
            workers=change["workers"][1],
            kappa=change["kappa"][1],
            batch=change["batch"][1],
            samples=change["samples"],
            values=change["after"],
            warnings=change["warnings"],
            **{name: horizon[name] for name in ("epoch_size", "total_samples", "bn_momentum")},
        )

    def _resized(self, change: dict[str, Any], samples_lost: int) -> None:
        """Where nobody was left to measure it, the pause is as long as there was no progress, a user's own too."""
        pause = change["pause_s"]
        if change["restored"]:
            pause = (self._now() - self._progressed_at).total_seconds()
        self._say(
            "resized",
            **{name: change[name] for name in _CHANGE},
            decide_s=change["decide_s"],
            pause_s=pause,
            steps_lost=math.ceil(samples_lost / change["batch"][0]),
            samples_lost=samples_lost,
        )

    def _commit(self) -> None:
        if self._reached > self.committed:
            start, self.committed = self.committed, self._reached
            self._say("committed", start=start, stop=self.committed)

    def _say(self, kind: str, **fields: Any) -> None:
        self._sequence += 1
        self._unsaid.append({**self._own(), "type": kind, **fields})

    def _go_on(self, acked: int, samples: int) -> None:
        """What this life said so far, behind what the service has."""
        is_news = acked > self._spool.sure
        said = [*self._spool.recall(acked), *self._unsaid]
        if is_news:
            said, self.committed = _continued(said, samples)
            self._reached, self._seen = self.committed, min(self._seen, self.committed)
        first = self._spool.last + 1
        self._unsaid = [{**event, "sequence": number} for number, event in enumerate(said, start=first)]
        self._sequence = self._spool.last + len(said)

    def _own(self) -> dict[str, Any]:
        return {
            "job": self._job,
            "incarnation": self._incarnation,
            "generation": self.generation,
            "sequence": self._sequence,
            "at": self._now().isoformat(),
        }

    def _notes(self) -> dict[str, Any]:
        names = (
            "started",
            "generation",
            "committed",
            "exported",
            "finished",
            "named",
            "announced",
            "wished",
            "answered",
            "retired",
            "parting",
            "saved",
            "resumes",
        )
        inner = {"seen": self._seen, "heard": dict(self._heard), "sized_at": self._sized_at}
        inner["progressed_at"] = self._progressed_at.isoformat()
        return {name: getattr(self, name) for name in names} | inner


def _continued(events: Iterable[Event], samples: int) -> tuple[list[Event], int]:
    """The same events for whoever has the line up to `samples`: no range twice, no gap; and where it ends. Pure."""
    told = []
    for event in events:
        match event["type"]:
            case "committed" if event["stop"] > samples:
                told.append({**event, "start": samples})
                samples = event["stop"]
            case "rollback" if event["to_samples"] < samples:
                told.append(event)
                samples = event["to_samples"]
            case kind if kind not in ("committed", "rollback"):
                told.append(event)
    return told, samples


def _time(notes: dict[str, Any]) -> datetime | None:
    """When there was progress, as the notes say."""
    return datetime.fromisoformat(notes["progressed_at"]) if "progressed_at" in notes else None
