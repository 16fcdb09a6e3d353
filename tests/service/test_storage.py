"""A job's folder behind an fsspec URL that is no local path: fsspec's own memory, and S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from api_schemas.errors import NotFound, Unavailable
from service import storage
from service.storage import Folder
from tests.buckets import Bucket, access, s3_server

Store = Callable[..., None]
"""(path, content) of any job's file, written by somebody else."""


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest) -> tuple[str, Store]:
    """URL of all jobs, and how to write there."""
    if request.param == "s3":
        bucket = request.getfixturevalue("bucket")
        return bucket.url, bucket.put
    memory = fsspec.filesystem("memory")
    return "memory://jobs", lambda path, content: memory.pipe_file(f"/jobs/{path}", content)


@pytest.fixture
def store(place: tuple[str, Store]) -> Store:
    return lambda path, content=b"x": place[1](path, content)


@pytest.fixture
def folder(place: tuple[str, Store]) -> Iterator[Folder]:
    folder = Folder(f"{place[0]}/j1")
    yield folder
    folder.delete()


def test_files_are_listed_by_path(folder: Folder, store: Store) -> None:
    for path in ("a/2", "a/1", "a/b/3", "b/4", "a/.writing-3f"):
        store(f"j1/{path}")
    assert [file.path for file in folder.files("a")] == ["a/1", "a/2", "a/b/3"]
    assert folder.files("nothing") == []


def test_a_file_is_found_and_read(folder: Folder, store: Store) -> None:
    store("j1/a/1", b"12345")
    found = folder.find("a/1")
    assert (found.path, found.bytes) == ("a/1", 5)
    assert folder.read("a/1") == b"12345"
    with folder.open("a/1") as file:
        file.seek(3)
        assert file.read() == b"45"


@pytest.mark.parametrize("path", ["a", "a/2", "../j2/a", "a/../1", "", "a//1", "/jobs/j2/a"])
def test_what_is_not_there_is_not_found(folder: Folder, store: Store, path: str) -> None:
    store("j1/a/1")
    store("j2/a", b"another job's")
    with pytest.raises(NotFound):
        folder.find(path)


def test_a_replaced_file_is_another_version(folder: Folder, store: Store) -> None:
    """Of the same size, and in a file system that has its own name for the time of change."""
    store("j1/a/1", b"old")
    before = folder.find("a/1").version
    assert folder.find("a/1").version == before
    store("j1/a/1", b"new")
    assert folder.find("a/1").version != before


def test_what_is_written_meanwhile_is_seen_at_once(folder: Folder, store: Store) -> None:
    store("j1/a/1")
    assert [file.path for file in folder.files("a")] == ["a/1"]
    store("j1/a/2", b"12345")
    assert folder.find("a/2").bytes == 5
    assert [file.path for file in folder.files("a")] == ["a/1", "a/2"]


def test_deleted_with_all_below_it(folder: Folder, store: Store) -> None:
    store("j1/a/1")
    store("j1/b/2")
    folder.delete()
    assert folder.files("a") == folder.files("b") == []
    folder.delete()  # nothing there is no error


def test_another_folder_of_the_same_beginning_is_left_alone(place: tuple[str, Store], store: Store) -> None:
    store("j11/a")
    store("j1/a/1")
    Folder(f"{place[0]}/j1").delete()
    assert [file.path for file in Folder(f"{place[0]}/j11").files("")] == ["a"]


def test_an_unknown_kind_of_storage_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="nowhere://bucket"):
        Folder("nowhere://bucket/j1")


def test_a_probe_leaves_nothing_behind(place: tuple[str, Store], tmp_path: Path) -> None:
    for url in (f"{place[0]}/probed", str(tmp_path / "data" / "jobs")):
        Folder(url).probe()
        assert Folder(url).files("") == []
    assert list((tmp_path / "data" / "jobs").iterdir()) == []


def test_a_probe_tells_what_is_wrong(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"file/jobs does not answer: .*Not a directory"):
        Folder(str(tmp_path / "file" / "jobs")).probe()
    with pytest.raises(Unavailable, match=r"s3://misspelt/jobs does not answer: .*bucket does not exist"):
        Folder("s3://misspelt/jobs").probe()
    bucket.deny("s3:PutObject")
    with pytest.raises(Unavailable, match="jobs does not answer"):
        Folder(bucket.url).probe()


def test_what_marks_a_folder_is_no_file(bucket: Bucket) -> None:
    for path in ("j1/", "j1/a/", "j1/a/1"):
        bucket.put(path, b"")
    folder = Folder(f"{bucket.url}/j1")
    assert [file.path for file in folder.files("a")] == ["a/1"]
    folder.delete()
    assert bucket.listing() == []


def test_what_may_not_be_deleted_is_told(bucket: Bucket) -> None:
    bucket.put("j1/a", b"x")
    bucket.deny("s3:DeleteObject")
    with pytest.raises(Unavailable, match=r"jobs/j1 keeps 1 file; may it be deleted\?"):
        Folder(f"{bucket.url}/j1").delete()


def test_a_store_that_does_not_answer_is_not_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with s3_server() as endpoint:
        for name, value in access(endpoint).items():
            monkeypatch.setenv(name, value)
        short_lived = Bucket(endpoint, "short-lived")
        short_lived.put("j1/a", b"x")
        folder = Folder(f"{short_lived.url}/j1")
        assert folder.read("a") == b"x"
    for call in (lambda: folder.find("a"), lambda: folder.files(""), lambda: folder.read("a"), folder.delete):
        with pytest.raises(Unavailable, match="does not answer"):
            call()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_part_of_a_large_file_is_read_without_the_rest(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BLOCK", 1000)
    bucket.put("j1/a", bytes(100_000))
    with Folder(f"{bucket.url}/j1").open("a") as file:
        file.seek(50_000)
        assert len(file.read(10)) == 10
        assert file.cache.total_requested_bytes <= 2000
