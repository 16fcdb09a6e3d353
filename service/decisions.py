"""PURE: how the jobs and the cluster stand -> what every job is told.

The allocation policy says how much room each job has; here that becomes the `Allocation` that its
controller gets: not before which sample, and with the cause that the job's history will show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from api_schemas.exchange import Allocation
from api_schemas.views import Node
from api_schemas.wording import counted
from service.allocator import Demand, Grant, Room, allocate, slots
from service.tables import PendingResize


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A job that wants workers, as it stands."""

    id: str
    name: str
    priority: int
    arrived: datetime
    since: datetime  # it is as it is: where it waits, since it began to
    changed: datetime  # last
    started: bool  # it has a controller, or is to have one again
    minimum: int  # workers
    maximum: int
    kappa: tuple[float, float]
    cpu: float = 1  # of one worker
    gpu: float = 0
    target: int | None = None  # workers that a resize asked for
    target_at: datetime | None = None
    pending: PendingResize | None = None  # the next resize that waits for its sample
    workers: int = 0  # that train

    @property
    def limit(self) -> int:
        """Most workers that it may have now."""
        return self.maximum if self.target is None else min(max(self.target, self.minimum), self.maximum)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Everything that a decision rests on."""

    at: datetime
    jobs: Mapping[str, Standing]
    rooms: tuple[Room, ...]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided, and on what."""

    situation: Situation
    demands: tuple[Demand, ...] = ()
    grants: Mapping[str, Grant] = field(default_factory=dict)
    allocations: Mapping[str, Allocation] = field(default_factory=dict)  # of jobs with room, and of all that run

    def waiting(self) -> list[Standing]:
        """Jobs that are not started for want of room, the first in the queue first."""
        held = [job for job in self.situation.jobs.values() if not job.started and not self.grants[job.id].workers]
        return sorted(held, key=lambda job: (-job.priority, job.arrived, job.id))


def rooms(nodes: Iterable[Node]) -> tuple[Room, ...]:
    """What the nodes offer; those that are to leave, nothing."""
    return tuple(Room(node=node.id, cpu=node.cpu, gpu=node.gpu) for node in nodes if not node.draining)


def decide(situation: Situation, before: Decision | None, policy: str) -> Decision:
    """What every job is told now; `before` is the last decision, None after a restart.

    What does not change is told in the same words, cause and time of request included.
    """
    demands = tuple(_demand(job, before) for job in situation.jobs.values())
    if before and (demands, situation.rooms) == (before.demands, before.situation.rooms):
        grants = before.grants  # the policy would say the same, and on a large cluster take its time
    else:
        grants = allocate(demands, situation.rooms, policy)
    allocations = {
        job.id: _allocation(job, grants, situation, before)
        for job in situation.jobs.values()
        if grants[job.id].workers or job.started
    }
    return Decision(situation=situation, demands=demands, grants=grants, allocations=allocations)


def shortage(job: Standing, grant: Grant) -> str | None:
    """Why a job that runs has fewer workers than it may have now, as a sentence.

    None: it has them, or some are on their way; the cluster is the reason only for whoever has all that it was granted.
    """
    if job.workers >= job.limit:
        return None
    size = f"Trains on {job.workers} of the {job.limit} workers {'it may have' if job.target is None else 'asked for'}"
    if not grant.workers:
        return f"{size}. {grant.reason}"
    return f"{size}: {grant.bound}." if job.workers == grant.workers else None


def _demand(job: Standing, before: Decision | None) -> Demand:
    """A resize that waits for its sample has its room kept from now on."""
    given = before.grants.get(job.id) if before else None
    current = (given.workers if given else 0) or job.workers or job.minimum
    return Demand(
        job=job.id,
        name=job.name,
        priority=job.priority,
        arrived=job.arrived,
        minimum=job.minimum,
        maximum=max(job.limit, job.pending.workers) if job.pending else job.limit,
        cpu=job.cpu,
        gpu=job.gpu,
        current=current if job.started else 0,
    )


def _allocation(
    job: Standing, grants: Mapping[str, Grant], situation: Situation, before: Decision | None
) -> Allocation:
    room = grants[job.id].workers or job.minimum  # one that runs without room waits for it, with what it still has
    size, not_before = min(room, job.limit), None
    if job.pending and job.workers == size:
        size, not_before = min(room, job.pending.workers), job.pending.at_samples
    last = before.allocations.get(job.id) if before else None
    if last and (last.workers, last.kappa, last.not_before) == (size, job.kappa, not_before):
        return last
    if job.pending and not_before is not None:
        cause, reason, requested_at = _deferred(job.pending)
    else:
        cause, reason, requested_at = _why(job, grants, situation, before)
    return Allocation(
        workers=size, kappa=job.kappa, not_before=not_before, cause=cause, reason=reason, requested_at=requested_at
    )


_Why = tuple[str, str, datetime]  # cause, reason, time of the request


def _why(job: Standing, grants: Mapping[str, Grant], now: Situation, before: Decision | None) -> _Why:
    """What made the job's allocation change: the first that holds."""
    old = before.situation.jobs.get(job.id) if before else None
    if before is None or old is None or job.id not in before.allocations:
        return "start", grants[job.id].reason, now.at if job.started else job.since
    if job.target_at is not None and job.target_at != old.target_at:
        if job.target is None:
            return "api", "What was asked for was taken back.", job.target_at
        return "api", f"{counted(job.target, 'worker')} requested.", job.target_at
    if _limits(job) != _limits(old):
        return "patch", f"{_span(job)} at priority {job.priority}, as it was changed to.", job.changed
    if now.rooms != before.situation.rooms:
        have, had = (slots(job.cpu, job.gpu, each.rooms) for each in (now, before.situation))
        return "capacity", f"The cluster went from {had} to {counted(have, 'slot')}.", now.at
    return _others(job, grants, now, before)


def _deferred(resize: PendingResize) -> _Why:
    reason = f"{counted(resize.workers, 'worker')} requested from sample {resize.at_samples} on."
    return "api", reason, resize.requested_at


def _limits(job: Standing) -> tuple[object, ...]:
    return job.minimum, job.maximum, job.kappa, job.priority


def _span(job: Standing) -> str:
    return f"{job.minimum} to {counted(job.maximum, 'worker')}"


def _others(job: Standing, grants: Mapping[str, Grant], now: Situation, before: Decision) -> _Why:
    """Which other jobs made the difference, the one that came or changed last giving the time."""
    sentences, times = [], []
    for other in now.jobs.values():
        has, had = grants[other.id].workers, before.grants[other.id].workers if other.id in before.grants else 0
        if other.id != job.id and has != had:
            verb = "goes on with" if had else "starts with"
            sentences.append(f"{other.name} (priority {other.priority}) {verb} {counted(has, 'worker')}.")
            times.append(other.arrived if other.id not in before.situation.jobs else now.at)
    for gone in before.situation.jobs.keys() - now.jobs.keys():
        if freed := before.grants[gone].workers:
            sentences.append(f"{before.situation.jobs[gone].name} gave {counted(freed, 'worker')} back.")
            times.append(now.at)
    if not sentences:
        return "allocator", grants[job.id].reason, now.at
    return "allocator", " ".join(sorted(sentences)), max(times)
