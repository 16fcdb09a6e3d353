"""Where checkpoints, exported models and spooled events live: a local folder or any fsspec URL.

One key is one object. Writing replaces an object as a whole or leaves it as it was: local files are written aside,
synced and renamed; object stores do that by themselves. Keys are relative, with "/" between their parts.

Credentials and the like come from where the file system looks for them: for S3 the environment variables AWS_... . No
listing is kept, since other processes write here too.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

RETRY_S, LONGEST_RETRY_S = 1.0, 30.0
"""Before what storage refused is tried again; doubles, up to the second."""

Result = TypeVar("Result")
Pause = Callable[[float], None]
"""Lets so many seconds pass, or raises."""
_ASIDE = ".writing-"


class StorageError(Exception):
    """Storage refused: what was tried, at which URL, and what it said."""

    def __init__(self, action: str, url: str, reason: str) -> None:
        super().__init__(f"cannot {action} {url}: {reason}")
        self.action = action
        self.url = url
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.action, self.url, self.reason)


class NotStored(StorageError):
    """There is nothing under that key."""


def patiently(
    call: Callable[[], Result],
    patience_s: float,
    pause: Pause = time.sleep,
    *,
    on_refusal: Callable[[StorageError], None],
) -> Result:
    """The call's result. One that storage refuses is made again until so many seconds have passed.

    The first refusal is told to `on_refusal`. Raises the last one, and what `pause` raises.
    """
    deadline, wait_s = time.monotonic() + patience_s, RETRY_S
    while True:
        try:
            return call()
        except StorageError as error:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise
            if wait_s == RETRY_S:
                on_refusal(error)
        pause(min(wait_s, left_s))
        wait_s = min(2 * wait_s, LONGEST_RETRY_S)


class Storage:
    """The objects below `url`: a path, or an URL such as "s3://bucket/jobs/7" or "memory://jobs".

    Nothing is created until the first write. Raises StorageError for an URL that fsspec cannot open, such as one whose
    protocol's package is not installed. Methods raise StorageError too, and ValueError for a key that leaves the root.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or "/"
        filesystem, root = _guarded("open", url, lambda: fsspec.core.url_to_fs(url, use_listings_cache=False))
        self._filesystem: Any = filesystem
        self._root: str = str(root).rstrip("/")
        self._local = isinstance(filesystem, LocalFileSystem)

    def url_of(self, key: str) -> str:
        """The URL of an object; for a local folder its path."""
        return f"{self.url.rstrip('/')}/{_checked(key)}"

    def write(self, key: str, data: bytes) -> None:
        """Store `data` under `key`, all or nothing, durable when this returns."""
        path = self._path(key)
        put = _replace_file if self._local else self._filesystem.pipe_file
        self._try("write", key, lambda: put(path, data))

    def read(self, key: str) -> bytes:
        """What is stored under `key`. Raises NotStored where there is nothing."""
        return bytes(self._try("read", key, lambda: self._filesystem.cat_file(self._path(key))))

    def list(self, prefix: str = "") -> list[str]:
        """The keys of all objects below the folder `prefix`, sorted; none where there is no such folder."""
        folder = self._path(prefix)
        find = _local_files if self._local else self._filesystem.find
        found = [str(path) for path in self._try("list", prefix, lambda: find(folder))]
        keys = [path.removeprefix(self._root).lstrip("/") for path in found if path.startswith(f"{folder}/")]
        return sorted(key for key in keys if not _is_foreign(key.rpartition("/")[2]))

    def delete(self, prefix: str) -> None:
        """Remove an object, or a folder with all below it. Nothing there is no error."""
        if not prefix.strip("/"):
            raise ValueError("delete needs a key: it does not empty a whole storage")
        remove = self._remove_local if self._local else self._remove_objects
        self._try("delete", prefix, lambda: remove(self._path(prefix)))

    def _path(self, key: str) -> str:
        return f"{self._root}/{_checked(key)}".rstrip("/")

    def _remove_local(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._filesystem.rm(path, recursive=True)

    def _remove_objects(self, path: str) -> None:
        """One by one: the `rm` of s3fs asks for many at once and says nothing of those that were refused."""
        for each in self._filesystem.find(path):
            with suppress(FileNotFoundError):
                self._filesystem.rm_file(each)

    def _try(self, action: str, key: str, call: Callable[[], Result]) -> Result:
        return _guarded(action, self.url_of(key), call)


def _checked(key: str) -> str:
    parts = key.strip("/").split("/")
    if key.startswith("/") or ".." in parts:
        raise ValueError(f"{key!r} is not a key: it has to be relative, without '..'")
    return key.strip("/")


def _guarded(action: str, url: str, call: Callable[[], Result]) -> Result:
    """The call's result, or its failure as a StorageError. What a remote file system raises is not one type."""
    try:
        return call()
    except Exception as error:
        if action == "read" and isinstance(error, FileNotFoundError):
            raise NotStored(action, url, "there is nothing") from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageError(action, url, reason or type(error).__name__) from error


def _is_foreign(name: str) -> bool:
    """Whether no key ends so: a file that is being written, or the empty object by which S3's tools mark a folder."""
    return not name or name.startswith(_ASIDE)


def _local_files(folder: str) -> list[str]:
    """All files below a folder. fsspec's own search takes a folder that it may not read for an empty one."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    walk = os.walk(folder, onerror=refuse)
    return [f"{parent}/{name}" for parent, _, names in walk for name in names]


def _replace_file(path: str, data: bytes) -> None:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"{_ASIDE}{uuid.uuid4().hex}")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable: it is the folder that holds the name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
