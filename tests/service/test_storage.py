"""A job's folder behind an fsspec URL that is no local path: here fsspec's own memory."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
import pytest

from api_schemas.errors import NotFound, Unavailable
from service.storage import Folder

URL = "memory://jobs/j1"


@pytest.fixture
def folder() -> Iterator[Folder]:
    folder = Folder(URL)
    yield folder
    folder.delete()


def store(path: str, content: bytes = b"x") -> None:
    fsspec.filesystem("memory").pipe_file(f"/jobs/j1/{path}", content)


def test_files_are_listed_by_path(folder: Folder) -> None:
    for path in ("a/2", "a/1", "a/b/3", "b/4", "a/.writing-3f"):
        store(path)
    assert [file.path for file in folder.files("a")] == ["a/1", "a/2", "a/b/3"]
    assert folder.files("nothing") == []


def test_a_file_is_found_and_read(folder: Folder) -> None:
    store("a/1", b"12345")
    found = folder.find("a/1")
    assert (found.path, found.bytes) == ("a/1", 5)
    assert folder.read("a/1") == b"12345"
    with folder.open("a/1") as file:
        file.seek(3)
        assert file.read() == b"45"


@pytest.mark.parametrize("path", ["a", "a/2", "../j2/a", "a/../1", "", "a//1", "/jobs/j2/a"])
def test_what_is_not_there_is_not_found(folder: Folder, path: str) -> None:
    store("a/1")
    fsspec.filesystem("memory").pipe_file("/jobs/j2/a", b"another job's")
    with pytest.raises(NotFound):
        folder.find(path)


def test_a_replaced_file_is_another_version(folder: Folder) -> None:
    """Of the same size, and in a file system that has its own name for the time of change."""
    store("a/1", b"old")
    before = folder.find("a/1").version
    assert folder.find("a/1").version == before
    store("a/1", b"new")
    assert folder.find("a/1").version != before


def test_deleted_with_all_below_it(folder: Folder) -> None:
    store("a/1")
    store("b/2")
    folder.delete()
    assert folder.files("a") == folder.files("b") == []
    folder.delete()  # nothing there is no error


def test_another_folder_of_the_same_beginning_is_left_alone(folder: Folder) -> None:
    fsspec.filesystem("memory").pipe_file("/jobs/j11/a", b"x")
    store("a/1")
    folder.delete()
    assert fsspec.filesystem("memory").exists("/jobs/j11/a")


def test_an_unknown_kind_of_storage_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="nowhere://bucket"):
        Folder("nowhere://bucket/j1")
