"""PURE: (jobs, nodes, policy) -> how many workers each job gets, and why.

A policy returns a decision; others act on it. It knows no clock, no database and no cluster. To add
one, write a function of the signature `Policy` and give it a row in `POLICIES`.

Workers are packed onto nodes: a worker must fit one node. The packing is exact as long as the sizes
of workers divide each other (1, 2, 4 CPU ...); for others it may leave room that a better packing
would find, and it never promises room that there is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from api_schemas.wording import counted

_UNITS = 10_000  # per CPU, as Ray counts them: integers add up, tenths do not
NAMED = 3  # other jobs that a sentence names


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a node offers in all."""

    node: str
    cpu: float
    gpu: float = 0


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a job may have, and what it has."""

    job: str
    name: str  # for sentences
    priority: int  # higher first
    arrived: datetime  # older first
    minimum: int  # fewest workers, at least 1
    maximum: int  # most workers, at least the minimum; a requested size caps it
    cpu: float = 1  # of one worker
    gpu: float = 0
    current: int = 0  # workers that it was given; 0: it waits to be started


@dataclass(frozen=True, kw_only=True)
class Grant:
    """How many workers a job gets: 0, or at least its minimum."""

    workers: int
    reason: str  # a sentence that a person can act on
    bound: str = ""  # why not more, to end a sentence with; empty where it may have no more, and where it has none
    fits: bool = True  # False: the cluster is too small for it, whatever the other jobs do


Policy = Callable[[Sequence[Demand], Sequence[Room]], dict[str, Grant]]


def priority(jobs: Sequence[Demand], nodes: Sequence[Room]) -> dict[str, Grant]:
    """Higher priority first; within a priority older first, then equal shares.

    1. A job that runs keeps its minimum: it shrinks for others, but is never evicted.
    2. Then priority by priority, from the highest: jobs that wait get their minimum, the oldest first;
       what is left goes to the jobs of this priority in equal increments above their minimum, each up
       to its maximum; what is left then goes to the next priority.
    3. The first job that finds no room for its minimum holds up those behind it, so that small jobs
       cannot starve a large one; unless it is larger than the cluster: then nobody waits for it.

    Of two equally good outcomes the one that moves nobody is taken, so a decision that was applied
    stands until something changes.
    """
    table = _Table(nodes)
    order = sorted(jobs, key=_rank)
    waiting = _start([job for job in order if job.current > 0], table, None)
    for _, level in groupby(order, key=lambda job: job.priority):
        peers = list(level)
        waiting = _start([job for job in peers if job.current == 0], table, waiting)
        _share(peers, table)
    return {job.job: _explain(job, order, table, waiting) for job in order}


POLICIES: dict[str, Policy] = {"priority": priority}


def allocate(jobs: Sequence[Demand], nodes: Sequence[Room], policy: str) -> dict[str, Grant]:
    """The decision of the policy of that name, by job. KeyError: there is no such policy."""
    return POLICIES[policy](jobs, nodes)


def _rank(job: Demand) -> tuple[int, datetime, str]:
    return -job.priority, job.arrived, job.job


def _start(jobs: Sequence[Demand], table: _Table, waiting: Demand | None) -> Demand | None:
    """Give each its minimum, in order, until one finds no room: the one that the others wait for."""
    for job in jobs:
        running = job.current > 0
        if (running or waiting is None) and not table.raise_to(job, job.minimum) and waiting is None:
            waiting = job if table.slots(job) >= job.minimum else None
    return waiting


def _share(peers: Sequence[Demand], table: _Table) -> None:
    """Deal what is left, a worker at a time, to those who got the fewest above their minimum."""
    able = [job for job in peers if 0 < table.given.get(job.job, 0) < job.maximum]
    while able:
        job = min(able, key=lambda job: _turn(job, table.given[job.job]))
        if not table.raise_to(job, table.given[job.job] + 1) or table.given[job.job] == job.maximum:
            able.remove(job)


def _turn(job: Demand, given: int) -> tuple[int, bool, tuple[int, datetime, str]]:
    """Fewest increments first; among equals, who has the worker already; then the older."""
    return given - job.minimum, given >= job.current, _rank(job)


_Shape = tuple[int, int]  # GPU and CPU of one worker, in units: the order in which they are packed


def _shape(gpu: float, cpu: float) -> _Shape:
    return round(gpu * _UNITS), round(cpu * _UNITS)


def _times(room: _Shape, shape: _Shape) -> int:
    """How many workers of this shape fit the room."""
    return min((have // need for have, need in zip(room, shape, strict=True) if need), default=0)


class _Table:
    """Workers given so far, and whether more fit beside them."""

    def __init__(self, nodes: Iterable[Room]) -> None:
        self._nodes = sorted(nodes, key=lambda node: (node.gpu, node.cpu, node.node))  # nodes without GPU first
        self._rooms = [_shape(node.gpu, node.cpu) for node in self._nodes]
        self._counts: dict[_Shape, int] = {}
        self.given: dict[str, int] = {}

    def raise_to(self, job: Demand, workers: int) -> bool:
        """Give the job so many workers if they fit beside all that was given; else leave it as it is."""
        shape, before = _shape(job.gpu, job.cpu), self.given.get(job.job, 0)
        counts = {**self._counts, shape: self._counts.get(shape, 0) - before + workers}
        if not self._packs(counts):
            return False
        self._counts, self.given[job.job] = counts, workers
        return True

    def slots(self, job: Demand) -> int:
        """How many of this job's workers the empty cluster holds."""
        return slots(job.cpu, job.gpu, self._nodes)

    def _packs(self, counts: Mapping[_Shape, int]) -> bool:
        """Largest workers first, each on the first node with room."""
        free = list(self._rooms)
        return all(_place(shape, counts[shape], free) == 0 for shape in sorted(counts, reverse=True))


