"""Jobs on the command line: handed in, listed, looked at, changed, stopped and removed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Group

from api_schemas import display
from api_schemas.board import Board
from api_schemas.cli.conventions import AsJson, JobId, Settings, SpecFile, show
from api_schemas.client import Client
from api_schemas.errors import InvalidRequest
from api_schemas.specfile import override, read_spec
from api_schemas.views import JobView, Phase
from api_schemas.wording import explain
from api_schemas.wording import workers as counted

AUTO = "auto"
"""In place of a number of workers."""


def submit(
    ctx: typer.Context,
    file: SpecFile,
    settings: Settings = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and watch it train.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it and show its sizes; submit nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hand in a job."""
    client: Client = ctx.obj
    spec = override(read_spec(file), settings or [])
    if dry_run:
        preview = client.preview_submit(spec)
        show(preview, display.size_list(preview.sizes, preview.warnings), as_json)
        return
    view = client.submit(spec)
    if not (watch and as_json):
        hint = "" if watch else f" `emascale watch {view.id}` shows it train."
        show(view, f"Submitted {view.name} as {view.id}.{hint}", as_json)
    if watch:
        _watch(client, view, True, as_json)


def list_jobs(
    ctx: typer.Context,
    status: Annotated[list[Phase] | None, typer.Option(help="Only jobs in this phase; may be repeated.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Only jobs of this recipe.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only jobs with this label.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most, newest first.")] = 20,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Only jobs older than this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs."""
    page = ctx.obj.jobs(status=status, recipe=recipe, name=name, label=label, limit=limit, after=after)
    if page.items:
        more = [f"There are more; --after {page.next} shows older ones."] if page.next else []
        show(page, Group(display.job_list(page.items, datetime.now(UTC)), *more), as_json)
    else:
        asked = any((status, recipe, name, label, after))
        show(page, "No job is like that." if asked else "No jobs yet; `emascale submit FILE` hands one in.", as_json)


def get(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show a job."""
    view = ctx.obj.job(ctx.obj.resolve(job))
    show(view, display.job_view(view), as_json)


def watch(
    ctx: typer.Context,
    job: JobId,
    from_start: Annotated[bool, typer.Option("--from-start", help="First tell all that has happened to it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch a job until it ends; exit code 1 unless it succeeds. With --json an event a line."""
    _watch(ctx.obj, ctx.obj.job(ctx.obj.resolve(job)), from_start, as_json)


def resize(
    ctx: typer.Context,
    job: JobId,
    size: Annotated[
        str, typer.Argument(metavar="WORKERS", help="How many workers it shall have; auto: as many as it may have.")
    ],
    at_samples: Annotated[int | None, typer.Option(min=0, help="Not before it saw so many samples.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a job another number of workers."""
    client: Client = ctx.obj
    workers = _size(size)
    job = client.resolve(job)
    if dry_run:
        preview = client.preview_resize(job, workers, at_samples=at_samples)
        show(preview, display.before_after(preview), as_json)
    else:
        view = client.resize(job, workers, at_samples=at_samples)
        when = "" if at_samples is None else f" from sample {at_samples} on"
        asked = "may have all workers that there is room for again"
        if workers is not None:
            asked = f"was asked for {counted(workers)}{when}"
        resumed = f"`emascale resume {job}` lets it go on so."
        seen = resumed if view.status.phase is Phase.PAUSED else f"`emascale watch {job}` shows it happen."
        told = Group(f"{view.name} {asked}; {seen}", *map(explain, view.warnings))
        show(view, told, as_json)


def pause(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Stop a job so that it can go on later; its slots are free meanwhile."""
    view = ctx.obj.pause(ctx.obj.resolve(job))
    show(view, f"{view.name} is {view.status.phase}; `emascale resume {view.id}` lets it go on.", as_json)


def resume(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Let a paused job go on."""
    view = ctx.obj.resume(ctx.obj.resolve(job))
    show(view, f"{view.name} is {view.status.phase}.", as_json)


def cancel(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Stop a job."""
    view = ctx.obj.cancel(ctx.obj.resolve(job))
    show(view, f"{view.name} is {view.status.phase}.", as_json)


def update(
    ctx: typer.Context,
    job: JobId,
    workers: Annotated[
        str | None, typer.Option(metavar="FEWEST:MOST", help="How many workers it may have: 1:8, or 4 alone.")
    ] = None,
    kappa: Annotated[
        str | None, typer.Option(metavar="SMALLEST:LARGEST", help="Which batch multipliers it may have: 1:16.")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Set a label, or remove it with KEY= alone.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change what may change while a job lives."""
    client: Client = ctx.obj
    if workers is None and kappa is None and priority is None and not label:
        raise InvalidRequest("Say what to change: --workers, --kappa, --priority or --label.")
    elasticity = _given(
        workers=None if workers is None else between(workers, "--workers", int),
        kappa=None if kappa is None else between(kappa, "--kappa"),
    )
    job = client.resolve(job)
    labels = relabelled(client.job(job).spec.labels, label) if label else None
    view = client.patch(job, _given(elasticity=elasticity or None, priority=priority, labels=labels))
    show(view, display.job_view(view), as_json)


def delete(
    ctx: typer.Context,
    job: JobId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a job that has ended, with all that it left behind."""
    client: Client = ctx.obj
    view = client.job(client.resolve(job))
    if view.status.is_terminal and not yes:  # of another the service says what to do first
        what = f"{view.name} ({view.id}), with its history, logs, checkpoints and artifacts"
        typer.confirm(f"Remove {what}?", abort=True, err=True)
    client.delete(view.id)
    show(view, f"{view.name} ({view.id}) is removed.", as_json)


def between(text: str, option: str, kind: type[int] | type[float] = float) -> list[float]:
    """The two ends of `1:8`, or twice the one number. Raises InvalidRequest."""
    low, colon, high = text.partition(":")
    try:
        ends = [kind(low), kind(high if colon else low)]
    except ValueError:
        ends = [math.nan]
    if not all(map(math.isfinite, ends)):
        raise InvalidRequest(f"{option} {text}: must read LOW:HIGH, as 1:8, or one number alone.")
    return ends


def relabelled(labels: Mapping[str, str], changes: Iterable[str]) -> dict[str, str]:
    """Labels after each `key=value` is set, or where the value is empty removed. Raises InvalidRequest."""
    changed = dict(labels)
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise InvalidRequest(f"--label {change}: must read KEY=VALUE, or KEY= to remove it.")
        changed[key] = value
    return {key: value for key, value in changed.items() if value}


def _size(text: str) -> int | None:
    if text == AUTO:
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise InvalidRequest(f"WORKERS must be a number from 1 on, or {AUTO}; it is {text!r}.")
    return int(text)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _watch(client: Client, view: JobView, from_start: bool, as_json: bool) -> None:
    console = display.console()
    if as_json:
        past = None if from_start else client.events(view.id, newest_first=True, limit=1).last
        for event in client.watch(view.id, after=past):
            typer.echo(event.model_dump_json())
    else:
        with Board(client, console) as board:
            board.add(view, from_start=from_start)
            try:
                board.watch()
            except KeyboardInterrupt:
                console.print(f"{view.name} goes on without you; `emascale watch {view.id}` shows it again.")
                raise
    ended = client.job(view.id)
    if not as_json:
        display.show(console, display.job_view(ended), "", display.resize_list(list(client.iter_resizes(view.id))))
    if ended.status.phase is not Phase.SUCCEEDED:
        raise typer.Exit(1)
