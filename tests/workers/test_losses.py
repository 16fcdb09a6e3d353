"""Losses in a row: what counts as one, what as progress, and how the wait grows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from workers.losses import BACKOFF_S, DEATHS, LONGEST_BACKOFF_S, WENT_WITH_NODE, Losses, cause_of_death
from workers.status import Phase, Status

WARMING = Status(phase=Phase.WARMING)
TRAINING = Status(phase=Phase.TRAINING, generation=3, samples=640)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_before_the_first_there_is_nothing_to_wait_for() -> None:
    losses = Losses(Clock())
    assert losses.backoff_s == 0
    assert not losses.too_many


def test_those_that_went_together_count_once() -> None:
    losses = Losses(Clock())
    for number in range(2 * DEATHS):
        losses.add(number, "gone", TRAINING, named=2 * DEATHS, committed=640)
    assert not losses.too_many
    assert losses.backoff_s == 0
    assert losses.generation == 3


def test_without_progress_the_wait_doubles_up_to_a_limit_and_the_end_comes() -> None:
    losses = Losses(Clock())
    waits = []
    for number in range(12):
        losses.add(number, "gone", WARMING, named=number + 1, committed=0)
        waits.append(losses.backoff_s)
        assert losses.too_many == (number + 1 >= DEATHS)
    assert waits[:4] == [0, BACKOFF_S, 3 * BACKOFF_S, 7 * BACKOFF_S]
    assert waits[-1] == LONGEST_BACKOFF_S
    assert losses.generation == 0


def test_progress_of_who_trained_forgives_and_that_of_others_does_not() -> None:
    losses = Losses(Clock())
    for number in range(DEATHS):
        losses.add(number, "gone", TRAINING, named=number + 1, committed=64 * number)
    assert not losses.too_many
    for number in range(DEATHS, 2 * DEATHS):
        losses.add(number, "never got warm", WARMING, named=number + 1, committed=64 * number)
    assert losses.too_many


def test_progress_of_one_that_outlived_joiners_forgives_too() -> None:
    losses = Losses(Clock())
    for number in range(1, DEATHS + 1):
        losses.add(number, "never got warm", WARMING, named=number + 1, committed=64 * number)
    assert losses.too_many
    losses.add(0, "killed", TRAINING, named=DEATHS + 1, committed=64 * DEATHS + 64)
    assert not losses.too_many


def test_workers_that_went_with_their_nodes_are_no_reason_to_give_up() -> None:
    losses = Losses(Clock())
    for number in range(2 * DEATHS):
        losses.add(number, "gone", WARMING, named=number + 1, committed=0, with_node=True)
    assert (losses.too_many, losses.backoff_s, losses.reason) == (False, 0, "gone")
    for number in range(2 * DEATHS, 3 * DEATHS):
        losses.add(number, "killed", WARMING, named=number + 1, committed=0)
    assert losses.too_many


def test_what_is_told_of_a_death_says_whether_the_node_went() -> None:
    went = [
        cause_of_death(Exception(text)) in WENT_WITH_NODE for text in ("its node has died", "temporarily unavailable")
    ]
    assert went == [True, True]
    assert cause_of_death(Exception("a connection error")) not in WENT_WITH_NODE


def test_the_last_one_is_remembered() -> None:
    clock = Clock()
    losses = Losses(clock)
    clock.now += timedelta(seconds=5)
    losses.add(0, "killed", WARMING, named=1, committed=0)
    clock.now += timedelta(seconds=2)
    assert (losses.reason, losses.since_s) == ("killed", 2)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("The actor died because its node has died. Node Id: 12ab", "Its node is gone."),
        ("The actor is temporarily unavailable: RpcError", "cannot be reached"),
        ("Worker unexpectedly exits with a connection error code 2. End of file.", "killed, or it crashed"),
        ("A worker health check has been hanging for 10.02 seconds. Worker info: ...", "not answered for 10.02 s."),
        ("Something else.", "Something else."),
    ],
)
def test_a_death_is_told_in_a_sentence(said: str, told: str) -> None:
    assert told in cause_of_death(Exception(said))


def test_generations_that_get_stuck_at_one_sample_are_in_vain_and_progress_forgives() -> None:
    losses = Losses(Clock())
    for generation in range(1, DEATHS):
        losses.add_stuck(generation, "stuck", committed=640)
    assert (losses.cause, losses.reason, losses.generation) == ("stalled", "stuck", DEATHS - 1)
    assert not losses.in_vain
    losses.add_stuck(DEATHS, "stuck", committed=648)
    assert not losses.in_vain
    for generation in range(DEATHS + 1, 2 * DEATHS):
        losses.add_stuck(generation, "stuck", committed=648)
    assert losses.in_vain
    assert not losses.too_many
    losses.add(0, "killed", TRAINING, named=1, committed=648)
    assert losses.cause == "rank_lost"
