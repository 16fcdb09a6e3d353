"""The spool: what was given out keeps its number over every failure of the storage and every life of the controller."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.shelf import Shelf
from workers.spool import Spool
from workers.storage import Storage, StorageError


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def events(*sequences: int) -> list[dict[str, Any]]:
    return [{"sequence": sequence, "type": "warning"} for sequence in sequences]


def life(shelf: Storage, incarnation: int = 1) -> Spool:
    """Of a controller that the service asked at once."""
    spool = Spool(shelf, incarnation)
    spool.recall(0)
    return spool


def numbers(spool: Spool, acked: int = 0, limit: int | None = None) -> list[int]:
    return [event["sequence"] for event in spool.after(acked, limit)]


def test_another_life_finds_events_notes_and_number(shelf: Shelf) -> None:
    spool = life(shelf, 3)
    spool.append(events(1, 2), {"at": "two"})
    spool.append(events(3), {"at": "three"})
    again = Spool(shelf, 3)
    assert numbers(again) == [1, 2, 3]
    assert (again.last, again.notes) == (3, {"at": "three"})
    assert again.after(0) == spool.after(0)


def test_incarnations_have_spools_of_their_own(shelf: Shelf) -> None:
    life(shelf).append(events(1, 2), {})
    assert Spool(shelf, 2).last == 0
    assert Spool(shelf, 11).last == 0


@pytest.mark.parametrize("kind", ["path", "s3"])
def test_it_lies_in_real_storage_under_names_that_sort(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(tmp_path) if kind == "path" else request.getfixturevalue("bucket").url
    spool = life(Storage(url))
    for sequence in range(1, 13):
        spool.append(events(sequence), {"at": sequence})
    spool.trim(2)
    again = Spool(Storage(url), 1)
    assert (numbers(again), again.notes) == (list(range(3, 13)), {"at": 12})
    assert Storage(url).list()[0] == "spool/000001/000000000003.json"


def test_events_are_given_out_from_anywhere_so_many_at_once(shelf: Shelf) -> None:
    spool = life(shelf)
    spool.append(events(1, 2, 3, 4), {})
    assert numbers(spool, 1, 2) == [2, 3]
    assert numbers(spool, 4) == []


def test_nothing_said_writes_nothing(shelf: Shelf) -> None:
    life(shelf).append([], {"at": "nowhere"})
    assert shelf.objects == {}


def test_what_is_acknowledged_is_forgotten_but_for_the_newest_notes(shelf: Shelf) -> None:
    spool = life(shelf)
    spool.append(events(1, 2), {})
    spool.append(events(3, 4), {"at": "four"})
    spool.trim(1)
    assert (numbers(spool), len(shelf.objects)) == ([2, 3, 4], 2)
    spool.trim(4)
    assert (numbers(spool), len(shelf.objects)) == ([], 1)
    again = Spool(shelf, 1)
    assert (again.last, again.notes) == (4, {"at": "four"})


def test_storage_that_fails_silences_nobody_and_catches_up(shelf: Shelf) -> None:
    spool = life(shelf)
    spool.append(events(1), {"at": "one"})
    shelf.refused = {"write"}
    for sequence in (2, 3):
        with pytest.raises(StorageError, match="No space left"):
            spool.append(events(sequence), {"at": "later"})
    assert (numbers(spool), spool.last) == ([1, 2, 3], 3)
    assert spool.notes == {"at": "one"}, "as another life would find them"
    shelf.refused = set()
    spool.append(events(4), {"at": "four"})
    assert spool.notes == {"at": "four"}
    assert numbers(Spool(shelf, 1)) == [1, 2, 3, 4]


def test_the_newest_segment_written_stays_while_what_follows_is_not(shelf: Shelf) -> None:
    """Else another life would begin to count from 1 again."""
    spool = life(shelf)
    spool.append(events(1, 2), {"at": "two"})
    shelf.refused = {"write"}
    with pytest.raises(StorageError):
        spool.append(events(3), {"at": "three"})
    spool.trim(3)
    again = Spool(shelf, 1)
    assert (again.last, again.notes) == (2, {"at": "two"})


def test_a_segment_that_could_not_be_deleted_is_deleted_later(shelf: Shelf) -> None:
    spool = life(shelf)
    for sequence in (1, 2, 3):
        spool.append(events(sequence), {})
    shelf.refused = {"delete"}
    with pytest.raises(StorageError):
        spool.trim(3)
    assert numbers(spool) == []
    shelf.refused = set()
    spool.trim(3)
    assert len(shelf.objects) == 1


def test_two_may_trim_at_once(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service asks again when an answer is late."""
    spool = life(shelf)
    for sequence in (1, 2, 3):
        spool.append(events(sequence), {})
    delete = shelf.delete

    def meanwhile(prefix: str) -> None:
        monkeypatch.setattr(shelf, "delete", delete)
        with ThreadPoolExecutor(1) as other:
            other.submit(spool.trim, 3).result()
        delete(prefix)

    monkeypatch.setattr(shelf, "delete", meanwhile)
    spool.trim(3)
    assert len(shelf.objects) == 1


