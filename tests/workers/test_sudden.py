"""Real workers that die at the worst moments: no committed step is lost, and the replicas stay equal bit for bit."""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.history import untold_sizes
from tests.workers.company import BATCH, Theatre, perform, plane
from tests.workers.stage import allocation
from workers import conductor
from workers.group import Group
from workers.journal import Journal
from workers.mesh import Mesh, MeshBroken, Rendezvous
from workers.trainer import Trainer

NOW = 10
"""The vote at which it happens."""
PATIENCE_S = 8.0
"""Nobody trains for so long at most; no timeout of anything is as short, and on a busy machine it takes a tenth."""


@pytest.fixture(autouse=True)
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody begins without the others, however long a busy machine takes to warm them up: votes are counted."""
    monkeypatch.setattr(conductor, "PATIENCE_S", Theatre.patience_s)


# How workers go wrong: in their own process, before they warm up


def after_vote(number: int, folder: Path, then: Callable[[Group], None]) -> None:
    """Once every member has the result of that vote."""
    vote, votes = Group.vote, [0]

    def watched(self: Group, *ballot: Any) -> Any:
        result = vote(self, *ballot)
        votes[0] += 1
        if votes[0] == number:
            (folder / f"has-{self.rank}").touch()
            while len(list(folder.glob("has-*"))) < self.world:
                time.sleep(0.001)
            then(self)
        return result

    Group.vote = watched  # type: ignore[method-assign]


def live(_: Group) -> None:
    """Take the step."""


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def live_a_little(_: Group) -> None:
    """Take the step, answer whoever asks how far it is, and die."""

    def last_words(*_: object, **__: object) -> None:
        time.sleep(0.5)
        die()

    Trainer._note = last_words  # type: ignore[method-assign]


def fail(_: Group) -> None:
    """As if the connection had broken before the result was there."""
    raise MeshBroken("forced")


# A collective that failed on some and succeeded on others


@pytest.mark.parametrize(
    ("workers", "dies", "fails"),
    [(3, "w1", ("w2",)), (3, "w1", ("w0",)), (3, "w0", ("w2",)), (4, "w3", ("w0", "w2")), (5, "w2", ("w0", "w4"))],
)
def test_a_vote_that_succeeded_on_some_alone_is_nobodys_loss(
    tmp_path: Path, workers: int, dies: str, fails: tuple[str, ...]
) -> None:
    """One dies with the result in its hands, some never get it: whoever has it is the source of the next generation."""

    everybody = {f"w{number}" for number in range(workers)}

    async def script(theatre: Theatre) -> None:
        for worker in everybody:
            then = die if worker == dies else fail if worker in fails else live
            theatre.crew.prepared[worker] = partial(after_vote, NOW, tmp_path, then)
        theatre.allocation = allocation(workers)
        await theatre.until(lambda: len(theatre.told("resized")) >= 2)
        await theatre.until(lambda: theatre.report and theatre.report.samples >= 20 * BATCH)

    theatre = perform(script, tmp_path)
    steps = theatre.steps()
    assert set(steps[(NOW - 1) * BATCH]) == everybody
    assert set(steps[NOW * BATCH]) == everybody - {dies, *fails}, "they differ by one step"
    assert everybody - {dies} <= set(steps[(NOW + 1) * BATCH])
    first = theatre.told("resized")[0]
    assert (first["workers"], first["samples"]) == ((workers, workers - 1), NOW * BATCH)
    assert (first["samples_lost"], first["steps_lost"]) == (0, 0)
    assert theatre.told("rollback") == []
    theatre.check_replicas()


@pytest.mark.parametrize("alone", ["w0", "w2"])
def test_a_step_that_one_took_alone_is_not_told_before_it_dies_of_it(tmp_path: Path, alone: str) -> None:
    """The others do it again, with the same samples: it is no rollback, since nobody has heard of it."""

    async def script(theatre: Theatre) -> None:
        for worker in ("w0", "w1", "w2"):
            then = live_a_little if worker == alone else fail
            theatre.crew.prepared[worker] = partial(after_vote, NOW, tmp_path, then)
        theatre.allocation = allocation(3)
        await theatre.until(lambda: len(theatre.told("resized")) >= 2)
        await theatre.until(lambda: theatre.report and theatre.report.samples >= 20 * BATCH)

    theatre = perform(script, tmp_path)
    assert theatre.told("rollback") == []
    assert theatre.told("resized")[0]["samples"] == (NOW - 1) * BATCH
    assert not any(event["samples_lost"] or event["steps_lost"] for event in theatre.told("resized"))
    theatre.check_replicas()


def test_workers_die_while_the_batch_follows_its_plan(tmp_path: Path) -> None:
    """Every six base steps it changes, by the workers' own doing; whoever took a step holds the same after it."""
    stages = [{"until": f"{6 * number} base_steps", "kappa_max": 1 + number % 3} for number in range(1, 100)]

    async def script(theatre: Theatre) -> None:
        theatre.allocation = allocation(3)
        await theatre.trains("w0", "w1", "w2")
        for lost in ("w1", "w0"):
            reached = theatre.heard_of
            theatre.crew.strike(lost)
            await theatre.until(lambda lost=lost: lost not in theatre.crew.living)  # type: ignore[misc]
            await theatre.until(lambda reached=reached: theatre.heard_of >= reached + 60 * BATCH)  # type: ignore[misc]

    theatre = perform(script, tmp_path, plane(elasticity={"workers": (1, 8), "progressive": stages}))
    assert not [seen for seen in theatre.steps().values() if len(set(seen.values())) > 1]
    planned = [event for event in theatre.told("resized") if event["cause"] == "progressive"]
    assert len(planned) > 10
    assert {event["kappa"][1] for event in planned} >= {1.0, 2.0}
    assert not any(event["samples_lost"] for event in theatre.told("resized"))
    theatre.check_line()


