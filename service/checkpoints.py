"""The durable checkpoints of a job: what its events announced, as far as its storage still has it."""

from __future__ import annotations

from sqlmodel import col, select

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
    files = _files(folder)
    return Page(
        items=[
            Checkpoint(name=name, samples=event.samples, bytes=event.bytes, saved_at=event.at, files=files[name])
            for name, event in saved.items()
            if MANIFEST in files.get(name, [])
        ]
    )


def _files(folder: Folder) -> dict[str, list[str]]:
    """File names by checkpoint."""
    files: dict[str, list[str]] = {}
    for stored in folder.files(FOLDER):
        name, _, file = stored.path.removeprefix(f"{FOLDER}/").partition("/")
        files.setdefault(name, []).append(file)
    return files
