"""Fences: where a training line was taken up again from a checkpoint, so that nobody goes on with an abandoned one.

A worker that was given up may still live, cut off, and write. So whoever restores writes down first by which term (the
incarnation of the controller, the generation in it) and from which sample: `fences/<incarnation>-<generation>.json`.
A checkpoint of an earlier term beyond that sample is of an abandoned line, whenever it was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from workers.storage import Storage

FOLDER = "fences"
_NAME = re.compile(rf"{FOLDER}/(\d+)-(\d+)\.json")
"""Of a fence. Whatever else lies there was put there by others: a copy, a file that NFS keeps while it is open."""


class Term(NamedTuple):
    """Who trains; later ones are greater."""

    incarnation: int
    generation: int


class Fences:
    """Those in a job's storage. Every method raises StorageError."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def put_up(self, term: Term, samples: int) -> None:
        """From now on the line leads through this term, which begins after so many samples."""
        name = f"{term.incarnation:06d}-{term.generation:06d}"
        self._storage.write(f"{FOLDER}/{name}.json", json.dumps({"samples": samples}).encode())

    def overtaken(self, term: Term) -> bool:
        """Whether a later term restored: this one may commit nothing any more."""
        return any(later > term for later, _ in self._all())

    def void(self, term: Term, samples: int) -> bool:
        """Whether what this term reached after so many samples is of an abandoned line."""
        return any(later > term and start < samples for later, start in self._all())

    def _all(self) -> Iterator[tuple[Term, int]]:
        for key in self._storage.list(FOLDER):
            if name := _NAME.fullmatch(key):
                yield Term(*map(int, name.groups())), int(json.loads(self._storage.read(key))["samples"])
