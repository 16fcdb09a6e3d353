"""Whose training thread hangs. Pure decisions, from how each worker says that it is.

In a synchronous group one that hangs stops all: the others wait for it in their next collective. So only one that
computes can be the culprit, and those who wait are not touched. If everybody waits for everybody, the group is of no
use, and nobody is to blame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from workers.status import Activity, Phase, Status

LEAST_S, STEPS = 10.0, 20.0
"""The stall time of a job that names none: so many steps, so many seconds at least."""

FIRST, RARE = 30.0, 60.0
ALLOWED: dict[Activity, float] = {
    Activity.STEP: 1.0,
    Activity.LEAVE: 1.0,
    Activity.FIRST_STEP: FIRST,
    Activity.WARM_UP: RARE,
    Activity.JOIN: RARE,
    Activity.EVALUATE: RARE,
    Activity.CHECKPOINT: RARE,
    Activity.EXPORT: RARE,
    Activity.IDLE: float("inf"),
}
"""How long each may go without progress, in stall times. A first step may compile, and may have many times the samples
of the last one if the others were lost; whoever is given up for that would be given up again and again. What is rare is
as long as data and storage make it, and nobody has measured it: an evaluation beats with every forward pass, but what
comes after them (a sort, an FID) does not."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to be done."""

    hang: Mapping[str, str] = field(default_factory=dict)  # to be given up: worker -> reason
    stuck: int = 0  # the generation to be severed, since everybody in it waits; 0: none


def stall_s(workers: Mapping[str, Status], asked: float | None) -> float:
    """The stall time: that asked for, or by the shortest of the workers' last steps.

    The shortest, because whoever waited for an evaluation of the lead counts that into its step.
    """
    return asked or max(LEAST_S, STEPS * min(_measured(workers), default=0.0))


def judge(workers: Mapping[str, Status], *, asked: float | None, severed: int) -> Verdict:
    """`severed`: the last generation that everybody was told to get out of."""
    overdue = {n for n, status in workers.items() if status.doing.still_s > _allowed_s(status, workers, asked)}
    hang = {name for name in overdue if workers[name].phase is Phase.WARMING}
    stuck = 0
    for generation, members in _groups(workers):
        late = {name for name in members if name in overdue and _is_in(generation, workers[name], severed)}
        culprits = [name for name in late if not _is_excused(workers[name])]
        if culprits:  # one at a time: the others may have had to wait for it, unseen
            hang.add(max(culprits, key=lambda name: workers[name].doing.still_s))
        elif generation > severed and late == members:
            stuck = generation
    return Verdict(hang={name: _reason(workers[name]) for name in sorted(hang)}, stuck=stuck)


def _allowed_s(status: Status, workers: Mapping[str, Status], asked: float | None) -> float:
    """A first step that is the first of all has nothing to be compared with; and whoever waits for others that it was
    told are gone has nothing to wait for.
    """
    if status.doing.waits and _in_group(status) and status.broken >= status.generation:
        return min(LEAST_S, stall_s(workers, asked))
    times = ALLOWED[status.doing.activity]
    if status.doing.activity is Activity.FIRST_STEP and not _measured(workers):
        times = RARE
    return times * stall_s(workers, asked)


def _measured(workers: Mapping[str, Status]) -> list[float]:
    return [status.step_s for status in workers.values() if status.step_s > 0]


def _in_group(status: Status) -> bool:
    return status.phase in (Phase.JOINING, Phase.TRAINING)


def _groups(workers: Mapping[str, Status]) -> Iterator[tuple[int, set[str]]]:
    """The generations that somebody is in, in ascending order, and their members."""
    found = {status.generation: set(status.members) for status in workers.values() if _in_group(status)}
    return iter(sorted(found.items()))


def _is_in(generation: int, status: Status, severed: int) -> bool:
    """And where the generation was severed: it has heard of that, and this is how it is since then."""
    heard = generation > severed or status.broken >= generation
    return _in_group(status) and status.generation == generation and heard


def _is_excused(status: Status) -> bool:
    """It waits for others, and nobody has told it to stop that."""
    leaves = status.doing.activity is Activity.LEAVE or status.broken >= status.generation
    return status.doing.waits and not leaves


def _reason(status: Status) -> str:
    doing = status.doing
    return f"Its training hangs: no progress for {doing.still_s:.3g} s in {doing.activity}, at {doing.where}."
