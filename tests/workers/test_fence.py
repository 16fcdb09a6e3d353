"""Fences: whoever was given up commits nothing, and what it left is of no line any more."""

from __future__ import annotations

import pytest

from tests.buckets import Bucket
from tests.workers.shelf import Shelf
from workers.fence import Fences, Term
from workers.storage import Storage, StorageError


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def fences(shelf: Shelf) -> Fences:
    return Fences(shelf)


def test_without_fences_everything_is_allowed(fences: Fences) -> None:
    assert not fences.overtaken(Term(1, 1))
    assert not fences.void(Term(1, 1), 1000)


@pytest.mark.parametrize(
    ("term", "overtaken"),
    [((1, 9), True), ((2, 2), True), ((2, 3), False), ((2, 10), False), ((10, 1), False)],
    ids=str,
)
def test_an_earlier_term_is_overtaken_by_one_that_restored(
    fences: Fences, term: tuple[int, int], overtaken: bool
) -> None:
    fences.put_up(Term(2, 3), 100)
    assert fences.overtaken(Term(*term)) is overtaken


def test_what_an_earlier_term_reached_beyond_the_fence_is_void(fences: Fences) -> None:
    fences.put_up(Term(1, 4), 100)
    assert [fences.void(Term(1, 3), samples) for samples in (99, 100, 101)] == [False, False, True]
    assert not fences.void(Term(1, 4), 500)
    assert not fences.void(Term(2, 1), 500)


def test_every_later_fence_counts(fences: Fences) -> None:
    """The line went back to 200, went on to 400, and went back to 50: 60 is void though the first fence spares it."""
    fences.put_up(Term(1, 2), 200)
    fences.put_up(Term(1, 5), 50)
    assert fences.void(Term(1, 1), 60)
    assert fences.void(Term(1, 2), 60)
    assert not fences.void(Term(1, 1), 50)


def test_a_line_that_began_anew_voids_all_before(fences: Fences) -> None:
    fences.put_up(Term(3, 1), 0)
    assert fences.void(Term(2, 7), 1)


def test_fences_are_seen_by_others_at_once(bucket: Bucket) -> None:
    """On S3, by one that has looked before."""
    given_up, heir = Fences(Storage(bucket.url)), Fences(Storage(bucket.url))
    assert not given_up.overtaken(Term(1, 1))
    heir.put_up(Term(1, 2), 100)
    assert given_up.overtaken(Term(1, 1))
    assert given_up.void(Term(1, 1), 101)


def test_fences_outlive_whoever_put_them_up(shelf: Shelf, fences: Fences) -> None:
    fences.put_up(Term(12, 3), 100)
    assert list(shelf.objects) == ["fences/000012-000003.json"]
    assert Fences(shelf).overtaken(Term(12, 2))


@pytest.mark.parametrize(
    "name",
    ["000009-000001 (copy).json", ".nfs000000000001", "000009-000001.json~", "old/000009-000001.json", "x-y.json"],
)
def test_what_others_put_there_is_no_fence(shelf: Shelf, fences: Fences, name: str) -> None:
    fences.put_up(Term(2, 1), 100)
    shelf.write(f"fences/{name}", b'{"samples": 0}')
    assert fences.overtaken(Term(1, 9))
    assert not fences.overtaken(Term(2, 1))
    assert [fences.void(Term(1, 1), samples) for samples in (100, 101)] == [False, True]


def test_storage_that_does_not_answer_is_no_permission(shelf: Shelf, fences: Fences) -> None:
    fences.put_up(Term(2, 1), 0)
    for action in ("list", "read"):
        shelf.refused = {action}
        with pytest.raises(StorageError):
            fences.overtaken(Term(1, 1))
        with pytest.raises(StorageError):
            fences.void(Term(1, 1), 5)
