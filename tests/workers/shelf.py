"""Storage that lies in memory, and refuses what it is told to refuse."""

from __future__ import annotations

import threading

from workers.storage import NotStored, Storage, StorageError


class Shelf(Storage):
    """`refused` holds the actions that fail: write, read, list, delete. `open` is cleared while all of them hang."""

    def __init__(self) -> None:
        super().__init__("memory://shelf")
        self.objects: dict[str, bytes] = {}
        self.refused: set[str] = set()  # actions
        self.breaks_at = -1  # after so many more writes one breaks, by no fault of the storage; -1: none
        self.open = threading.Event()
        self.open.set()

    def write(self, key: str, data: bytes) -> None:
        self._check("write", key)
        if self.breaks_at >= 0:
            self.breaks_at -= 1
            if self.breaks_at < 0:
                raise ValueError("it cannot be written")
        self.objects[key] = data

    def read(self, key: str) -> bytes:
        self._check("read", key)
        if key not in self.objects:
            raise NotStored("read", key, "there is nothing")
        return self.objects[key]

    def list(self, prefix: str = "") -> list[str]:
        self._check("list", prefix)
        return sorted(key for key in self.objects if key.startswith(f"{prefix}/"))

    def delete(self, prefix: str) -> None:
        self._check("delete", prefix)
        self.objects.pop(prefix, None)

    def _check(self, action: str, key: str) -> None:
        assert self.open.wait(60), f"nobody opened the shelf for {action} {key}"
        if action in self.refused:
            raise StorageError(action, key, "No space left on device")
