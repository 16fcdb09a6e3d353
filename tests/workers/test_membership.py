"""Who belongs to the next generation: what holds in every situation, and the whole way of a job to a size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.membership import Move, Plan, Wish, is_broken, next_move, transfers
from workers.status import Phase, Status

HERE, THERE = "here", "there"
KAPPA = (0.5, 8.0)
OTHER_KAPPA = (1.0, 1.0)


def plan(*members: str, generation: int = 1, not_before: int = 0, kappa: tuple[float, float] = KAPPA) -> Plan:
    return Plan(
        generation=generation,
        members=members,
        host="",
        port=0,
        not_before=not_before,
        kappa=kappa,
        cause="",
        reason="",
        decide_s=0.0,
    )


def wish(workers: int, *, minimum: int = 1, not_before: int = 0, **others: Any) -> Wish:
    return Wish(workers=workers, minimum=minimum, not_before=not_before, **{"kappa": KAPPA} | others)


def leaving(workers: int, *, urgent: bool = False) -> Wish:
    """HERE is to leave."""
    return wish(workers, avoid=frozenset({HERE}), urgent=frozenset({HERE} if urgent else ()))


def warming(node: str = "") -> Status:
    return Status(phase=Phase.WARMING, node=node)


def ready(node: str = "", *, generation: int = 0, broken: int = 0) -> Status:
    samples = 64 if generation else -1
    return Status(phase=Phase.READY, node=node, generation=generation, broken=broken, samples=samples)


def training(generation: int = 1, node: str = "") -> Status:
    return Status(phase=Phase.TRAINING, node=node, generation=generation, samples=64)


def move(wanted: Wish, last: Plan | None, workers: dict[str, Status], *, patient: bool = True) -> Move:
    return next_move(wanted, last, workers, patient=patient)


# -- what holds in every situation -------------------------------------------------------------------------------------


@st.composite
def situations(draw: st.DrawFn) -> tuple[Wish, Plan | None, dict[str, Status], bool]:
    """Up to six workers, oldest first, some of them members of a plan, of whom some are dead."""
    names = [f"w{number}" for number in range(draw(st.integers(0, 6)))]
    generation = draw(st.integers(1, 4))
    members = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    last = (
        plan(*sorted(members), generation=generation, not_before=draw(st.sampled_from([0, 100]))) if members else None
    )
    workers = {}
    intact = draw(st.booleans())
    for name in names:
        member = name in members
        if member and intact:
            workers[name] = training(generation)
            continue
        outside = [Phase.READY] if member else [Phase.READY, Phase.WARMING]
        phase = draw(st.sampled_from([*outside, Phase.JOINING, Phase.TRAINING, Phase.DONE]))
        entered = draw(st.integers(0, generation))
        samples = draw(st.sampled_from([-1, 64])) if phase is not Phase.TRAINING else 64
        broken = draw(st.integers(0, generation))
        workers[name] = Status(phase=phase, generation=entered, broken=broken, samples=samples)
        if draw(st.booleans()) and draw(st.booleans()):
            del workers[name]
    kappa, not_before = draw(st.sampled_from([KAPPA, OTHER_KAPPA])), draw(st.sampled_from([0, 100, 200]))
    wanted = wish(draw(st.integers(1, 6)), minimum=draw(st.integers(1, 3)), kappa=kappa, not_before=not_before)
    return wanted, last, workers, draw(st.booleans())


@st.composite
def departing(draw: st.DrawFn) -> tuple[Wish, Plan | None, dict[str, Status], bool]:
    """The same, with a node that is to leave."""
    wanted, last, workers, patient = draw(situations())
    nodes = draw(st.lists(st.sampled_from([HERE, THERE]), min_size=len(workers), max_size=len(workers)))
    placed = {name: replace(status, node=node) for (name, status), node in zip(workers.items(), nodes, strict=True)}
    urgent = frozenset({HERE} if draw(st.booleans()) else ())
    return replace(wanted, avoid=frozenset({HERE}), urgent=urgent), last, placed, patient


def every_situation(test: Callable[[Any], None]) -> Callable[[], None]:
    return settings(deadline=None)(given(situations())(test))


def every_departure(test: Callable[[Any], None]) -> Callable[[], None]:
    return settings(deadline=None)(given(departing())(test))


@every_situation
def test_members_live_are_warm_and_no_more_than_wished_for(situation: Any) -> None:
    wanted, last, workers, patient = situation
    members = move(wanted, last, workers, patient=patient).members or ()
    assert len(members) <= wanted.workers
    assert len(set(members)) == len(members)
    assert all(workers[member].phase is not Phase.WARMING for member in members)


@every_situation
def test_nothing_is_announced_while_somebody_is_in_a_group_unless_the_plan_is_intact_and_entered(
    situation: Any,
) -> None:
    """Or it came to nothing before anybody who trains was in it, or was for another moment than is wished for now."""
    wanted, last, workers, patient = situation
    if move(wanted, last, workers, patient=patient).members is None:
        return
    if any(status.phase in (Phase.JOINING, Phase.TRAINING) for status in workers.values()):
        assert last is not None
        if is_broken(last, workers):
            assert not any(each.samples >= 0 and each.generation >= last.generation for each in workers.values())
            return
        entered = all(workers[member].generation == last.generation for member in last.members)
        deferred_otherwise = last.not_before > 0 and last.not_before != wanted.not_before
        assert entered or deferred_otherwise


@every_situation
def test_who_stays_keeps_the_order_of_age_so_the_lead_stays_the_lead(situation: Any) -> None:
    wanted, last, workers, patient = situation
    members = move(wanted, last, workers, patient=patient).members
    if not members or last is None:
        return
    core = tuple(member for member in last.members if member in workers)
    if any(workers[member].samples >= 0 for member in core[: len(members)]):  # else somebody with a state comes in
        assert members[: len(core)] == core[: len(members)]


@every_situation
def test_only_idle_workers_are_dismissed_the_newest_first_and_never_while_others_start(situation: Any) -> None:
    wanted, last, workers, patient = situation
    found = move(wanted, last, workers, patient=patient)
    core = last.members if last else ()
    spare = [name for name, status in workers.items() if status.phase is Phase.READY and name not in core]
    fresh = [name for name, status in workers.items() if status.phase is Phase.WARMING]
    assert not (found.start and found.dismiss)
    assert found.start >= 0
    idle = [*sorted(spare, key=lambda name: workers[name].samples < 0), *fresh]  # a state is kept as long as can be
    assert list(found.dismiss) == idle[len(idle) - len(found.dismiss) :]


@every_situation
def test_a_warm_worker_is_taken_along_or_dismissed(situation: Any) -> None:
    wanted, last, workers, patient = situation
    found = move(wanted, last, workers, patient=patient)
    if not found.members:
        return
    core = last.members if last else ()
    spare = {name for name, status in workers.items() if status.phase is Phase.READY and name not in core}
    assert spare <= {*found.members, *found.dismiss}


# -- a node is to leave ------------------------------------------------------------------------------------------------


def candidates(last: Plan | None, workers: dict[str, Status]) -> dict[str, Status]:
    """Who may be in the next generation."""
    members = last.members if last else ()
    return {name: each for name, each in workers.items() if name in members or each.phase is Phase.READY}


@every_departure
def test_a_state_that_somebody_has_is_in_the_next_generation(situation: Any) -> None:
    wanted, last, workers, patient = situation
    members = move(wanted, last, workers, patient=patient).members
    if members and any(each.samples >= 0 for each in candidates(last, workers).values()):
        assert any(workers[member].samples >= 0 for member in members)


@every_departure
def test_one_worker_too_many_at_most_and_only_to_hand_its_state_over(situation: Any) -> None:
    wanted, last, workers, patient = situation
    members = move(wanted, last, workers, patient=patient).members or ()
    if len(members) > wanted.workers:
        assert (len(members), wanted.workers) == (2, 1)
        (holder,) = (member for member in members if workers[member].samples >= 0)
        assert workers[holder].node == HERE


@every_departure
def test_nobody_stays_where_a_node_leaves_in_place_of_one_who_is_warm_elsewhere(situation: Any) -> None:
    wanted, last, workers, patient = situation
    members = move(wanted, last, workers, patient=patient).members or ()
    here = [member for member in members if workers[member].node == HERE]
    left_out = {name for name, each in candidates(last, workers).items() if each.node == THERE} - {*members}
    if here and left_out:
        assert len(here) == 1  # the only one who has a state, or has it in full


@every_departure
def test_nobody_without_a_state_is_kept_waiting_on_a_node_that_leaves(situation: Any) -> None:
    wanted, last, workers, patient = situation
    found = move(wanted, last, workers, patient=patient)
    if any(workers[member].phase is Phase.DONE for member in workers if last and member in last.members):
        return
    core = last.members if last else ()
    for name, each in workers.items():
        if name not in core and each.node == HERE and each.phase in (Phase.READY, Phase.WARMING) and each.samples < 0:
            assert name in found.dismiss


def test_those_on_a_node_that_leaves_go_first() -> None:
    workers = {"w0": training(node=HERE), "w1": training(node=THERE), "w2": training(node=THERE)}
    assert move(leaving(2), plan("w0", "w1", "w2"), workers) == Move(members=("w1", "w2"))
    assert move(leaving(1), plan("w0", "w1", "w2"), workers) == Move(members=("w1",))


def test_they_stay_until_others_are_warm_in_their_place_unless_it_is_urgent() -> None:
    last = plan("w0", "w1")
    workers = {"w0": training(node=HERE), "w1": training(node=THERE)}
    assert move(leaving(2), last, workers) == Move(start=1)
    assert move(leaving(2, urgent=True), last, workers) == Move(start=1, members=("w1",))
    workers["w2"] = warming()
    assert move(leaving(2), last, workers) == Move()
    assert move(leaving(2, urgent=True), last, workers) == Move(members=("w1",))
    workers["w2"] = ready(THERE)
    assert move(leaving(2), last, workers) == Move(members=("w1", "w2"))


def test_the_last_one_hands_its_state_over_before_it_goes() -> None:
    workers = {"w0": training(node=HERE), "w1": ready(THERE)}
    assert move(leaving(1), plan("w0"), workers) == Move(members=("w0", "w1"))
    both = {"w0": training(2, node=HERE), "w1": training(2, node=THERE)}
    assert move(leaving(1), plan("w0", "w1", generation=2), both) == Move(members=("w1",))


def test_with_nobody_elsewhere_all_leave_a_checkpoint_once_it_is_urgent() -> None:
    alone = {"w0": training(node=HERE), "w1": training(node=HERE), "w2": warming()}
    assert move(leaving(2), plan("w0", "w1"), alone) == Move(start=1)
    assert move(leaving(2, urgent=True), plan("w0", "w1"), alone) == Move(start=1, retire=True)


def test_one_that_warms_up_elsewhere_is_waited_for_and_the_last_one_trains_to_the_end() -> None:
    for other in (warming(THERE), training(node=THERE)):
        assert not move(leaving(2, urgent=True), plan("w0", "w1"), {"w0": training(node=HERE), "w1": other}).retire


def test_after_a_loss_whoever_got_farthest_is_there_even_where_it_is_to_leave() -> None:
    last = plan("w0", "w1", "w2", generation=3)
    lost = {"w0": ready(THERE, generation=3, broken=3), "w1": ready(HERE, generation=3, broken=3)}
    lost["w1"] = replace(lost["w1"], samples=128)
    assert move(leaving(1), last, lost).members == ("w0", "w1")


# -- a whole way -------------------------------------------------------------------------------------------------------


class IdealWorld:
    """Workers that get warm, enter what was announced, and die when they are told to; one thing at a time."""

    def __init__(self) -> None:
        self.node = HERE  # where workers start
        self.plan: Plan | None = None
        self.workers: dict[str, Status] = {}
        self.moves: list[Move] = []
        self._named = 0

    @property
    def members(self) -> tuple[str, ...]:
        return self.plan.members if self.plan else ()

    def is_quiet_at(self, wanted: Wish) -> bool:
        return move(wanted, self.plan, self.workers) == Move()

    def round(self, wanted: Wish) -> None:
        """What the controller does, and what follows from it at once."""
        found = move(wanted, self.plan, self.workers)
        self.moves.append(found)
        for name in found.dismiss:
            del self.workers[name]
        for _ in range(found.start):
            self.workers[f"w{self._named}"] = warming(self.node)
            self._named += 1
        if found.members:
            generation = self.plan.generation + 1 if self.plan else 1
            self.plan = plan(*found.members, generation=generation, kappa=wanted.kappa, not_before=wanted.not_before)

    def warm(self, name: str) -> None:
        if self.workers[name].phase is Phase.WARMING:
            self.workers[name] = ready(self.workers[name].node)

    def enter(self) -> None:
        """Everybody gets to the last generation, or leaves."""
        if self.plan is None or is_broken(self.plan, self.workers):
            return
        holders = {name for name, status in self.workers.items() if status.samples >= 0}
        assert not holders or holders & {*self.plan.members}, "a state is lost"
        for name, status in list(self.workers.items()):
            if name in self.plan.members:
                self.workers[name] = training(self.plan.generation, status.node)
            elif status.phase is Phase.TRAINING:
                del self.workers[name]

    def die(self, name: str) -> None:
        """The others get out of the generation by the failure."""
        del self.workers[name]
        if name in self.members:
            assert self.plan is not None
            broken = self.plan.generation
            for other, status in self.workers.items():
                if status.phase is not Phase.WARMING:
                    self.workers[other] = replace(status, phase=Phase.READY, broken=broken)


@settings(deadline=None)
@given(st.data())
def test_an_ideal_world_reaches_the_wish_and_then_is_silent(data: st.DataObject) -> None:
    world = IdealWorld()
    for _ in range(data.draw(st.integers(1, 3), "wishes")):
        wanted = wish(data.draw(st.integers(1, 5), "workers"), kappa=data.draw(st.sampled_from([KAPPA, OTHER_KAPPA])))
        for _ in range(data.draw(st.integers(0, 6), "mishaps")):
            world.round(wanted)
            event = data.draw(st.sampled_from(["warm", "enter", "die"]))
            if event == "enter":
                world.enter()
            elif world.workers:
                getattr(world, event)(data.draw(st.sampled_from(sorted(world.workers))))
        for _ in range(8):
            world.round(wanted)
            for name in list(world.workers):
                world.warm(name)
            world.enter()
        assert len(world.members) == wanted.workers
        assert set(world.members) == set(world.workers)
        assert world.is_quiet_at(wanted)


@settings(deadline=None)
@given(st.data())
def test_in_an_ideal_world_a_node_is_left_with_the_state_and_the_size_is_kept(data: st.DataObject) -> None:
    world = IdealWorld()
    size, after = data.draw(st.integers(1, 4), "workers"), data.draw(st.integers(1, 4), "workers then")
    urgent = data.draw(st.booleans(), "urgent")
    for wanted in [wish(size)] * 4 + [leaving(after, urgent=urgent)] * 6:
        world.node = THERE if wanted.avoid else HERE
        world.round(wanted)
        for name in list(world.workers):
            if data.draw(st.booleans(), "warm"):
                world.warm(name)
        world.enter()
    for _ in range(8):
        world.round(leaving(after))
        for name in list(world.workers):
            world.warm(name)
        world.enter()
    assert len(world.members) == after
    assert {world.workers[member].node for member in world.members} == {THERE}
    assert set(world.members) == set(world.workers)
    assert world.is_quiet_at(leaving(after))


def test_a_way_up_and_down_moves_nobody_who_stays() -> None:
    world = IdealWorld()
    ways = []
    for size in (2, 4, 3, 1):
        for _ in range(4):
            world.round(wish(size))
            for name in list(world.workers):
                world.warm(name)
            world.enter()
        ways.append(world.members)
    assert ways == [("w0", "w1"), ("w0", "w1", "w2", "w3"), ("w0", "w1", "w2"), ("w0",)]
    assert len([each for each in world.moves if each.members]) == 4


# -- beginning ---------------------------------------------------------------------------------------------------------


def test_a_job_begins_with_all_or_impatiently_with_the_minimum() -> None:
    workers = {"w0": ready(), "w1": ready(), "w2": warming()}
    assert move(wish(3, minimum=2), None, workers).members is None
    assert move(wish(3, minimum=2), None, workers, patient=False).members == ("w0", "w1")
    assert move(wish(3, minimum=3), None, workers, patient=False).members is None
    assert move(wish(2, minimum=2), None, workers).members == ("w0", "w1")


def test_a_job_without_anybody_starts_workers_and_announces_nothing() -> None:
    assert move(wish(3), None, {}) == Move(start=3)
    assert move(wish(3), plan("w0", "w1"), {}) == Move(start=3)


@pytest.mark.parametrize("patient", [True, False])
def test_a_lost_everything_waits_for_the_minimum(patient: bool) -> None:
    last = plan("w0", "w1")
    assert move(wish(2, minimum=2), last, {"w2": ready()}, patient=patient).members is None
    assert move(wish(2, minimum=2), last, {"w2": ready(), "w3": ready()}, patient=patient).members == ("w2", "w3")


def test_a_lost_everything_waits_until_nobody_is_in_a_group() -> None:
    """One that was leaving when the others died may still be cut off."""
    workers = {"w2": training(1), "w3": ready()}
    assert move(wish(1), plan("w0", generation=2), workers).members is None


# -- growing and shrinking ---------------------------------------------------------------------------------------------


def test_a_grow_waits_patiently_for_those_who_warm_up() -> None:
    workers = {"w0": training(), "w1": ready(), "w2": warming()}
    assert move(wish(3), plan("w0"), workers) == Move()
    assert move(wish(3), plan("w0"), workers, patient=False) == Move(members=("w0", "w1"))


def test_a_shrink_does_not_wait_and_stops_what_was_to_join() -> None:
    workers = {"w0": training(), "w1": training(), "w2": ready(), "w3": warming()}
    assert move(wish(1), plan("w0", "w1"), workers) == Move(members=("w0",), dismiss=("w2", "w3"))


def test_other_limits_of_kappa_are_a_new_generation_with_everybody_who_is_warm() -> None:
    workers = {"w0": training(), "w1": ready(), "w2": warming()}
    assert move(wish(3, kappa=OTHER_KAPPA), plan("w0"), workers) == Move(members=("w0", "w1"))


def test_what_was_announced_is_entered_before_the_next_is() -> None:
    last = plan("w0", "w1", generation=2)
    workers = {"w0": training(2), "w1": Status(phase=Phase.JOINING, generation=1)}
    assert move(wish(1), last, workers).members is None
    workers["w1"] = training(2)
    assert move(wish(1), last, workers).members == ("w0",)


def test_nothing_moves_once_the_budget_is_used_up() -> None:
    workers = {"w0": Status(phase=Phase.DONE, generation=1), "w1": ready()}
    assert move(wish(3), plan("w0"), workers) == Move()


# -- deferred ----------------------------------------------------------------------------------------------------------


def test_a_deferred_plan_is_announced_once_and_replaced_when_the_wish_changes() -> None:
    workers = {"w0": training(1), "w1": ready()}
    later = wish(2, not_before=1000)
    assert move(later, plan("w0"), workers).members == ("w0", "w1")
    deferred = plan("w0", "w1", generation=2, not_before=1000)
    assert move(later, deferred, workers) == Move()
    assert move(wish(1), deferred, workers).members == ("w0",)
    assert move(wish(2, not_before=2000), deferred, workers).members == ("w0", "w1")


def test_a_deferred_plan_that_has_begun_for_one_is_entered_by_all_before_the_next() -> None:
    joining = Status(phase=Phase.JOINING, generation=2)
    for late in (joining, ready()):
        begun = {"w0": training(2), "w1": late}
        assert move(wish(1, not_before=2000), plan("w0", "w1", generation=2, not_before=1000), begun).members is None


def test_what_was_deferred_can_be_had_at_once_after_all() -> None:
    workers = {"w0": training(1), "w1": ready()}
    deferred = plan("w0", "w1", generation=2, not_before=1000)
    assert move(wish(2), deferred, workers).members == ("w0", "w1")


def test_a_deferred_plan_that_was_entered_is_a_plan_like_any_other() -> None:
    workers = {"w0": training(2), "w1": training(2)}
    deferred = plan("w0", "w1", generation=2, not_before=1000)
    assert move(wish(2, not_before=1000), deferred, workers) == Move()
    assert move(wish(2), deferred, workers) == Move()
    assert move(wish(1, not_before=5000), deferred, workers).members == ("w0",)


# -- losses ------------------------------------------------------------------------------------------------------------


def test_a_loss_is_answered_when_all_are_out_with_whoever_is_there() -> None:
    last = plan("w0", "w1", "w2", generation=3)
    lost = {"w0": ready(generation=3, broken=3), "w2": training(3), "w3": ready(), "w4": warming()}
    assert move(wish(4, minimum=4), last, lost).members is None
    lost["w2"] = ready(generation=3)  # it is out, but was not told yet that the generation is of no use
    assert move(wish(4, minimum=4), last, lost).members is None
    lost["w2"] = ready(generation=3, broken=3)
    assert move(wish(4, minimum=4), last, lost) == Move(members=("w0", "w2", "w3"))


def test_a_member_that_still_joins_is_not_torn_out_by_the_next_plan() -> None:
    """The lead may train already, and the service know of it, while a joiner is still being handed its state."""
    last = plan("w0", "w1", generation=3)
    joining = Status(phase=Phase.JOINING, generation=3, samples=64)
    assert move(wish(1), last, {"w0": training(3), "w1": joining}).members is None
    assert move(wish(1), last, {"w0": training(3), "w1": training(3)}) == Move(members=("w0",))


def test_the_oldest_survivor_leads() -> None:
    last = plan("w0", "w1", "w2", generation=3)
    survivors = {"w1": ready(generation=3, broken=3), "w2": ready(generation=3, broken=3)}
    assert move(wish(3), last, survivors) == Move(members=("w1", "w2"), start=1)


def test_a_generation_is_broken_by_a_death_or_a_failure_in_it_and_by_none_before() -> None:
    last = plan("w0", "w1", generation=3)
    whole = {"w0": training(3), "w1": training(3), "w2": ready(broken=3)}
    assert not is_broken(last, whole)
    assert not is_broken(last, whole | {"w1": replace(whole["w1"], broken=2)})
    assert is_broken(last, whole | {"w1": replace(whole["w1"], broken=3)})
    assert is_broken(last, {"w0": whole["w0"]})


# -- state -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=8))
def test_the_most_advanced_hand_on_to_all_others(standings: list[int]) -> None:
    roles = transfers(standings)
    assert sorted([*roles.sources, *roles.receivers]) == list(range(len(standings)))
    assert roles.fresh == (max(standings) == -1)
    if roles.fresh:
        assert roles.sources == (0,)
    else:
        assert {standings[rank] for rank in roles.sources} == {max(standings)}
        assert all(standings[rank] < max(standings) for rank in roles.receivers)
    taken = {roles.source_of(item) for item in range(len(standings))}
    assert taken == set(roles.sources)


def test_a_plan_knows_its_ranks() -> None:
    assert [plan("w3", "w5").rank_of(worker) for worker in ("w3", "w5", "w4")] == [0, 1, None]
