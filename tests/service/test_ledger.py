"""The ledger: which samples were trained on, cut into epochs, with what is missing and what came twice."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from api_schemas.views import LedgerEpoch
from service.ledger import Range, ledger
from tests.service.world import World, committed, started


def ranges() -> st.SearchStrategy[list[Range]]:
    """Ranges in order of their starts, which may overlap and leave gaps."""
    one = st.tuples(st.integers(0, 60), st.integers(1, 30), st.integers(1, 5))
    return st.lists(one.map(lambda r: (r[0], r[0] + r[1], r[2])), max_size=8).map(sorted)


def times_trained(committed: list[Range]) -> Counter[int]:
    return Counter(sample for start, stop, _ in committed for sample in range(start, stop))


@given(committed=ranges(), epoch_size=st.integers(1, 40))
def test_lost_and_repeated_are_counted_sample_by_sample(committed: list[Range], epoch_size: int) -> None:
    trained = times_trained(committed)
    found = ledger(committed, epoch_size)
    assert found.samples_lost == max(trained, default=-1) + 1 - len(trained)
    assert found.samples_repeated == trained.total() - len(trained)


@given(committed=ranges(), epoch_size=st.integers(1, 40))
def test_epochs_put_together_are_the_ranges_again(committed: list[Range], epoch_size: int) -> None:
    pieces = [
        (epoch.epoch * epoch_size + start, epoch.epoch * epoch_size + stop, generation)
        for epoch in ledger(committed, epoch_size).epochs
        for start, stop, generation in epoch.ranges
    ]
    assert times_trained(pieces) == times_trained(committed)
    assert {(sample, g) for start, stop, g in pieces for sample in range(start, stop)} == {
        (sample, g) for start, stop, g in committed for sample in range(start, stop)
    }


@given(committed=ranges(), epoch_size=st.integers(1, 40))
def test_an_epoch_counts_each_of_its_samples_once(committed: list[Range], epoch_size: int) -> None:
    trained = times_trained(committed)
    for epoch in ledger(committed, epoch_size).epochs:
        assert epoch.samples == sum(sample // epoch_size == epoch.epoch for sample in trained)
        assert all(0 <= start < stop <= epoch_size for start, stop, _ in epoch.ranges)


def test_a_range_that_ends_with_an_epoch_does_not_begin_the_next() -> None:
    assert ledger([(0, 200, 1)], 100).epochs == [
        LedgerEpoch(epoch=0, samples=100, ranges=[(0, 100, 1)]),
        LedgerEpoch(epoch=1, samples=100, ranges=[(0, 100, 1)]),
    ]


def test_the_ledger_of_a_job_shows_its_generations(world: World) -> None:
    controller = world.run()
    controller.report(committed(0, 640), committed(640, 1280))
    controller.generation = 2
    controller.report(committed(1280, 2000))
    assert world.get(f"/v1/jobs/{controller.job}/ledger") == {
        "epochs": [
            {"epoch": 0, "samples": 1000, "ranges": [[0, 1000, 1]]},
            {"epoch": 1, "samples": 1000, "ranges": [[0, 280, 1], [280, 1000, 2]]},
        ],
        "samples_lost": 0,
        "samples_repeated": 0,
    }


def test_after_a_rollback_the_ledger_tells_the_surviving_line_alone(world: World) -> None:
    controller = world.run()
    controller.report(committed(0, 900))
    controller.report({"type": "rollback", "to_samples": 640}, started(samples=640), committed(640, 700))
    found = world.get(f"/v1/jobs/{controller.job}/ledger")
    assert found["epochs"] == [{"epoch": 0, "samples": 700, "ranges": [[0, 700, 1]]}]
    assert (found["samples_lost"], found["samples_repeated"]) == (0, 0)


def test_a_job_that_has_not_trained_has_an_empty_ledger(world: World) -> None:
    found = world.get(f"/v1/jobs/{world.submit()}/ledger")
    assert found == {"epochs": [], "samples_lost": 0, "samples_repeated": 0}
