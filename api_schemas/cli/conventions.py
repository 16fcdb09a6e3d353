"""What all commands have in common: their options, their output, and how a failure ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import RenderableType
from typer.core import TyperGroup

from api_schemas import display
from api_schemas.client import Client
from api_schemas.errors import EmascaleError, InvalidRequest

INTERRUPTED = 130

Connect = Callable[[str | None], Client]
"""How a command gets its client; the `obj` of the call, where a test or another program brings its own."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, enough of its beginning, or its name.")]
SpecFile = Annotated[typer.FileText, typer.Argument(metavar="FILE", help="A job spec as YAML or JSON; - for stdin.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Set a field: --set optimizer.lr=0.1")
]


class Commands(TyperGroup):
    """Turns an expected failure into lines on stderr and an exit code; Ctrl-C is no failure to talk about."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EmascaleError as error:
            for line in lines_of(error):
                typer.echo(line, err=True)
            raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1) from error
        except KeyboardInterrupt as stopped:
            raise typer.Exit(INTERRUPTED) from stopped


def lines_of(error: EmascaleError) -> Iterable[str]:
    """One line for each wrong field, or one for the whole."""
    for wrong in error.errors:
        field = ".".join(
            step.replace("~1", "/").replace("~0", "~") for step in wrong.pointer.removeprefix("?").split("/") if step
        )
        yield f"{field}: {wrong.message}" if field else wrong.message
    if not error.errors:
        yield error.detail
    if error.request_id and not isinstance(error, InvalidRequest):
        yield f"(request {error.request_id})"


def show(model: BaseModel, shown: RenderableType, as_json: bool) -> None:
    """On standard output: the model as JSON, or what a person reads."""
    if as_json:
        typer.echo(model.model_dump_json(indent=2))
    else:
        display.show(display.console(), shown)