def test_a_worker_that_shall_leave_a_checkpoint_does_so_after_a_peer_died_on_the_way(tmp_path: Path) -> None:
    async def script(theatre: Theatre) -> None:
        theatre.allocation = allocation(2)
        await theatre.trains("w0", "w1")
        theatre.crew.strike("w1")
        await theatre.crew.retire("w0", None)  # as its lease does
        await theatre.until(lambda: theatre.told("checkpoint_saved"))
        await theatre.until(lambda: "w0" not in theatre.crew.living)
        await theatre.until(lambda: len(theatre.told("resized")) > 1)

    theatre = perform(script, tmp_path)
    assert theatre.told("rollback") == []
    assert theatre.told("resized")[-1]["samples_lost"] == 0


# A second fault while the first is being cured


def die_before(place: str, generation: int) -> None:
    """As that function, named "module:name" or "module:Class.name", is called in that generation or a later one."""
    module, _, path = place.partition(":")
    owner, name = importlib.import_module(f"workers.{module}"), path
    if "." in path:
        owner, name = getattr(owner, path.partition(".")[0]), path.partition(".")[2]
    function, make = getattr(owner, name), Mesh.__init__
    present = [0]

    def made(self: Mesh, rendezvous: Rendezvous, **options: Any) -> None:
        present[0] = rendezvous.generation
        make(self, rendezvous, **options)

    def watched(*args: Any, **kwargs: Any) -> Any:
        if present[0] >= generation:
            die()
        return function(*args, **kwargs)

    Mesh.__init__ = made  # type: ignore[method-assign]
    setattr(owner, name, watched)


