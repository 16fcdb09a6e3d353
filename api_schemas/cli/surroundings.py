"""On the command line: what can be trained, what the scaling rules make of it, and where it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from api_schemas import display
from api_schemas.cli.conventions import AsJson, Settings, show
from api_schemas.errors import InvalidRequest
from api_schemas.specfile import override, read_spec


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
        show(sizes, display.size_list(sizes.sizes, sizes.warnings), as_json)
        return
    if optimizer is None:
        raise InvalidRequest("Name a job spec, or an optimizer with --optimizer.")
    asked = {"optimizer": {"name": optimizer}, "kappas": kappa or [1, 2, 4, 8]}
    rows = ctx.obj.scaling_preview(override(asked, settings or []))
    show(rows, display.scaling_list(rows.items), as_json)


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
        show(recipe, display.recipe_view(recipe), as_json)
        return
    page = ctx.obj.recipes()
    shown = display.recipe_list(page.items) if page.items else "The nodes have not said yet which recipes they have."
    show(page, shown, as_json)


def cluster(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the nodes, and which jobs wait for them."""
    view = ctx.obj.cluster()
    show(view, display.cluster_view(view), as_json)
