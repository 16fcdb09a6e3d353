"""The journal: kept until the reader has it, awake when there is news."""

from __future__ import annotations

import math
import threading

from workers.journal import Journal, finite


def test_records_are_numbered_and_kept_until_the_reader_has_them() -> None:
    journal = Journal()
    for kind in ("started", "evaluated", "exported"):
        journal.record(kind, samples=1)
    assert [number for number, _ in journal.records(0)] == [1, 2, 3]
    assert journal.records(2) == [(3, {"type": "exported", "samples": 1})]
    assert [number for number, _ in journal.records(0)] == [3], "the others are gone"
    journal.record("warning", code="x")
    assert [number for number, _ in journal.records(3)] == [4]


def test_a_reader_that_missed_the_answer_gets_it_again() -> None:
    journal = Journal()
    journal.record("evaluated")
    assert journal.records(0) == journal.records(0)


def test_points_are_in_the_order_of_samples_and_a_new_one_replaces_what_came_after() -> None:
    journal = Journal()
    for samples in (8, 16, 24):
        journal.point(samples, {"loss": float(samples)})
    journal.point(16, {"loss": 0.5})
    assert journal.points(0) == [(8, {"loss": 8.0}), (16, {"loss": 0.5})]
    assert journal.points(8) == [(16, {"loss": 0.5})]


def test_points_after_the_sample_that_training_goes_on_from_are_dropped() -> None:
    journal = Journal()
    for samples in (8, 16, 24):
        journal.point(samples, {})
    journal.rewind(16)
    assert [samples for samples, _ in journal.points(0)] == [8, 16]


def test_values_that_json_lacks_are_none() -> None:
    journal = Journal()
    journal.point(8, {"loss": math.nan, "scale": math.inf, "lr": 0.1})
    assert journal.points(0) == [(8, {"loss": None, "scale": None, "lr": 0.1})]
    assert finite({"a": -math.inf, "b": 0.0}) == {"a": None, "b": 0.0}


def test_records_and_nudges_are_news_and_points_are_not() -> None:
    journal = Journal()
    versions = [journal.version]
    for act in (lambda: journal.record("x"), journal.nudge, lambda: journal.point(8, {})):
        act()
        versions.append(journal.version)
    assert versions == [0, 1, 2, 2]


def test_a_reader_waits_for_news_and_no_longer() -> None:
    journal = Journal()
    journal.wait(-1, 60)
    journal.wait(0, 0)
    woken = threading.Event()

    def read() -> None:
        journal.wait(0, 60)
        woken.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert not woken.is_set()
    journal.record("x")
    reader.join(10)
    assert woken.is_set()


def test_no_record_is_lost_between_threads() -> None:
    journal = Journal()
    writers = [threading.Thread(target=lambda: [journal.record("x") for _ in range(200)]) for _ in range(4)]
    heard = 0
    for writer in writers:
        writer.start()
    numbers = []
    while len(numbers) < 800:
        for number, _ in journal.records(heard):
            numbers.append(number)
            heard = number
    assert numbers == list(range(1, 801))
    for writer in writers:
        writer.join()