MOMENTS = {
    "as it comes to meet the others": "mesh:Mesh.join",
    "in the meeting, where nobody sees it yet": "mesh:_listen",
    "in the meeting, when it said that it is there": "mesh:_gloo",
    "once they have met": "mesh:_make_default",
    "before it says how far it is": "group:Group.all_gather",
    "as state is handed on": "trainer:exchange",
    "when it has the state": "replica:Replica.resize",
    "in its first forward": "trainer:Trainer._loss",
    "in its first vote": "group:Group.vote",
    "when its first step is confirmed": "replica:Replica.update",
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("second", ["w0", "w2"])
def test_a_survivor_that_dies_before_the_next_generation_trains(tmp_path: Path, second: str, moment: str) -> None:
    """Of four, w1 is killed, then one of the survivors in what follows: the two that are left go on."""

    async def script(theatre: Theatre) -> None:
        theatre.crew.prepared[second] = partial(die_before, MOMENTS[moment], 2)
        theatre.allocation = allocation(4)
        await theatre.trains("w0", "w1", "w2", "w3")
        theatre.crew.strike("w1")
        await train_again(theatre, lost=2, workers=4)

    theatre = perform(script, tmp_path)
    check_nothing_lost(theatre, dead=2)
    assert set(theatre.training()) - {"w4", "w5", "w6"} == {"w0", "w2", "w3"} - {second}
    assert untold_sizes(theatre.events) == 0


def die_unheard(generation: int) -> None:
    """When the first step of that generation is confirmed, before anybody has heard what there is to tell of it."""
    die_before(MOMENTS["when its first step is confirmed"], generation)
    records, written = Journal.records, Journal.record
    silent = [False]

    def record(self: Journal, kind: str, **payload: Any) -> None:
        silent[0] = silent[0] or payload.get("generation") == generation
        written(self, kind, **payload)

    Journal.record = record  # type: ignore[method-assign]
    Journal.records = lambda self, after: [] if silent[0] else records(self, after)  # type: ignore[method-assign]


def test_what_a_lead_had_to_tell_of_a_size_that_was_trained_at_the_next_one_tells(tmp_path: Path) -> None:
    async def script(theatre: Theatre) -> None:
        theatre.crew.prepared["w0"] = partial(die_unheard, 2)
        theatre.allocation = allocation(3)
        await theatre.trains("w0", "w1", "w2")
        theatre.crew.strike("w2")
        await train_again(theatre, lost=2, workers=3)

    theatre = perform(script, tmp_path)
    check_nothing_lost(theatre, dead=2)
    assert theatre.told("resized")[0]["workers"][0] == 3
    assert untold_sizes(theatre.events) == 0


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_joiner_that_dies_while_it_joins_stops_nobody(tmp_path: Path, moment: str) -> None:
    """Neither the one who trains nor the other who joins; its place is taken by another."""

    async def script(theatre: Theatre) -> None:
        theatre.crew.prepared["w1"] = partial(die_before, MOMENTS[moment], 1)
        await theatre.trains("w0")
        theatre.allocation = allocation(3)
        await train_again(theatre, lost=1, workers=3)

    theatre = perform(script, tmp_path)
    check_nothing_lost(theatre, dead=1)
    assert "w0" in theatre.training()
    assert "w1" not in theatre.training()


@pytest.mark.parametrize("second_moment", ["measured", "per_worker"])
def test_whoever_dies_in_one_recovery_after_the_other(tmp_path: Path, second_moment: str) -> None:
    """Four of five, and others come in their places. With `per_worker` the spread of the shards is in Adam's v."""
    kappa = 3.0  # at the base batch v would be fed nothing but the gradient
    job = plane(
        batch={"base": int(BATCH / kappa), "per_worker": 2},
        elasticity={"workers": (1, 8), "kappa": (kappa, kappa)},
        scaling={"second_moment": second_moment, "sample_every": 2},
    )

    async def script(theatre: Theatre) -> None:
        moments = ["group:Group.all_gather", "trainer:exchange", "trainer:Trainer._loss"]
        for number, moment in enumerate(moments):
            theatre.crew.prepared[f"w{number + 1}"] = partial(die_before, moment, number + 2)
        theatre.allocation = allocation(5, kappa=(kappa, kappa))
        await theatre.trains("w0", "w1", "w2", "w3", "w4")
        theatre.crew.strike("w4")
        await train_again(theatre, lost=4, workers=5)

    theatre = perform(script, tmp_path, job)
    check_nothing_lost(theatre, dead=4)
    assert {event["kappa"] for event in theatre.told("resized")} == {(kappa, kappa)}
    assert set(theatre.training()).isdisjoint({"w1", "w2", "w3", "w4"})


@pytest.mark.parametrize("struck", [("w0", "w2"), ("w1", "w3")], ids=["the lead too", "not the lead"])
def test_two_that_die_in_the_same_moment(tmp_path: Path, struck: tuple[str, str]) -> None:
    """Of four: the two that are left go on, and others come in their places."""

    async def script(theatre: Theatre) -> None:
        theatre.allocation = allocation(4)
        await theatre.trains("w0", "w1", "w2", "w3")
        for worker in struck:  # nothing else runs in between
            theatre.crew.strike(worker)
        await train_again(theatre, lost=2, workers=4)

    theatre = perform(script, tmp_path)
    check_nothing_lost(theatre, dead=2, together=struck)
    assert set(theatre.training()) == {"w0", "w1", "w2", "w3", "w4", "w5"} - set(struck)


async def train_again(theatre: Theatre, *, lost: int, workers: int) -> None:
    """Until so many were lost, and as many train as before."""
    await theatre.until(lambda: len(theatre.told("rank_lost")) == lost)
    await theatre.until(lambda: len(theatre.training()) == workers)
    await theatre.trains(*theatre.training())


def check_nothing_lost(theatre: Theatre, *, dead: int, together: Sequence[str] = ()) -> None:
    """And nobody but those who died was given up, some of them `together`."""
    lost = [event["reason"] for event in theatre.told("rank_lost")]
    assert len(lost) == dead, lost
    assert theatre.told("rollback") == []
    assert all(event["samples_lost"] == event["steps_lost"] == 0 for event in theatre.told("resized"))
    assert all(event["pause_s"] < PATIENCE_S for event in theatre.told("resized"))
    theatre.check_replicas(together)
