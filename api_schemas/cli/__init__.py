"""The `emascale` command, over `Client`. Exit codes: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from api_schemas.cli import files, history, jobs, surroundings
from api_schemas.cli.conventions import Commands, Connect
from api_schemas.client import Client

ABOUT = "Elastic training jobs whose dynamics survive every change of batch size."
COMMANDS: dict[str, Callable[..., None]] = {
    "submit": jobs.submit,
    "list": jobs.list_jobs,
    "get": jobs.get,
    "watch": jobs.watch,
    "resize": jobs.resize,
    "update": jobs.update,
    "pause": jobs.pause,
    "resume": jobs.resume,
    "cancel": jobs.cancel,
    "delete": jobs.delete,
    "logs": history.logs,
    "events": history.events,
    "metrics": history.metrics,
    "resizes": history.resizes,
    "ledger": history.ledger,
    "artifacts": files.artifacts,
    "checkpoints": files.checkpoints,
    "preview": surroundings.preview,
    "recipes": surroundings.recipes,
    "cluster": surroundings.cluster,
}
"""In the order in which --help lists them."""

app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, help=ABOUT)
for name, command in COMMANDS.items():
    app.command(name)(command)


@app.callback()
def main(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option(envvar="EMASCALE_URL", help="Address of the service.", show_default=False)
    ] = None,
) -> None:
    connect: Connect = ctx.obj or Client
    ctx.obj = ctx.with_resource(connect(url))
