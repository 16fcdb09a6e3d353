"""Who belongs to the next generation of a job, and who hands state to whom. Pure decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workers.status import Phase, Status


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A generation as it is announced to every worker that is in it, or leaves with it."""

    generation: int
    members: tuple[str, ...]  # worker ids; the position is the rank, and rank 0 leads
    kappa: tuple[float, float]  # limits of the batch multiplier
    host: str = ""  # of the store where it meets; none for a generation that was found, and has met
    port: int = 0
    not_before: int = 0  # samples seen before which the generation must not begin
    cause: str = ""  # api, allocator, rank_lost, ...
    reason: str = ""  # a sentence
    decide_s: float = 0.0  # from the request to this plan

    def rank_of(self, worker: str) -> int | None:
        """The worker's rank; None where it is left out."""
        return self.members.index(worker) if worker in self.members else None


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the job is to have."""

    workers: int
    minimum: int  # fewest to begin with; whoever trains already goes on with fewer
    kappa: tuple[float, float]
    not_before: int = 0
    ends: bool = False  # whoever has a state shall leave a checkpoint and end
    avoid: frozenset[str] = frozenset()  # nodes that are to leave
    urgent: frozenset[str] = frozenset()  # those among them that nobody can wait on any more


@dataclass(frozen=True, kw_only=True)
class Move:
    """What is to be done next."""

    members: tuple[str, ...] | None = None  # announce a generation of these
    start: int = 0  # workers
    dismiss: tuple[str, ...] = ()
    retire: bool = False  # all who train: they leave a checkpoint and end


def is_broken(plan: Plan, workers: Mapping[str, Status]) -> bool:
    """Whether this generation is of no use any more: a member is gone, or got out of it by a failure."""
    return any(member not in workers or workers[member].broken >= plan.generation for member in plan.members)


def has_begun(plan: Plan, workers: Mapping[str, Status]) -> bool:
    """Whether somebody with a state has come to this generation. Before, those who train are still in the last one."""
    return any(status.samples >= 0 and status.generation >= plan.generation for status in workers.values())


def has_entered(plan: Plan, workers: Mapping[str, Status]) -> bool:
    """Whether all of its members that live train in this generation."""
    return all(_trains_in(plan, workers[name]) for name in plan.members if name in workers)


def next_move(wish: Wish, plan: Plan | None, workers: Mapping[str, Status], *, patient: bool) -> Move:
    """From the wish, the last generation announced and the workers that live, to what is done next.

    `patient`: those who warm up are waited for before the job begins or grows. A loss is answered at once, with whoever
    is there. The newest worker leaves first, so the lead stays the lead while it lives, and a grow moves nobody; but
    those on a node that is to leave go before all others, once others are warm in their place.
    """
    core = [name for name in plan.members if name in workers] if plan else []
    warming, spare, stranded = _idle(core, wish, workers)
    moves = _staffing(wish, core, warming, spare, workers)
    moves = replace(moves, dismiss=(*moves.dismiss, *stranded))
    if plan is None or not core:
        begins = len(spare) >= wish.workers or (len(spare) >= wish.minimum and not (warming and patient))
        return replace(moves, members=_chosen(spare, wish, workers) if begins and _all_out(workers) else None)
    if is_broken(plan, workers):
        out = _all_out(workers) and all(workers[name].broken >= plan.generation for name in core)
        farthest = max(workers[name].samples for name in [*core, *spare]) if out else 0
        out = out or not has_begun(plan, workers)
        return replace(moves, members=_chosen([*core, *spare], wish, workers, farthest) if out else None)
    if any(workers[name].phase is Phase.DONE for name in core):
        return Move()
    entered = has_entered(plan, workers)
    if entered and (wish.ends or _is_cornered(wish, plan, workers)):
        return replace(moves, retire=True)
    deferred = plan.not_before > 0 and not entered and not has_begun(plan, workers)
    superseded = deferred and plan.not_before != wish.not_before
    changed = superseded or wish.kappa != plan.kappa
    # If a generation is due in any case, those who are warm come along.
    due = changed or any(workers[name].node in wish.urgent for name in core)
    joiners = spare if due or not (warming and patient) else []
    target = _chosen([*core, *joiners], wish, workers)
    changed = changed or target != plan.members
    return replace(moves, members=target if changed and (entered or superseded) else None)


def _trains_in(plan: Plan, status: Status) -> bool:
    """Not one that is still joining: a plan that came then would tear it out, and with it those who train already."""
    return status.phase is Phase.TRAINING and status.generation == plan.generation


def _is_cornered(wish: Wish, plan: Plan, workers: Mapping[str, Status]) -> bool:
    """Whether all members live where nobody can stay, and nobody lives elsewhere who could take the state over."""
    cornered = all(workers[name].node in wish.urgent for name in plan.members)
    return cornered and not any(status.node and status.node not in wish.avoid for status in workers.values())


def _idle(core: Sequence[str], wish: Wish, workers: Mapping[str, Status]) -> tuple[list[str], list[str], list[str]]:
    """Of those who are in no generation: who warms up; who is ready, first those with a state; who is of no use.

    Of no use is whoever has no state and lives on a node that is to leave.
    """
    idle = {name: status for name, status in workers.items() if name not in core}
    stranded = [name for name, status in idle.items() if status.node in wish.avoid and status.samples < 0]
    of_use = {name: status for name, status in idle.items() if name not in stranded}
    warming = [name for name, status in of_use.items() if status.phase is Phase.WARMING]
    spare = [name for name, status in of_use.items() if status.phase is Phase.READY]
    spare.sort(key=lambda name: workers[name].samples < 0)
    return warming, spare, [name for name in stranded if workers[name].phase in (Phase.WARMING, Phase.READY)]


def _staffing(
    wish: Wish, core: Sequence[str], warming: Sequence[str], spare: Sequence[str], workers: Mapping[str, Status]
) -> Move:
    """How many to start, or which of those who do not train to send away, the newest first."""
    idle = [*spare, *warming]
    staying = [name for name in [*core, *idle] if workers[name].node not in wish.avoid]
    lacking = wish.workers - len(staying)
    return Move(start=max(0, lacking), dismiss=tuple(idle[lacking:]) if lacking < 0 else ())


def _chosen(names: Sequence[str], wish: Wish, workers: Mapping[str, Status], farthest: int = 0) -> tuple[str, ...]:
    """Which of them, in this order, make the next generation.

    Somebody who has committed `farthest` samples is among them, if there is one: who has no state gets it from there.
    So the last one on a node that is to leave first trains beside the one that takes its place.
    """
    steady = [name for name in names if workers[name].node not in wish.avoid]
    lingering = [name for name in names if workers[name].node in wish.avoid - wish.urgent]
    best = [*steady, *lingering][: wish.workers]
    sources = [name for name in [*steady, *names] if workers[name].samples >= farthest]
    if sources and not set(best) & set(sources):
        others = wish.workers - 1 if sources[0] in steady else max(1, wish.workers - 1)
        best = [*best[:others], sources[0]]
    return tuple(name for name in names if name in best) or tuple(names[: wish.workers])


def _all_out(workers: Mapping[str, Status]) -> bool:
    """Whether nobody is in a process group."""
    return not any(status.phase in (Phase.JOINING, Phase.TRAINING) for status in workers.values())


@dataclass(frozen=True, kw_only=True)
class Transfers:
    """Who has the state of a new generation, and who needs it."""

    sources: tuple[int, ...]  # ranks; never empty
    receivers: tuple[int, ...]
    fresh: bool  # nobody had any: rank 0 restores or begins

    def source_of(self, item: int) -> int:
        """The rank that sends item number `item`: the sources take turns."""
        return self.sources[item % len(self.sources)]


def transfers(standings: Sequence[int]) -> Transfers:
    """From each rank's samples committed (-1: has no state) to who sends to whom.

    Whoever is most advanced is a source: a step that one member took was confirmed by all, so the
    others catch up and nothing is taken back.
    """
    best = max(standings)
    if best < 0:
        return Transfers(sources=(0,), receivers=tuple(range(1, len(standings))), fresh=True)
    sources = tuple(rank for rank, samples in enumerate(standings) if samples == best)
    return Transfers(
        sources=sources, receivers=tuple(r for r in range(len(standings)) if r not in sources), fresh=False
    )


@dataclass(frozen=True, kw_only=True)
class Change:
    """What entering a generation changed: the substance of a Started or Resized event."""

    generation: int
    cause: str
    reason: str
    decide_s: float
    samples: int
    restored: bool  # from a durable checkpoint, or from nothing
    workers: tuple[int, int]  # before, after; the same where there was nothing before
    kappa: tuple[float, float]
    batch: tuple[int, int]
    before: dict[str, Any]  # hyperparameters
    after: dict[str, Any]
    state_factors: dict[str, float]
    warnings: list[str] = field(default_factory=list)
