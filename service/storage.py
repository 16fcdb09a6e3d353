"""A job's own folder, on a disk or behind any fsspec URL, as the service reads it; the workers write it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Any, NamedTuple, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from api_schemas.errors import NotFound, Unavailable

VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""Where file systems (S3, GCS, Azure, disks, memory) say what changes with the content; the best first."""

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
        """All files below a folder of it, by path; none where it does not exist. Dotfiles are half-written ones."""
        found = self._try(lambda: self._fs.find(f"{self._root}/{below}", detail=True))
        stored = [self._stored(info) for info in found.values()]
        return sorted(each for each in stored if not each.path.rpartition("/")[2].startswith("."))

    def find(self, path: str) -> Stored:
        """One file of it. Raises NotFound, also for a path that would lead out of the folder, and for a dotfile."""
        absolute = self._inside(path)
        if absolute is None or not self._try(lambda: self._fs.isfile(absolute)):
            raise NotFound(f"There is no file {path!r}.")
        return self._stored(self._try(lambda: self._fs.info(absolute)))

    def open(self, path: str) -> IO[bytes]:
        """To read a file that `find` or `files` returned."""
        file: IO[bytes] = self._try(lambda: self._fs.open(f"{self._root}/{path}", "rb"))
        return file

    def read(self, path: str) -> bytes:
        """A whole file that `files` returned."""
        return bytes(self._try(lambda: self._fs.cat_file(f"{self._root}/{path}")))

    def delete(self) -> None:
        """Remove the folder and all below it; nothing there is no error."""
        if self._try(lambda: self._fs.exists(self._root)):
            self._try(lambda: self._fs.rm(self._root, recursive=True))

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