def _place(shape: _Shape, count: int, free: list[_Shape]) -> int:
    """Take room for `count` workers from `free`; how many found none."""
    gpu, cpu = shape
    for index, room in enumerate(free):
        if not count:
            break
        taken = min(count, _times(room, shape))
        free[index] = (room[0] - taken * gpu, room[1] - taken * cpu)
        count -= taken
    return count


def slots(cpu: float, gpu: float, nodes: Iterable[Room]) -> int:
    """How many workers that take so much the empty cluster holds."""
    return sum(_times(_shape(node.gpu, node.cpu), _shape(gpu, cpu)) for node in nodes)


def _explain(job: Demand, order: Sequence[Demand], table: _Table, waiting: Demand | None) -> Grant:
    given = table.given.get(job.job, 0)
    if given:
        bound = _bound(job, given, order, table)
        return Grant(
            workers=given, reason=f"{counted(given, 'worker')}: {bound or 'as many as it may have'}.", bound=bound
        )
    need = f"Needs {counted(job.minimum, 'worker')} of {_resources(job)}"
    if table.slots(job) < job.minimum:
        return Grant(workers=0, reason=f"{need}; the cluster has {counted(table.slots(job), 'slot')}.", fits=False)
    if waiting is not None and waiting is not job:
        return Grant(workers=0, reason=f"{need}; waits behind {waiting.name}, which is first in the queue.")
    holders = [other.name for other in order if table.given.get(other.job, 0)]
    return Grant(workers=0, reason=f"{need}; waits for slots that {_listed(holders) or 'others'} cannot do without.")


def _bound(job: Demand, given: int, order: Sequence[Demand], table: _Table) -> str:
    if given == job.maximum:
        return ""
    if given >= table.slots(job):
        return "the cluster has room for no more"
    others = [other.name for other in order if other is not job and table.given.get(other.job, 0)]
    return f"the cluster is shared with {_listed(others)}"


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b, c and 4 others`."""
    named = list(names[:NAMED])
    if len(names) > NAMED:
        named.append(counted(len(names) - NAMED, "other"))
    return " and ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))


def _resources(job: Demand) -> str:
    parts = [f"{job.cpu:g} CPU" if job.cpu else "", f"{job.gpu:g} GPU" if job.gpu else ""]
    return " and ".join(part for part in parts if part)
