"""What a job left in its storage, on the command line: to list, and to download into files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from api_schemas import display, records
from api_schemas.cli.conventions import AsJson, JobId, show
from api_schemas.client import Client
from api_schemas.errors import InvalidRequest, NotFound
from api_schemas.views import Artifact, Page
from api_schemas.wording import volume

Force = Annotated[bool, typer.Option("--force", help="Write over files that are there already.")]


def artifacts(
    ctx: typer.Context,
    job: JobId,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Download this one.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Download all of them.")] = False,
    to: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A file or a folder to write to; without it here.")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """List what a job exported, or download it."""
    if name and every:
        raise InvalidRequest("Give a NAME or --all, one of the two.")
    client: Client = ctx.obj
    job = client.resolve(job)
    page = client.artifacts(job)
    if not (name or every):
        show(page, records.artifact_list(page.items, client.job(job)), as_json)
        return
    wanted = [each for each in page.items if every or each.name == name]
    if not wanted:
        raise NotFound(f"The job has no artifact {name!r}." if name else "The job has no artifacts.")
    for each in wanted:
        target = inside(to or Path(), each.name) if every else _alone(to or Path(), each.name)
        _fetch(target, partial(client.download, job, each.name), force, as_json)
    if as_json:
        show(Page[Artifact](items=wanted), "", as_json)


def checkpoints(
    ctx: typer.Context,
    job: JobId,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Download the files of this one.")] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where its files go; without it a folder of its name, here.")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """List a job's checkpoints, or download one."""
    client: Client = ctx.obj
    job = client.resolve(job)
    page = client.checkpoints(job)
    if name is None:
        show(page, records.checkpoint_list(page.items, client.job(job)), as_json)
        return
    chosen = next((each for each in page.items if each.name == name), None)
    if chosen is None:
        raise NotFound(f"The job has no checkpoint {name!r}.")
    folder = to or inside(Path(), chosen.name)
    for file in chosen.files:
        _fetch(inside(folder, file), partial(client.download_checkpoint, job, name, file), force, as_json)
    if as_json:
        show(chosen, "", as_json)


def inside(folder: Path, name: str) -> Path:
    """Where a file of that name lies below a folder. Raises InvalidRequest for a name that leads out of it."""
    parts = name.split("/")
    if not all(parts) or {".", ".."} & set(parts):
        raise InvalidRequest(f"{name!r} is no name for a file here: download it with --to FILE.")
    return folder.joinpath(*parts)


def _alone(to: Path, name: str) -> Path:
    return inside(to, name.rpartition("/")[2]) if to.is_dir() else to


def _fetch(target: Path, download: Callable[[Path], Path], force: bool, quiet: bool) -> None:
    if target.exists() and not force:
        raise InvalidRequest(f"{target} is there already; --force writes over it.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        download(target)
    except OSError as error:
        raise InvalidRequest(f"{target} cannot be written: {error.strerror}.") from error
    if not quiet:
        display.show(display.console(), f"{target}  {volume(target.stat().st_size)}")
