"""A job's own folder, on a disk or behind any fsspec URL, as the service reads it; the workers write it."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from api_schemas.errors import NotFound, Unavailable

VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""Where file systems (S3, GCS, Azure, disks, memory) say what changes with the content; the best first."""

BLOCK = 4 * 2**20
"""Bytes that a download asks a remote storage for at once; s3fs would take 50 MiB."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
Result = TypeVar("Result")


class Stored(NamedTuple):
    """A file of the folder."""

    path: str  # relative to the folder
    bytes: int
    version: str  # another one where the content changed


class Folder:
    """The folder at `url`. Every method raises Unavailable where the storage does not answer."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, root = _guarded(url, lambda: fsspec.core.url_to_fs(url, use_listings_cache=False))
        self._root = str(root).rstrip("/")

    def files(self, below: str) -> list[Stored]:
        """All files below a folder of it, by path; none where it does not exist.

        Left out are dotfiles, which are half-written, and the empty objects by which S3's tools mark a folder.
        """
        found = self._try(lambda: self._fs.find(f"{self._root}/{below}", detail=True))
        stored = [self._stored(info) for info in found.values()]
        return sorted(each for each in stored if _is_whole(each.path.rpartition("/")[2]))

    def find(self, path: str) -> Stored:
        """One file of it. Raises NotFound, also for a path that would lead out of the folder, and for a dotfile."""
        absolute = self._inside(path)
        info = None if absolute is None else self._try(lambda: self._info(absolute))
        if info is None or info["type"] != "file":
            raise NotFound(f"There is no file {path!r}.")
        return self._stored(info)

    def open(self, path: str) -> IO[bytes]:
        """To read a file that `find` or `files` returned."""
        file: IO[bytes] = self._try(lambda: self._fs.open(f"{self._root}/{path}", "rb", block_size=BLOCK))
        return file

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes [start, stop) of a file that `files` returned; without them the whole file."""
        return bytes(self._try(lambda: self._fs.cat_file(f"{self._root}/{path}", start=start, end=stop)))

    def modified(self, file: Stored) -> datetime:
        """When it was written last; in UTC where the storage names no zone."""
        at: datetime = self._try(lambda: self._fs.modified(f"{self._root}/{file.path}"))
        return at if at.tzinfo else at.replace(tzinfo=UTC)

    def probe(self) -> None:
        """Write a file, read it, and remove it again."""
        self._try(self._probe)

    def _probe(self) -> None:
        if isinstance(self._fs, LocalFileSystem):  # elsewhere this might make a bucket out of a misspelt name
            self._fs.makedirs(self._root, exist_ok=True)
        path = f"{self._root}/.probe-{uuid.uuid4().hex}"
        self._fs.pipe_file(path, b"probe")
        self._fs.cat_file(path)
        self._fs.rm_file(path)

    def delete(self) -> None:
        """Remove the folder and all below it; nothing there is no error."""
        self._try(self._remove)
        if left := self.files(""):
            files, they = ("1 file", "it") if len(left) == 1 else (f"{len(left)} files", "they")
            raise Unavailable(f"The storage at {self.url} keeps {files}; may {they} be deleted?")

    def _remove(self) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm(self._root, recursive=True)  # that of s3fs says nothing of what it may not remove

    def _info(self, absolute: str) -> dict[str, Any] | None:
        """Not by `isfile`, for which a storage that does not answer has no file."""
        try:
            info: dict[str, Any] = self._fs.info(absolute)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno in _ABSENT:
                return None
            raise
        return info

    def _inside(self, path: str) -> str | None:
        parts = path.split("/")
        if any(part == "" or part[0] == "." or "\\" in part or "\0" in part for part in parts):
            return None
        absolute = f"{self._root}/{path}"
        if isinstance(self._fs, LocalFileSystem) and not _is_below(absolute, self._root):
            return None
        return absolute

    def _stored(self, info: dict[str, Any]) -> Stored:
        path = str(info["name"]).removeprefix(self._root).lstrip("/")
        version = next((info[name] for name in VERSIONS if info.get(name)), "")
        return Stored(path, int(info["size"]), f"{info['size']}-{version}".replace('"', ""))

    def _try(self, call: Callable[[], Result]) -> Result:
        return _guarded(self.url, call)


def _is_whole(name: str) -> bool:
    return bool(name) and not name.startswith(".")


def _is_below(path: str, root: str) -> bool:
    """Symbolic links followed."""
    real = os.path.realpath(root)
    return os.path.commonpath([os.path.realpath(path), real]) == real


def _guarded(url: str, call: Callable[[], Result]) -> Result:
    """The result; a failure as Unavailable. What remote file systems raise is not one type."""
    try:
        return call()
    except Exception as error:
        raise Unavailable(f"The storage at {url} does not answer: {error}") from error
