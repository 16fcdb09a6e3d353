"""The history of a job: ranges told once by who trained them, rollbacks where the line goes back, over every death."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_schemas.exchange import Predecessor
from tests.workers.scribe import Life, Worker
from workers.storage import StorageError


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.fixture
def lead(life: Life) -> Worker:
    """It trains in the first generation, and the controller knows."""
    worker = Worker()
    worker.enter(1)
    worker.poll(life.chronicle)
    return worker


def test_the_first_generation_starts_the_story(life: Life, lead: Worker) -> None:
    (started,) = life.told()
    assert started["type"] == "started"
    assert (started["generation"], started["sequence"], started["incarnation"]) == (1, 1, 1)
    assert (started["workers"], started["samples"], started["values"]) == (1, 0, {"lr": 0.1})
    assert (started["epoch_size"], started["total_samples"], started["bn_momentum"]) == (100, 500, None)
    assert lead.generation == life.chronicle.generation


def test_progress_is_a_line_without_gaps(life: Life, lead: Worker) -> None:
    for samples in (8, 16, 0, 8):
        lead.train(samples)
        lead.poll(life.chronicle)
        life.flush()
    assert life.ranges() == [(0, 8, 1), (8, 24, 1), (24, 32, 1)]
    assert life.chronicle.committed == 32


def test_what_was_trained_is_told_before_what_came_of_it(life: Life, lead: Worker) -> None:
    lead.train(8)
    lead.journal.record("evaluated", samples=8, target={"accuracy": 0.5}, ema=None)
    lead.poll(life.chronicle)
    lead.train(8)
    lead.poll(life.chronicle)
    life.chronicle.say("joining", workers=1)
    assert [event["type"] for event in life.told()][-2:] == ["committed", "joining"]
    assert [event["sequence"] for event in life.told()] == list(range(1, 1 + len(life.told())))


def test_a_range_is_told_by_the_generation_that_trained_it(life: Life, lead: Worker) -> None:
    lead.train(8)
    lead.poll(life.chronicle)
    lead.train(8)  # not seen before the next generation trains
    lead.enter(2, size=2)
    lead.train(16)
    lead.poll(life.chronicle)
    assert life.ranges() == [(0, 16, 1), (16, 32, 2)]
    (resized,) = life.told("resized")
    assert (resized["generation"], resized["samples"], resized["workers"]) == (2, 16, (1, 2))
    assert (resized["decide_s"], resized["pause_s"]) == (0.5, 0.1)
    assert (resized["steps_lost"], resized["samples_lost"]) == (0, 0)
    assert life.told("rollback") == []


def test_a_generation_that_nobody_has_reported_yet_is_not_told_of(life: Life, lead: Worker) -> None:
    other = Worker("w1", samples=48, generation=2)
    other.journal.point(48, {"loss": 1.0})
    other.poll(life.chronicle)
    assert life.ranges() == life.told("metrics") == []
    lead.enter(2, size=2)
    lead.poll(life.chronicle)
    other.poll(life.chronicle)
    assert life.ranges() == [(0, 48, 2)]
    assert [event["points"][0][0] for event in life.told("metrics")] == [48]


def test_points_are_told_once_whoever_has_them(life: Life, lead: Worker) -> None:
    other = Worker("w1", generation=1)
    for worker in (lead, other, lead, other):
        worker.train(8, point=True)
        worker.poll(life.chronicle)
    points = [point[0] for event in life.told("metrics") for point in event["points"]]
    assert points == [8, 16]


def test_records_heard_twice_are_told_once(life: Life, lead: Worker) -> None:
    lead.journal.record("evaluated", samples=0, target={"accuracy": 0.5}, ema=None)
    for _ in range(3):
        lead.poll(life.chronicle)
    assert len(life.told("evaluated")) == len(life.told("started")) == 1
    lead.journal.record("evaluated", samples=0, target={"accuracy": 0.6}, ema=None)
    lead.poll(life.chronicle)
    assert [event["target"]["accuracy"] for event in life.told("evaluated")] == [0.5, 0.6]


def test_a_worker_keeps_what_is_not_durable_here(life: Life, lead: Worker) -> None:
    life.flush()
    lead.journal.record("exported", artifacts={})
    lead.train(8, point=True)
    lead.poll(life.chronicle)
    assert (life.chronicle.heard("w0"), life.chronicle.seen) == (1, 0)
    life.begin()  # the controller died before it wrote a word of it
    lead.poll(life.chronicle)
    assert len(life.told("exported")) == len(life.told("metrics")) == 1
    assert (life.chronicle.heard("w0"), life.chronicle.seen) == (2, 8)
    assert life.chronicle.exported


def test_all_that_a_worker_tells_has_to_be_durable_before_it_may_go(life: Life, lead: Worker) -> None:
    """Also the last step: the checkpoint of it may have been told before it was confirmed."""
    life.flush()
    lead.train(8)
    assert not life.chronicle.has_kept("w0", lead.poll(life.chronicle))
    life.flush()
    lead.journal.record("checkpoint_saved", samples=8, name="8", bytes=1)
    assert not life.chronicle.has_kept("w0", lead.poll(life.chronicle))
    life.flush()
    assert life.chronicle.has_kept("w0", lead.poll(life.chronicle))
    assert life.chronicle.has_kept("w0", lead.poll(life.chronicle)), "it has nothing to tell"


def test_nothing_is_forgotten_while_the_storage_fails(life: Life, lead: Worker) -> None:
    life.flush()
    life.shelf.refused = {"write"}
    lead.journal.record("evaluated", samples=0, target={}, ema=None)
    for _ in range(2):
        lead.poll(life.chronicle)
        if life.chronicle.pending:
            with pytest.raises(StorageError):
                life.flush()
    assert life.chronicle.heard("w0") == 1
    assert len(life.told("evaluated")) == 1


# -- going back --------------------------------------------------------------------------------------------------------


def test_a_rollback_is_told_where_the_line_goes_back(life: Life, lead: Worker) -> None:
    lead.train(24, point=True)
    lead.poll(life.chronicle)
    life.clock.seconds = 7
    new = Worker("w1", samples=8)
    new.enter(2, restored=True)
    new.poll(life.chronicle)
    new.train(8, point=True)
    new.poll(life.chronicle)
    kinds = [event["type"] for event in life.told()]
    assert kinds == ["started", "committed", "metrics", "rollback", "resized", "committed", "metrics"]
    assert life.told("rollback")[0]["to_samples"] == 8
    assert life.told("rollback")[0]["generation"] == 1
    assert life.told("rollback")[0]["samples_lost"] == life.told("resized")[0]["samples_lost"] > 0
    assert life.ranges() == [(0, 24, 1), (8, 16, 2)]
    (resized,) = life.told("resized")
    assert (resized["samples_lost"], resized["steps_lost"]) == (16, 2)
    assert resized["pause_s"] == 7, "since the last progress: nobody was left to measure it"
    assert [event["points"][0][0] for event in life.told("metrics")] == [24, 16]


def test_a_change_within_a_generation_is_no_rollback_though_others_have_told_of_later_steps(
    life: Life, lead: Worker
) -> None:
    other = Worker("w1", samples=lead.samples, generation=lead.generation)
    lead.train(8)
    lead.enter(lead.generation, size=2)
    other.train(24)
    other.poll(life.chronicle)
    lead.train(16)
    lead.poll(life.chronicle)
    assert not life.told("rollback")
    assert life.ranges() == [(0, 24, 1)]
    (resized,) = life.told("resized")
    assert (resized["samples"], resized["samples_lost"], resized["kappa"]) == (8, 0, (1.0, 2.0))


@pytest.mark.parametrize("heard", [False, True], ids=["not heard from the first", "heard from both"])
def test_a_size_that_the_next_lead_tells_once_more_is_told_once(life: Life, lead: Worker, heard: bool) -> None:
    other = Worker("w1", samples=16, generation=1)
    lead.train(16)
    for worker in (lead, other):
        worker.enter(2, size=3)
        worker.train(8)
    if heard:
        lead.poll(life.chronicle)
        life.flush()
        life.begin()
    other.enter(3, size=2)
    other.poll(life.chronicle)
    told = [(event["generation"], event["samples"], event["workers"][1]) for event in life.told("resized")]
    assert told == [(2, 16, 3), (3, 24, 2)]
    assert life.ranges() == [(0, 16, 1), (16, 24, 2)]
    assert not life.told("rollback")


@pytest.mark.usefixtures("lead")
def test_nobody_is_told_of_a_point_before_its_sample(life: Life) -> None:
    other = Worker("w1", generation=1)
    other.train(8, point=True)
    other.samples = 0  # as far as it is known to all
    other.poll(life.chronicle)
    assert not life.told("metrics")
    other.samples = 8
    other.poll(life.chronicle)
    assert [event["points"][0][0] for event in life.told("metrics")] == [8]


def test_steps_are_lost_whole(life: Life, lead: Worker) -> None:
    lead.train(25)
    lead.poll(life.chronicle)
    new = Worker("w1", samples=8, size=2)
    new.enter(2, size=1, restored=True)
    new.poll(life.chronicle)
    (resized,) = life.told("resized")
    assert (resized["samples_lost"], resized["steps_lost"]) == (17, 2)


def test_a_checkpoint_beyond_what_was_heard_is_no_rollback(life: Life, lead: Worker) -> None:
    lead.train(8)
    lead.poll(life.chronicle)
    new = Worker("w1", samples=24)
    new.enter(2, restored=True)
    new.poll(life.chronicle)
    assert life.ranges() == [(0, 24, 1)]
    assert life.told("rollback") == []
    assert life.told("resized")[0]["samples_lost"] == 0


def test_what_the_lead_alone_had_committed_is_taken_back_too(life: Life, lead: Worker) -> None:
    """It told of a step, and died before the vote reached the others."""
    lead.train(16)
    lead.poll(life.chronicle)
    survivor = Worker("w1", samples=8)
    survivor.enter(2)
    survivor.poll(life.chronicle)
    assert [event["to_samples"] for event in life.told("rollback")] == [8]
    assert life.told("resized")[0]["pause_s"] == 0.1
    survivor.train(8)
    survivor.poll(life.chronicle)
    assert life.ranges() == [(0, 16, 1), (8, 16, 2)]


# -- another incarnation -----------------------------------------------------------------------------------------------


def successor(life: Life, *, acked: int, samples: int) -> Life:
    before = Predecessor(incarnation=life.incarnation, acked=acked, samples=samples)
    return Life(life.shelf, life.clock, incarnation=life.incarnation + 1, before=before)


def test_what_the_last_incarnation_said_unheard_is_said_again(life: Life, lead: Worker) -> None:
    lead.train(16, point=True)
    lead.poll(life.chronicle)
    life.flush()
    life.chronicle.say("finished", outcome="failed", code="workers_lost", message="All gone.")
    life.flush()
    following = successor(life, acked=1, samples=0)
    told = following.told()
    assert [event["type"] for event in told] == ["committed", "metrics"]
    assert [(event["incarnation"], event["sequence"]) for event in told] == [(2, 1), (2, 2)]
    assert following.chronicle.committed == 16
    following.begin()
    assert len(following.told()) == 2, "another life of the same incarnation does not say it again"


def test_an_incarnation_goes_back_to_its_checkpoint_or_on_from_there(life: Life, lead: Worker) -> None:
    lead.train(16)
    lead.poll(life.chronicle)
    life.flush()
    for samples, ranges, back in ((8, [(0, 16)], [8]), (16, [(0, 16)], []), (24, [(0, 16), (16, 24)], [])):
        following = successor(life, acked=0, samples=0)
        new = Worker(samples=samples)
        new.enter(1, restored=True)
        new.poll(following.chronicle)
        assert [each[:2] for each in following.ranges()] == ranges
        assert [event["to_samples"] for event in following.told("rollback")] == back
        assert following.told()[-1]["type"] == "started"
        following.shelf.delete("spool/000002/000000000001.json")


def test_an_inherited_rollback_counts(life: Life, lead: Worker) -> None:
    lead.train(24)
    lead.poll(life.chronicle)
    new = Worker("w1", samples=8)
    new.enter(2, restored=True)
    new.poll(life.chronicle)
    life.flush()
    following = successor(life, acked=2, samples=24)
    assert [event["type"] for event in following.told()] == ["rollback", "resized"]
    assert following.chronicle.committed == 8


# -- deaths at any moment ----------------------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["train", "train", "point", "score", "resize", "lose", "poll", "flush", "die"]))


@settings(deadline=None, max_examples=150)
@given(WORDS)
def test_a_controller_that_dies_at_any_moment_tells_the_same_story(words: list[str]) -> None:
    """Gapless numbers; nothing that was given out changes; the surviving line is whole and told by who trained it."""
    life, worker = Life(), Worker()
    worker.enter(1)
    given_out: dict[int, str] = {}
    trained: list[tuple[int, int, int]] = []
    scores, points, lives = [], [], 0
    for word in [*words, "poll", "flush"]:
        if word in ("train", "point"):
            trained.append((worker.samples, worker.samples + 8, worker.generation))
            worker.train(8, point=word == "point")
            points += [worker.samples] if word == "point" else []
        elif word == "score":
            scores.append(len(scores))
            worker.journal.record("evaluated", samples=worker.samples, target={"n": float(scores[-1])}, ema=None)
        elif word == "resize":
            worker.enter(worker.generation + 1, size=worker.size % 3 + 1)
        elif word == "lose":
            worker.poll(life.chronicle)  # all that was reported by then
            lives += 1
            restored = worker.samples // 32 * 32
            worker = Worker(f"w{lives}", samples=restored, generation=worker.generation, size=worker.size)
            worker.enter(worker.generation + 1, restored=True)
            worker.poll(life.chronicle)  # at once: a record ends the look that waits for one
            trained = [each for each in trained if each[1] <= restored]
            points = [each for each in points if each <= restored]
        elif word == "poll":
            worker.poll(life.chronicle)
        elif word == "flush":
            life.flush()
        elif word == "die" and not (lives and life.chronicle.pending):  # what both took with them nobody knows
            life.begin()
        for event in life.spool.after(0):
            text = json.dumps(event)
            assert given_out.setdefault(event["sequence"], text) == text
    assert sorted(given_out) == list(range(1, len(given_out) + 1))
    ranges, seen, scored = [], [], []
    for event in life.told():
        if event["type"] == "rollback":
            ranges = [each for each in ranges if each[0] < event["to_samples"]]
            ranges = [(start, min(stop, event["to_samples"]), generation) for start, stop, generation in ranges]
            seen = [each for each in seen if each <= event["to_samples"]]
        elif event["type"] == "committed":
            ranges.append((event["start"], event["stop"], event["generation"]))
        elif event["type"] == "metrics":
            seen += [point[0] for point in event["points"]]
        elif event["type"] == "evaluated":
            scored.append(event["target"]["n"])
    assert [stop for _, stop, _ in ranges] == [start for start, _, _ in ranges[1:]] + [worker.samples] * bool(ranges)
    steps = [(at, at + 8, generation) for start, stop, generation in ranges for at in range(start, stop, 8)]
    assert steps == trained
    assert scored == scores
    assert seen == points
