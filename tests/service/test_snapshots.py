"""Texts kept by revision: never one of another revision, and never more than was allowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.snapshots import Snapshots

LIMIT = 100
STEPS = st.tuples(st.sampled_from("abcd"), st.integers(1, 5), st.integers(0, 60))


@given(st.lists(STEPS, max_size=40))
def test_a_text_is_that_of_its_revision_or_is_not_there(steps: list[tuple[str, int, int]]) -> None:
    kept = Snapshots(LIMIT)
    for job, revision, size in steps:
        kept.put(job, revision, b"%s%d" % (job.encode(), revision) + b"." * size)
        texts = {(each, number): kept.get(each, number) for each in "abcd" for number in range(1, 6)}
        there = {key: text for key, text in texts.items() if text is not None}
        assert all(text.rstrip(b".") == f"{each}{number}".encode() for (each, number), text in there.items())
        assert len({each for each, _ in there}) == len(there)
        assert sum(map(len, there.values())) <= LIMIT


def test_what_nobody_asked_for_longest_goes() -> None:
    kept = Snapshots(LIMIT)
    for job in "ab":
        kept.put(job, 1, b"." * 40)
    kept.get("a", 1)
    kept.put("c", 1, b"." * 40)
    assert [kept.get(job, 1) is not None for job in "abc"] == [True, False, True]


def test_an_older_text_does_not_replace_a_newer_one() -> None:
    kept = Snapshots(LIMIT)
    kept.put("a", 2, b"new")
    kept.put("a", 1, b"old")
    assert (kept.get("a", 2), kept.get("a", 1)) == (b"new", None)
