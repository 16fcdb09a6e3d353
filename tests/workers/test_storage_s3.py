"""Storage on S3: what others do there is seen at once, and what the store refuses is told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from s3fs import S3FileSystem

from tests.buckets import Bucket, access, s3_server
from workers.storage import NotStored, Storage, StorageError


@pytest.fixture
def storage(bucket: Bucket) -> Storage:
    return Storage(bucket.url)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """To set the environment with, for file systems that nobody has connected yet."""
    S3FileSystem.clear_instance_cache()
    yield monkeypatch
    S3FileSystem.clear_instance_cache()


def test_what_others_write_and_delete_is_seen_at_once(storage: Storage, bucket: Bucket) -> None:
    storage.write("a/1", b"one")
    assert storage.list("a") == ["a/1"]
    bucket.put("a/2", b"two")
    assert storage.read("a/2") == b"two"
    assert storage.list("a") == ["a/1", "a/2"]
    Storage(bucket.url).delete("a/1")
    bucket.put("a/2", b"longer than before")
    assert storage.list("a") == ["a/2"]
    assert storage.read("a/2") == b"longer than before"
    with pytest.raises(NotStored):
        storage.read("a/1")


def test_what_marks_a_folder_is_no_object(storage: Storage, bucket: Bucket) -> None:
    """As the console and many tools leave one behind."""
    for marker in ("", "a/", "a/b/"):
        bucket.put(marker, b"")
    storage.write("a/b/1", b"")
    assert storage.list() == storage.list("a") == ["a/b/1"]
    storage.delete("a")
    assert storage.list() == []


def test_another_jobs_objects_are_left_alone(storage: Storage, bucket: Bucket) -> None:
    storage.write("j1/a", b"")
    storage.write("j11/a", b"")
    Storage(f"{bucket.url}/j1").delete("a")
    storage.delete("j")
    assert bucket.listing() == ["j11/a"]


def test_a_refused_deletion_is_an_error(storage: Storage, bucket: Bucket) -> None:
    for key in ("a/1", "a/2"):
        storage.write(key, b"")
    bucket.deny("s3:DeleteObject")
    with pytest.raises(StorageError, match=r"cannot delete s3://\S+/jobs/a: .*Forbidden"):
        storage.delete("a")


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_there_is_named_and_is_no_empty_one() -> None:
    storage = Storage("s3://no-such-bucket/jobs")
    for call in (lambda: storage.write("a", b""), storage.list, lambda: storage.delete("a")):
        with pytest.raises(StorageError, match="bucket does not exist") as refused:
            call()
        assert not isinstance(refused.value, NotStored)


def test_many_threads_at_once(storage: Storage) -> None:
    def live(number: int) -> bool:
        mine = [f"{number}/{i}" for i in range(3)]
        for key in mine:
            storage.write(key, key.encode())
        read = [storage.read(key).decode() for key in storage.list(f"{number}")]
        storage.delete(f"{number}")
        return read == mine

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(live, range(8)))
    assert storage.list() == []


def test_a_large_object_is_written_in_parts_whole_or_not_at_all(
    storage: Storage, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = 5 * 2**20  # no smaller one is allowed; s3fs takes ten times as much
    monkeypatch.setattr(S3FileSystem._pipe_file, "__defaults__", (part, None, "overwrite"))
    large = bytes(range(256)) * (part // 100)
    storage.write("large", large)
    assert storage.read("large") == large
    call = S3FileSystem._call_s3

    async def breaks(self: S3FileSystem, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "upload_part" and kwargs["PartNumber"] == 3:
            raise ConnectionError("Connection reset by peer")
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(S3FileSystem, "_call_s3", breaks)
    with pytest.raises(StorageError, match="Connection reset by peer"):
        storage.write("large", large[::-1])
    assert storage.read("large") == large
    assert bucket.unfinished() == []


def test_a_store_that_does_not_answer(stranger: pytest.MonkeyPatch) -> None:
    stranger.setenv("AWS_MAX_ATTEMPTS", "1")
    with s3_server() as endpoint:
        for name, value in access(endpoint).items():
            stranger.setenv(name, value)
        storage = Storage(Bucket(endpoint, "short-lived").url)
        storage.write("a", b"x")
    for call in (lambda: storage.write("a", b""), lambda: storage.read("a"), storage.list, lambda: storage.delete("a")):
        with pytest.raises(StorageError, match="Could not connect") as refused:
            call()
        assert not isinstance(refused.value, NotStored)


def test_without_credentials(stranger: pytest.MonkeyPatch, s3_endpoint: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        stranger.delenv(name, raising=False)
    stranger.setenv("AWS_EC2_METADATA_DISABLED", "true")
    stranger.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    stranger.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    with pytest.raises(StorageError, match="Unable to locate credentials"):
        Storage("s3://any-bucket/jobs").write("a", b"")
