"""What happened to a job, on the command line: its log, events, curves, resizes and ledger."""

from __future__ import annotations

import json
from typing import Annotated, get_args

import typer

from api_schemas import display, records
from api_schemas.cli.conventions import AsJson, JobId, show
from api_schemas.client import Client
from api_schemas.errors import EmascaleError, InvalidRequest
from api_schemas.events import EventType
from api_schemas.views import Page, Resize

MOST_POINTS = 10_000
"""That the service gives of a curve; a table picks its rows among them."""
ROWS = 20


def logs(
    ctx: typer.Context,
    job: JobId,
    rank: Annotated[str | None, typer.Option(help="Of this worker alone: 3 or w3.")] = None,
    tail: Annotated[int | None, typer.Option(min=0, help="The last lines alone.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and print what comes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a job's log; with --json each line as a JSON string."""
    client: Client = ctx.obj
    job = client.resolve(job)
    empty = True
    for line in client.logs(job, rank=rank, tail=tail, follow=follow, waits=_waits):
        typer.echo(json.dumps(line) if as_json else line)
        empty = False
    if empty and tail != 0:
        waits = "There is no such line yet; workers write the log from their start on."
        typer.echo(_nothing(client, job, "It left no logs.", waits), err=True)


def events(
    ctx: typer.Context,
    job: JobId,
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help=f"May be repeated: {', '.join(get_args(EventType))}."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most, the newest.")] = ROWS,
    before: Annotated[str | None, typer.Option(metavar="CURSOR", help="Only older ones.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened to a job; with --json the newest first."""
    client: Client = ctx.obj
    page = client.events(client.resolve(job), after=before, limit=limit, newest_first=True, types=kind)
    older = f"There are older ones: --before {page.next} shows them." if page.next else ""
    show(page, records.event_list(page.items[::-1], older), as_json)


def metrics(
    ctx: typer.Context,
    job: JobId,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Curves, as loss lr; without, what there is.")
    ] = None,
    start: Annotated[int | None, typer.Option("--from", min=0, help="First sample.")] = None,
    stop: Annotated[int | None, typer.Option("--to", min=0, help="Last sample.")] = None,
    points: Annotated[
        int | None,
        typer.Option(
            min=2, max=MOST_POINTS, help=f"Rows; with --csv or --json points of each curve ({ROWS}, all, 1000)."
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: name,samples,value.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a job's curves."""
    if as_csv and as_json:
        raise InvalidRequest("Choose --csv or --json, one of the two.")
    client: Client = ctx.obj
    job = client.resolve(job)
    if as_csv:
        for line in client.metrics_csv(job, names, start=start, stop=stop, points=points):
            typer.echo(line)
        return
    thinned = MOST_POINTS if names else 2  # of all curves their ends are shown
    curves = client.metrics(job, names, start=start, stop=stop, points=points if as_json else thinned)
    empty = [name for name, points in curves.series.items() if not points]
    if not as_json and (empty or not curves.series):
        missing = ", ".join(empty) or "curves"
        waits = f"There is no {missing} yet; workers measure from their first steps on."
        typer.echo(_nothing(client, job, f"It left no {missing}.", waits), err=True)
        if len(empty) == len(curves.series):
            return
    shown = records.curve_table(curves, points or ROWS) if names else records.curve_list(curves)
    show(curves, shown, as_json)


def resizes(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show what each change of size did."""
    page = Page[Resize](items=list(ctx.obj.iter_resizes(ctx.obj.resolve(job))))
    show(page, display.resize_list(page.items), as_json)


def ledger(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show which samples a job was trained on."""
    told = ctx.obj.ledger(ctx.obj.resolve(job))
    show(told, records.ledger_view(told), as_json)


def _waits(error: EmascaleError) -> None:
    """Said once in an outage."""
    typer.echo(f"{error.detail} The log goes on once it answers; Ctrl-C does not wait for that.", err=True)


def _nothing(client: Client, job: str, over: str, waits: str) -> str:
    """Why there is nothing: none comes any more, or none has come yet."""
    return over if client.job(job).status.is_terminal else waits