def test_storage_that_cannot_be_read_is_an_error_not_an_empty_spool(shelf: Shelf) -> None:
    life(shelf).append(events(1), {})
    for action in ("list", "read"):
        shelf.refused = {action}
        with pytest.raises(StorageError):
            Spool(shelf, 1)


def test_a_segment_that_is_trimmed_meanwhile_is_not_missed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = life(shelf)
    for sequence in (1, 2, 3):
        spool.append(events(sequence), {"at": sequence})
    listed = shelf.list("spool/000001")
    spool.trim(2)
    monkeypatch.setattr(shelf, "list", lambda _: listed)
    again = Spool(shelf, 1)
    assert (numbers(again), again.notes) == ([3], {"at": 3})


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(1, 3), st.just("ack"), st.just("die"), st.just("full"), st.just("free"))))
def test_what_is_durable_is_never_renumbered_nor_lost(script: list[int | str]) -> None:
    """Over any sequence of appends, acknowledgements, full disks and deaths that fall together with none of them."""
    shelf = Shelf()
    spool = life(shelf)
    told: dict[int, str] = {}
    acked = 0
    for step, word in enumerate(script):
        if word == "ack":
            acked = spool.last
            spool.trim(acked)
        elif word == "die" and not shelf.refused:
            spool.append([{"sequence": spool.last + 1, "type": "last words"}], {"upto": spool.last + 1})
            told[spool.last] = "last words"
            spool = life(shelf)
        elif word in ("full", "free"):
            shelf.refused = {"write"} if word == "full" else set()
        elif isinstance(word, int):
            said = [{"sequence": spool.last + 1 + i, "type": f"{step}"} for i in range(word)]
            told |= {event["sequence"]: event["type"] for event in said}
            try:
                spool.append(said, {"upto": said[-1]["sequence"]})
            except StorageError:
                assert shelf.refused
        assert [event["sequence"] for event in spool.after(acked)] == list(range(acked + 1, len(told) + 1))
        assert all(told[event["sequence"]] == event["type"] for event in spool.after(acked))
    if not shelf.refused and told:
        spool.append([{"sequence": spool.last + 1, "type": "end"}], {"upto": spool.last + 1})
        assert Spool(shelf, 1).notes == {"upto": len(told) + 1}


def test_what_was_stored_before_the_service_asked_is_given_out_behind_what_it_has(shelf: Shelf) -> None:
    life(shelf).append(events(1, 2), {"at": "two"})
    spool = Spool(shelf, 1)
    spool.append(events(3), {"at": "three"})
    spool.append(events(4, 5), {"at": "five"})
    assert numbers(spool) == [1, 2]
    spool.trim(4)
    assert (numbers(spool), len(shelf.objects)) == ([], 2)
    assert [event["sequence"] for event in spool.recall(4)] == [3, 4, 5]
    assert spool.last == 4
    spool.trim(4)
    assert numbers(Spool(shelf, 1)) == [], "another life would be in doubt as well"
    assert [event["sequence"] for event in Spool(shelf, 1).unheard(4)] == [3, 4, 5]
    spool.append(events(5, 6, 7), {"at": "seven"})
    assert numbers(spool, 4) == [5, 6, 7]
    again = Spool(shelf, 1)
    assert (numbers(again, 4), again.last, again.notes) == ([5, 6, 7], 7, {"at": "seven"})
    spool.trim(7)
    assert len(shelf.objects) == 1


def test_what_was_numbered_anew_is_right_where_it_became_less(shelf: Shelf) -> None:
    """The service has some of it from an earlier life, so there is less to say than was stored in doubt."""
    life(shelf).append(events(1, 2), {"at": "two"})
    spool = Spool(shelf, 1)
    for sequence in range(3, 9):
        spool.append(events(sequence), {"at": sequence})
    spool.recall(4)
    spool.append(events(5), {"at": "five"})
    again = Spool(shelf, 1)
    assert (numbers(again, 4), again.last, again.notes) == ([5], 5, {"at": "five"})


def test_what_keeps_its_numbers_is_certain_once_the_service_has_asked(shelf: Shelf) -> None:
    life(shelf).append(events(1, 2), {"at": "two"})
    spool = Spool(shelf, 1)
    spool.append(events(3), {"at": "three"})
    spool.append(events(4), {"at": "four"})
    spool.append(spool.recall(1), {"at": "last"})
    again = Spool(shelf, 1)
    assert (numbers(again, 1), again.notes) == ([2, 3, 4], {"at": "last"})
