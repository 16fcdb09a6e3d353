"""What a job leaves in its storage: checkpoints of the surviving line alone, and weights that others can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from workers import checkpoint
from workers.archive import Archive, Overtaken
from workers.checkpoint import Snapshot
from workers.journal import Journal
from workers.state import State
from workers.storage import Storage, StorageError


class Desk:
    """A job's storage, and the archives of those who lead it."""

    def __init__(self, url: str) -> None:
        self.storage = Storage(url)
        self.journal = Journal()

    def archive(self, generation: int, *, incarnation: int = 1, keep: int = 3) -> Archive:
        about = {"spec": {"name": "any"}, "seed": 7}
        archive = Archive(self.storage, self.journal, incarnation=incarnation, keep=keep, about=about)
        archive.enter(generation)
        return archive

    def names(self) -> list[int]:
        return [checkpoint.samples_of(name) for name in checkpoint.names(self.storage)]

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [record for _, record in self.journal.records(0) if record["type"] == kind]


@pytest.fixture(params=["path", "s3"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    return Desk(str(tmp_path) if request.param == "path" else request.getfixturevalue("bucket").url)


def state(samples: int, value: float = 1.0) -> State:
    weight = torch.full((2, 3), value)
    return State({"model": {"a": weight, "tied": weight}, "ema": {"a": weight * 2}}, {"samples": samples, "size": 1})


def test_a_job_without_checkpoints_begins(desk: Desk) -> None:
    assert desk.archive(1).latest() is None
    assert [key for key in desk.storage.list() if not key.startswith("fences/")] == []


def test_the_last_save_is_durable_when_it_returns(desk: Desk) -> None:
    desk.archive(1).save(state(100), last=True)
    assert desk.names() == [100]
    (saved,) = desk.records("checkpoint_saved")
    assert (saved["samples"], saved["name"]) == (100, f"{100:015d}")
    assert saved["bytes"] > 0


def test_what_is_saved_is_loaded_with_what_it_is_about(desk: Desk) -> None:
    desk.archive(3, incarnation=2).save(state(100, value=5.0), last=True)
    found = desk.archive(4, incarnation=2).latest()
    assert found is not None
    assert torch.equal(found.groups["model"]["a"], torch.full((2, 3), 5.0))
    assert found.meta == {
        "samples": 100,
        "size": 1,
        "spec": {"name": "any"},
        "seed": 7,
        "incarnation": 2,
        "generation": 3,
    }


@pytest.mark.parametrize("what", ["list", "read", "write"])
def test_a_storage_that_is_away_for_a_while_is_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    desk.archive(1).save(state(100), last=True)
    waits: list[float] = []

    def away(self: Storage, *arguments: Any) -> Any:
        if len(waits) < 3:
            raise StorageError(what, self.url, "no route to host")
        return there(self, *arguments)

    there = getattr(Storage, what)
    monkeypatch.setattr(Storage, what, away)
    found = desk.archive(2).latest(waits.append)
    assert found is not None
    assert found.meta["samples"] == 100
    assert waits == [1.0, 2.0, 4.0]
    waits.clear()
    assert desk.archive(2).export(state(200), waits.append).keys() == {"model.safetensors", "ema.safetensors"}
    (told, *_) = desk.records("warning")
    assert told["code"] == "storage_away"
    assert "no route to host" in told["message"]


def test_a_storage_that_stays_away_is_an_error_at_last(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: Storage, *_: Any) -> None:
        raise StorageError("list", self.url, "no route to host")

    monkeypatch.setattr(Storage, "list", away)
    monkeypatch.setattr("workers.archive.PATIENCE_S", 0.0)
    with pytest.raises(StorageError, match="no route to host"):
        desk.archive(1).latest(lambda _: None)


def test_training_may_go_on_while_it_is_written(desk: Desk) -> None:
    archive, live = desk.archive(1), state(100)
    archive.save(live, last=False)
    live.groups["model"]["a"].fill_(9.0)
    archive.save(state(200), last=True)
    for samples in desk.names():
        kept = checkpoint.load(desk.storage, checkpoint.checkpoint_name(samples))
        assert float(kept.tensors["model"]["a"][0, 0]) == 1.0


def test_the_newest_few_are_kept(desk: Desk) -> None:
    archive = desk.archive(1, keep=2)
    for samples in (100, 200, 300):
        archive.save(state(samples), last=True)
    assert desk.names() == [200, 300]


def test_one_that_was_overtaken_while_it_read_takes_nothing_from_its_successor(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was cut off from the cluster, not from the storage, and the reading took long."""
    desk.archive(1).save(state(100), last=True)
    slow, heir = desk.archive(2), desk.archive(3)
    read = slow._newest

    def overtaken() -> Snapshot | None:
        found = read()
        assert heir.latest() is not None
        heir.save(state(200), last=True)
        return found

    monkeypatch.setattr(slow, "_newest", overtaken)
    with pytest.raises(Overtaken):
        slow.latest()
    assert desk.names() == [100, 200]
    found = desk.archive(4).latest()
    assert found is not None
    assert found.meta["samples"] == 200


def test_what_others_put_beside_the_fences_stops_no_checkpoint(desk: Desk) -> None:
    archive = desk.archive(1, keep=1)
    desk.storage.write("fences/000009-000001 (copy).json", b"{}")
    for samples in (100, 200):
        archive.save(state(samples), last=True)
    assert desk.names() == [200]
    found = desk.archive(2).latest()
    assert found is not None
    assert found.meta["samples"] == 200


def test_an_overtaken_term_commits_nothing(desk: Desk) -> None:
    given_up = desk.archive(1)
    given_up.save(state(100), last=True)
    heir = desk.archive(2)
    assert heir.latest() is not None
    given_up.save(state(200), last=True)
    assert desk.names() == [100]
    assert [(each["samples"], each["message"]) for each in desk.records("checkpoint_failed")] == [
        (200, "A later generation trains by now; this one's work is given up.")
    ]
    with pytest.raises(Overtaken):
        given_up.export(state(200))
    assert desk.storage.list("artifacts") == []
    heir.save(state(150), last=True)
    assert desk.names() == [100, 150]


def test_a_survivor_that_goes_on_in_a_later_generation_may_commit(desk: Desk) -> None:
    archive = desk.archive(1)
    assert archive.latest() is None
    archive.enter(2)
    archive.save(state(100), last=True)
    assert desk.names() == [100]


def test_a_later_incarnation_overtakes_every_generation_of_the_one_before(desk: Desk) -> None:
    given_up = desk.archive(9, incarnation=1)
    desk.archive(1, incarnation=2).latest()
    given_up.save(state(100), last=True)
    assert desk.names() == []


def test_what_an_abandoned_line_committed_late_is_not_loaded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asked before the fence was put up, and wrote after: the manifest tells its term."""
    desk.archive(1).save(state(100), last=True)
    late = desk.archive(1)
    monkeypatch.setattr(late, "_permit", lambda: None)
    monkeypatch.setattr(late, "_refusal", lambda _: None)
    assert desk.archive(2).latest() is not None
    late.save(state(900), last=True)
    assert desk.names() == [100, 900]
    found = desk.archive(3).latest()
    assert found is not None
    assert found.meta["samples"] == 100
    (warning,) = desk.records("warning")
    assert warning["code"] == "checkpoint_skipped"
    assert warning["message"] == f"Checkpoint {900:015d} is not used: it is of an abandoned line."
    assert desk.names() == [100], "and is gone for good"


def test_what_an_abandoned_line_committed_late_does_not_count_among_those_kept(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = desk.archive(1)
    monkeypatch.setattr(late, "_permit", lambda: None)
    heir = desk.archive(2, keep=1)
    heir.latest()
    late.save(state(900), last=True)
    heir.save(state(150), last=True)
    found = desk.archive(3).latest()
    assert found is not None
    assert found.meta["samples"] == 150


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json"], ids=["empty", "other", "torn"])
def test_damaged_ones_are_skipped_with_a_warning(desk: Desk, damage: bytes) -> None:
    archive = desk.archive(1)
    for samples in (100, 200):
        archive.save(state(samples), last=True)
    desk.storage.write(f"checkpoints/{200:015d}/manifest.json", damage)
    found = desk.archive(2).latest()
    assert found is not None
    assert found.meta["samples"] == 100
    (warning,) = desk.records("warning")
    assert f"{200:015d} is not used: " in warning["message"]


def test_a_failed_write_is_recorded_and_the_previous_checkpoint_still_loads(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, write = desk.archive(1), desk.storage.write
    archive.save(state(100), last=True)

    def full(key: str, _: bytes) -> None:
        raise StorageError("write", key, "No space left on device")

    monkeypatch.setattr(desk.storage, "write", full)
    archive.save(state(200), last=True)
    monkeypatch.setattr(desk.storage, "write", write)
    (failed,) = desk.records("checkpoint_failed")
    assert failed["samples"] == 200
    assert "No space left on device" in failed["message"]
    found = desk.archive(2).latest()
    assert found is not None
    assert found.meta["samples"] == 100
    archive = desk.archive(2)
    archive.save(state(300), last=True)
    assert 300 in desk.names()


def test_storage_that_does_not_answer_is_no_reason_to_begin_anew(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.archive(1).save(state(100), last=True)

    def silent(key: str) -> bytes:
        raise StorageError("read", key, "timed out")

    monkeypatch.setattr("workers.archive.PATIENCE_S", 0.0)
    monkeypatch.setattr(desk.storage, "read", silent)
    with pytest.raises(StorageError, match="timed out"):
        desk.archive(2).latest()
    monkeypatch.undo()
    assert desk.storage.list("fences") == []
    assert desk.names() == [100]


def fetched(url: str, folder: Path) -> Path:
    """A copy of a file, as whoever has its URL makes it."""
    copy = folder / url.rpartition("/")[2]
    with fsspec.open(url, "rb") as source:
        copy.write_bytes(source.read())
    return copy


def test_an_export_is_readable_by_others_tied_tensors_too(desk: Desk, tmp_path: Path) -> None:
    urls = desk.archive(1).export(state(100, value=3.0))
    assert sorted(urls) == ["ema.safetensors", "model.safetensors"]
    model = fetched(urls["model.safetensors"], tmp_path)
    assert sorted(load_file(model)) == ["a", "tied"]
    assert torch.equal(load_file(model)["a"], load_file(model)["tied"])
    assert float(load_file(fetched(urls["ema.safetensors"], tmp_path))["a"][0, 0]) == 6.0
    with safe_open(model, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_model_without_an_average_exports_what_it_has(desk: Desk, tmp_path: Path) -> None:
    bare = State({"model": {"w": torch.ones(3, 2).t(), "n": torch.tensor(3)}, "optimizer": {}}, {"samples": 1})
    urls = desk.archive(1).export(bare)
    assert list(urls) == ["model.safetensors"]
    assert load_file(fetched(urls["model.safetensors"], tmp_path))["w"].shape == (2, 3)
