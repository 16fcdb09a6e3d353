"""The durable checkpoints of a job: what its storage has, with what its events said of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

from sqlmodel import col, select

from api_schemas.errors import NotFound
from api_schemas.events import CheckpointSaved
from api_schemas.views import Checkpoint, Page
from service.db import Database
from service.storage import Folder
from service.tables import EventRow

FOLDER = "checkpoints"
MANIFEST = "manifest.json"


def listing(database: Database, job_id: str, folder: Folder) -> Page[Checkpoint]:
    """All of them, the oldest first; retention bounds their number."""
    rows = select(EventRow).where(EventRow.job_id == job_id, EventRow.type == "checkpoint_saved")
    with database.reading() as session:
        payloads = [row.payload for row in session.exec(rows.order_by(col(EventRow.id)))]
    saved = {event.name: event for event in map(CheckpointSaved.model_validate, payloads)}
    files = {name: names for name, names in _files(folder).items() if MANIFEST in names}
    found = [_announced(saved[name], files[name]) for name in files if name in saved]
    found += [made for name in files if name not in saved for made in _unannounced(folder, name, files[name])]
    return Page(items=sorted(found, key=lambda each: each.samples))


def _files(folder: Folder) -> dict[str, list[str]]:
    """File names by checkpoint."""
    files: dict[str, list[str]] = {}
    for stored in folder.files(FOLDER):
        name, _, file = stored.path.removeprefix(f"{FOLDER}/").partition("/")
        files.setdefault(name, []).append(file)
    return files


def _announced(event: CheckpointSaved, files: list[str]) -> Checkpoint:
    return Checkpoint(name=event.name, samples=event.samples, bytes=event.bytes, saved_at=event.at, files=files)


def _unannounced(folder: Folder, name: str, files: list[str]) -> Iterator[Checkpoint]:
    """One whose writer died before it could say so, as its manifest has it; none where that cannot be read."""
    with suppress(NotFound, ValueError, LookupError, TypeError):
        stored = folder.find(f"{FOLDER}/{name}/{MANIFEST}")
        manifest = json.loads(folder.read(stored.path))
        size = stored.bytes + sum(file["bytes"] for file in manifest["files"].values())
        samples = manifest["meta"]["samples"]
        yield Checkpoint(name=name, samples=samples, bytes=size, saved_at=folder.modified(stored), files=files)
