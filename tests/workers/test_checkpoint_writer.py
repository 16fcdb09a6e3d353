"""The background writer: never more than one in flight and the newest waiting."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event

import pytest
import torch

from workers.checkpoint import Snapshot, names
from workers.checkpoint_writer import CheckpointWriter, Failed, Saved
from workers.storage import Storage, StorageError


class SlowStorage(Storage):
    """Holds every write until `released`, and says when one has begun."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.begun, self.released = Event(), Event()
        self.broken = False

    def write(self, key: str, data: bytes) -> None:
        self.begun.set()
        assert self.released.wait(10)
        if self.broken:
            raise StorageError("write", self.url_of(key), "No space left on device")
        super().write(key, data)


@pytest.fixture
def storage(tmp_path: Path) -> SlowStorage:
    return SlowStorage(str(tmp_path))


def snapshot(value: float) -> Snapshot:
    return Snapshot({"model": {"w": torch.tensor([value])}}, {"value": value})


def test_the_newest_waiting_replaces_the_older_one(storage: SlowStorage) -> None:
    results: list[Saved | Failed] = []
    writer = CheckpointWriter(storage, results.append)
    writer.submit("1", snapshot(1))
    assert storage.begun.wait(10)
    for name in ("2", "3", "4"):
        writer.submit(name, snapshot(float(name)))
    assert results == []
    storage.released.set()
    writer.flush()
    assert [result.name for result in results] == ["1", "4"]
    assert all(isinstance(result, Saved) and result.bytes > 0 for result in results)
    assert names(storage) == ["1", "4"]


def test_a_failure_is_reported_and_the_next_one_is_written(storage: SlowStorage) -> None:
    storage.released.set()
    storage.broken = True
    results: list[Saved | Failed] = []
    writer = CheckpointWriter(storage, results.append)
    writer.submit("1", snapshot(1))
    writer.flush()
    assert isinstance(results[0], Failed)
    assert "No space left on device" in results[0].message
    storage.broken = False
    writer.submit("2", Snapshot({"model": {}}, {"bad": object()}))
    writer.flush()
    writer.submit("3", snapshot(3))
    writer.flush()
    assert [type(result) for result in results[1:]] == [Failed, Saved]
    assert names(storage) == ["3"]


def test_what_is_not_permitted_is_not_committed(storage: SlowStorage) -> None:
    def forbid() -> None:
        raise PermissionError("overtaken")

    storage.released.set()
    results: list[Saved | Failed] = []
    writer = CheckpointWriter(storage, results.append, permit=forbid)
    writer.submit("1", snapshot(1))
    writer.flush()
    assert results == [Failed("1", "overtaken")]
    assert names(storage) == []


def test_old_checkpoints_are_pruned(storage: SlowStorage) -> None:
    storage.released.set()
    writer = CheckpointWriter(storage, lambda _: None, keep=2)
    for name in ("1", "2", "3"):
        writer.submit(name, snapshot(1))
        writer.flush()
    writer.flush()
    assert names(storage) == ["2", "3"]


@pytest.mark.parametrize("error", [StorageError("delete", "1", "Permission denied"), ValueError("Permission denied")])
def test_a_failed_deletion_does_not_fail_the_checkpoint(
    storage: SlowStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(_: str) -> None:
        raise error

    monkeypatch.setattr(storage, "delete", refuse)
    storage.released.set()
    results: list[Saved | Failed] = []
    writer = CheckpointWriter(storage, results.append, keep=1)
    with caplog.at_level(logging.WARNING):
        for name in ("1", "2"):
            writer.submit(name, snapshot(1))
            writer.flush()
        writer.flush()
    assert [type(result) for result in results] == [Saved, Saved]
    assert "Permission denied" in caplog.text
