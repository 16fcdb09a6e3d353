"""Storage: one key, one object, all or nothing, on a disk and elsewhere."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.storage import NotStored, Storage, StorageError


@pytest.fixture(params=["path", "file", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    urls = {"path": str(tmp_path / "jobs"), "file": f"file://{tmp_path}/jobs", "memory": "memory://jobs"}
    yield Storage(urls.get(request.param) or request.getfixturevalue("bucket").url)
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_what_is_written_is_read_back_and_replaced(storage: Storage) -> None:
    assert storage.list() == []
    storage.write("a/b.json", b"one")
    storage.write("a/b.json", b"two")
    assert storage.read("a/b.json") == b"two"


def test_listing_is_sorted_and_below_a_folder(storage: Storage) -> None:
    for key in ("b/2", "b/10", "a", "b/c/1", "bb/1"):
        storage.write(key, b"")
    assert storage.list() == ["a", "b/10", "b/2", "b/c/1", "bb/1"]
    assert storage.list("b") == storage.list("b/") == ["b/10", "b/2", "b/c/1"]
    assert storage.list("none") == storage.list("a") == []


def test_delete_takes_an_object_or_a_folder_and_forgives_nothing_there(storage: Storage) -> None:
    for key in ("a/1", "a/2", "a/b/3", "c"):
        storage.write(key, b"x")
    storage.delete("a/1")
    assert storage.list() == ["a/2", "a/b/3", "c"]
    storage.delete("a")
    storage.delete("a")
    assert storage.list() == ["c"]
    with pytest.raises(ValueError, match="whole storage"):
        storage.delete("")


def test_missing_objects_have_an_error_of_their_own(storage: Storage) -> None:
    with pytest.raises(NotStored, match=r"cannot read .*jobs/nope: there is nothing"):
        storage.read("nope")


@pytest.mark.parametrize("storage", ["path", "file", "memory"], indirect=True)
def test_a_file_in_place_of_a_folder_is_a_storage_error(storage: Storage) -> None:
    """Not on S3, where there are no folders."""
    storage.write("a", b"x")
    with pytest.raises(StorageError, match=r"cannot write .*jobs/a/b"):
        storage.write("a/b", b"y")
    assert storage.read("a") == b"x"


@pytest.mark.parametrize("key", ["../x", "/etc/x", "a/../../x", ".."])
def test_a_key_cannot_leave_the_root(storage: Storage, key: str) -> None:
    for call in (storage.read, storage.list, storage.delete, storage.url_of):
        with pytest.raises(ValueError, match="not a key"):
            call(key)


def test_url_of(tmp_path: Path) -> None:
    assert Storage(f"{tmp_path}/").url_of("a/b") == f"{tmp_path}/a/b"
    assert Storage("memory://jobs/7").url_of("a/b") == "memory://jobs/7/a/b"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text("ab.-_", min_size=1).filter(lambda key: key not in (".", "..")), st.binary()))
def test_objects_do_not_mix(tmp_path: Path, objects: dict[str, bytes]) -> None:
    storage = Storage(str(tmp_path))
    for key, data in objects.items():
        storage.write(f"all/{key}/data", data)
    assert {key: storage.read(f"all/{key}/data") for key in objects} == objects


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_local_write_leaves_the_old_object_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    storage = Storage(str(tmp_path))
    storage.write("a/b", b"old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*{"fsync": (os, "fsync", full), "replace": (Path, "replace", full)}[step])
    with pytest.raises(StorageError, match=r"cannot write .*/a/b: No space left on device"):
        storage.write("a/b", b"new")
    monkeypatch.undo()
    assert storage.read("a/b") == b"old"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_files_being_written_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".writing-abc").write_bytes(b"half")
    assert Storage(str(tmp_path)).list() == []


def test_files_are_readable_as_the_umask_allows(tmp_path: Path) -> None:
    Storage(str(tmp_path)).write("a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write("a/b", b"")

    def refused(_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(StorageError, match=r"cannot list .*: Permission denied"):
        storage.list()


@pytest.mark.parametrize(("url", "reason"), [("nope://x", "Protocol not known"), ("gs://bucket/x", "gcsfs")])
def test_an_url_that_cannot_be_opened_says_why(url: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(StorageError, match=f"cannot open {url}.*{reason}"):
        Storage(url)


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(NotStored("read", "memory://a", "there is nothing")))
    assert type(error) is NotStored
    assert str(error) == "cannot read memory://a: there is nothing"
    assert error.url == "memory://a"
