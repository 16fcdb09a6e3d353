"""What a job left in its storage: checkpoints and artifacts, to list and to download."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from api_schemas.errors import Problem
from api_schemas.views import Artifact, Checkpoint, Page
from service import checkpoints, jobs
from service.context import DatabaseDep
from service.downloads import download
from service.routes.conditional import UNCHANGED
from service.routes.jobs import JobId
from service.routes.parameters import NONE, headers
from service.storage import Folder, Stored
from service.views import artifact_address

ARTIFACTS = "artifacts"
BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": BYTES},
    206: {"description": "The range asked for.", "content": BYTES},
    **UNCHANGED,
}
CONDITIONS = headers(
    {
        "Range": "A part of the file, such as `bytes=0-1023`; what is no single range of bytes is ignored.",
        "If-Range": "The ETag that the range is to be of; else the file comes whole.",
        "If-Match": "The ETag that the file must have.",
        "If-None-Match": "The ETag of what is known already.",
    }
)
"""For openapi.json: what `download` reads from the request."""

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["files"], responses={"default": {"model": Problem}})


def _folder(job_id: JobId, database: DatabaseDep) -> Folder:
    return Folder(jobs.storage(database, job_id))


CheckpointFile = Annotated[str, Path(description="`name` of the checkpoint and one of its `files`: `{name}/{file}`.")]
ArtifactFile = Annotated[str, Path(description="`name` of the artifact.")]
FolderDep = Annotated[Folder, Depends(_folder)]


@router.get("/checkpoints", dependencies=NONE)
def list_checkpoints(job_id: JobId, database: DatabaseDep, folder: FolderDep) -> Page[Checkpoint]:
    """The durable checkpoints, the oldest first."""
    return checkpoints.listing(database, job_id, folder)


@router.head("/checkpoints/{path:path}", include_in_schema=False)
@router.get(
    "/checkpoints/{path:path}",
    response_class=Response,
    responses=FILE,
    dependencies=NONE,
    openapi_extra=CONDITIONS,
)
def get_checkpoint(path: CheckpointFile, folder: FolderDep, request: Request) -> Response:
    """A file of a checkpoint."""
    return download(folder, f"{checkpoints.FOLDER}/{path}", request)


@router.get("/artifacts", dependencies=NONE)
def list_artifacts(job_id: JobId, folder: FolderDep) -> Page[Artifact]:
    """What the job exported, by name."""
    return Page(items=[_artifact(job_id, folder, file) for file in folder.files(ARTIFACTS)])


def _artifact(job_id: str, folder: Folder, file: Stored) -> Artifact:
    name = file.path.removeprefix(f"{ARTIFACTS}/")
    url = artifact_address(job_id, name)
    return Artifact(name=name, bytes=file.bytes, url=url, location=f"{folder.url}/{file.path}")


@router.head("/artifacts/{path:path}", include_in_schema=False)
@router.get(
    "/artifacts/{path:path}",
    response_class=Response,
    responses=FILE,
    dependencies=NONE,
    openapi_extra=CONDITIONS,
)
def get_artifact(path: ArtifactFile, folder: FolderDep, request: Request) -> Response:
    """An exported file."""
    return download(folder, f"{ARTIFACTS}/{path}", request)
