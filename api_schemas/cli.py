"""The `emascale` command, over `Client`. Exit codes: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Group, RenderableType
from typer.core import TyperGroup

from api_schemas import display
from api_schemas.board import Board
from api_schemas.client import Client
from api_schemas.errors import EmascaleError, InvalidRequest
from api_schemas.specfile import override, read_spec
from api_schemas.views import JobView, Page, Phase, Resize
from api_schemas.wording import workers as counted

ABOUT = "Elastic training jobs whose dynamics survive every change of batch size."


INTERRUPTED = 130
AUTO = "auto"
"""In place of a number of workers."""


class _Commands(TyperGroup):
    """Turns an expected failure into lines on stderr and an exit code; Ctrl-C is no failure to talk about."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EmascaleError as error:
            for line in complaints(error):
                typer.echo(line, err=True)
            raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1) from error
        except KeyboardInterrupt as stopped:
            raise typer.Exit(INTERRUPTED) from stopped


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False, help=ABOUT)

Connect = Callable[[str | None], Client]
"""How a command gets its client; the `obj` of the call, where a test or another program brings its own."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, enough of its beginning, or its name.")]
SpecFile = Annotated[typer.FileText, typer.Argument(metavar="FILE", help="A job spec as YAML or JSON; - for stdin.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Set a field: --set optimizer.lr=0.1")
]


@app.callback()
def main(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option(envvar="EMASCALE_URL", help="Address of the service.", show_default=False)
    ] = None,
) -> None:
    connect: Connect = ctx.obj or Client
    ctx.obj = ctx.with_resource(connect(url))


@app.command()
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
        _show(preview, display.size_list(preview.sizes), as_json)
        return
    view = client.submit(spec)
    if not (watch and as_json):
        hint = "" if watch else f" `emascale watch {view.id}` shows it train."
        _show(view, f"Submitted {view.name} as {view.id}.{hint}", as_json)
    if watch:
        _watch(client, view, as_json)


@app.command("list")
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
        _show(page, Group(display.job_list(page.items, datetime.now(UTC)), *more), as_json)
    else:
        asked = any((status, recipe, name, label, after))
        _show(page, "No job is like that." if asked else "No jobs yet; `emascale submit FILE` hands one in.", as_json)


@app.command()
def get(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show a job."""
    view = ctx.obj.job(ctx.obj.resolve(job))
    _show(view, display.job_view(view), as_json)


@app.command()
def watch(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Watch a job until it ends; exit code 1 unless it succeeds."""
    _watch(ctx.obj, ctx.obj.job(ctx.obj.resolve(job)), as_json)


@app.command()
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
        _show(preview, display.before_after(preview), as_json)
    else:
        view = client.resize(job, workers, at_samples=at_samples)
        when = "" if at_samples is None else f" from sample {at_samples} on"
        asked = "may have all workers that there is room for again"
        if workers is not None:
            asked = f"was asked for {counted(workers)}{when}"
        _show(view, f"{view.name} {asked}; `emascale watch {job}` shows it happen.", as_json)


@app.command()
def resizes(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show what each change of size did."""
    page = Page[Resize](items=list(ctx.obj.iter_resizes(ctx.obj.resolve(job))))
    _show(page, display.resize_list(page.items), as_json)


@app.command()
def pause(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Stop a job so that it can go on later; its slots are free meanwhile."""
    view = ctx.obj.pause(ctx.obj.resolve(job))
    _show(view, f"{view.name} is {view.status.phase}; `emascale resume {view.id}` lets it go on.", as_json)


@app.command()
def resume(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Let a paused job go on."""
    view = ctx.obj.resume(ctx.obj.resolve(job))
    _show(view, f"{view.name} is {view.status.phase}.", as_json)


@app.command()
def cancel(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Stop a job."""
    view = ctx.obj.cancel(ctx.obj.resolve(job))
    _show(view, f"{view.name} is {view.status.phase}.", as_json)


@app.command()
def logs(
    ctx: typer.Context,
    job: JobId,
    rank: Annotated[str | None, typer.Option(help="Of this worker alone: 3 or w3.")] = None,
    tail: Annotated[int | None, typer.Option(min=0, help="The last lines alone.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and print what comes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a job's log; with --json each line as a JSON string."""
    empty = True
    for line in ctx.obj.logs(ctx.obj.resolve(job), rank=rank, tail=tail, follow=follow):
        typer.echo(json.dumps(line) if as_json else line)
        empty = False
    if empty and tail != 0:
        typer.echo("There is no such line yet; workers write the log from their start on.", err=True)


@app.command()
def preview(
    ctx: typer.Context,
    file: Annotated[
        typer.FileText | None, typer.Argument(metavar="[FILE]", help="A job spec: show the sizes it may have.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="Without a file: the optimizer to scale.")] = None,
    kappa: Annotated[list[float] | None, typer.Option(help="Batch multiplier; may be repeated.")] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Show what the scaling rules make of a job, or of --optimizer sgd --set optimizer.lr=0.1 --set ema=0.99"""
    if file is not None:
        sizes = ctx.obj.preview_submit(override(read_spec(file), settings or []))
        _show(sizes, display.size_list(sizes.sizes), as_json)
        return
    if optimizer is None:
        raise InvalidRequest("Name a job spec, or an optimizer with --optimizer.")
    asked = {"optimizer": {"name": optimizer}, "kappas": kappa or [1, 2, 4, 8]}
    rows = ctx.obj.scaling_preview(override(asked, settings or []))
    _show(rows, display.scaling_list(rows.items), as_json)


@app.command()
def recipes(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Of one recipe, or your own package.module:Class: its settings."),
    ] = None,
    py_modules: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A zip or wheel that your own recipe is in; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what can be trained."""
    if name is not None:
        recipe = ctx.obj.recipe(name, py_modules=py_modules)
        _show(recipe, display.recipe_view(recipe), as_json)
        return
    page = ctx.obj.recipes()
    shown = display.recipe_list(page.items) if page.items else "The nodes have not said yet which recipes they have."
    _show(page, shown, as_json)


@app.command()
def cluster(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the nodes, and which jobs wait for them."""
    view = ctx.obj.cluster()
    _show(view, display.cluster_view(view), as_json)


def complaints(error: EmascaleError) -> Iterable[str]:
    """One line for each wrong field, or one for the whole."""
    for wrong in error.errors:
        field = ".".join(step.replace("~1", "/").replace("~0", "~") for step in wrong.pointer.split("/") if step)
        yield f"{field}: {wrong.message}" if field else wrong.message
    if not error.errors:
        yield error.detail
    if error.request_id and not isinstance(error, InvalidRequest):
        yield f"(request {error.request_id})"


def _size(text: str) -> int | None:
    if text == AUTO:
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise InvalidRequest(f"WORKERS must be a number from 1 on, or {AUTO}; it is {text!r}.")
    return int(text)


def _show(model: BaseModel, shown: RenderableType, as_json: bool) -> None:
    if as_json:
        typer.echo(model.model_dump_json(indent=2))
    else:
        display.show(display.console(), shown)


def _watch(client: Client, view: JobView, as_json: bool) -> None:
    console = display.console()
    if as_json:
        for event in client.watch(view.id):
            typer.echo(event.model_dump_json())
    else:
        with Board(client, console) as board:
            board.add(view)
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
