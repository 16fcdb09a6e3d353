"""What the command line shows: tables of the contract's models, and jobs live."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table

from api_schemas.previews import ScalingRow, SizePreview
from api_schemas.views import ClusterView, JobRow, JobView, Node, Phase, RecipeInfo, Resize, ResizePreview
from api_schemas.wording import SHOWN, age, counted, duration, explain, number, percent, scores, share, size_of, workers

PLAIN_WIDTH = 500
"""Columns where the output is no terminal: wide enough that nothing is cut."""

EXPLAINED = (Phase.QUEUED, Phase.RECOVERING, Phase.PAUSING, Phase.PAUSED, Phase.FAILED)
"""Phases of which a list says why; of one that runs, where it has fewer workers than it may have."""

LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
"""Of a JSON schema, in words."""

LEAST = {"loss": 9, "lr": 9, "rho": 6}
"""Columns that these take at least, live: what changes all the time must not make the table jump."""


def console(*, stderr: bool = False) -> Console:
    """Where everything is shown. Text is taken as it is: messages may hold brackets."""
    shown = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not shown.is_terminal:
        shown.width = PLAIN_WIDTH
    return shown


def show(console: Console, *parts: RenderableType) -> None:
    """Print, one below the other; without the blanks at the ends of lines where it is no terminal."""
    if console.is_terminal:
        console.print(*parts, sep="\n", crop=False)
        return
    with console.capture() as captured:
        console.print(*parts, sep="\n")
    console.out("\n".join(line.rstrip() for line in captured.get().splitlines()))


def live(jobs: Iterable[tuple[JobView, float | None]]) -> RenderableType:
    """Jobs as they train, each with its loss."""
    shown = list(jobs)
    return _Fitting(_live(shown, bar=24), _Fitting(_live(shown, bar=8), _live(shown, bar=0)))


def job_list(rows: Sequence[JobRow], now: datetime) -> RenderableType:
    """Jobs, one a line; why, for those that do not train as they should."""
    table = grid("id", "name", "phase", "workers", "done", "age", "why")
    for row in rows:
        why = row.status.message if row.status.phase in EXPLAINED or row.status.falls_short else ""
        done = percent(row.progress)
        state = [row.status.phase, str(row.workers), done, age(row.created_at, now)]
        table.add_row(row.id, row.name, *state, why)
    return table


def job_view(view: JobView) -> RenderableType:
    """One job, whole."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _facts(view):
        table.add_row(name, text)
    if view.evaluation is not None:
        table.add_row("evaluation", scores(view.evaluation.target, view.evaluation.ema))
    if view.artifacts:
        table.add_row("artifacts", ", ".join(view.artifacts))
        table.add_row("", f"`emascale artifacts {view.id} --all` downloads them.")
    tail = ["", view.status.traceback.rstrip()] if view.status.traceback else []
    log = ["", "The last lines of its log:", *view.status.log_tail] if view.status.log_tail else []
    return Group(table, *tail, *log)


def _facts(view: JobView) -> Iterator[tuple[str, str]]:
    spec, progress = view.spec, view.progress
    yield "job", f"{view.name} ({view.id})"
    yield "phase", f"{view.status.phase}: {view.status.message}"
    yield "trains", f"{spec.recipe.name} with {spec.optimizer.name}, priority {spec.priority}"
    if spec.labels:
        yield "labels", ", ".join(f"{name}={value}" for name, value in spec.labels.items())
    yield "size", size_of(view)
    for each in view.pending_resizes:
        yield "planned", f"{workers(each.workers)} from sample {each.at_samples} on"
    if progress.total_samples:
        done = f"{progress.samples} of {progress.total_samples} samples ({percent(progress)})"
        left = "" if progress.eta_s is None else f", about {duration(progress.eta_s)} left"
        yield "progress", f"{done}, epoch {number(progress.epoch)}{left}"
    for name, value in view.values.items():
        yield name, number(value)
    if view.noise_scale is not None:
        yield "noise scale", f"{number(view.noise_scale)} samples"


def before_after(change: ResizePreview | Resize) -> RenderableType:
    """Every value on both sides of a resize, and what its state is multiplied by."""
    table = grid("", "before", "after")
    sizes = {"workers": change.workers, "batch": change.batch, "kappa": change.kappa}
    for name, (before, after) in sizes.items():
        table.add_row(name, number(before), number(after))
    for name in {**change.before, **change.after}:
        table.add_row(name, number(change.before.get(name)), number(change.after.get(name)))
    for name, factor in change.state_factors.items():
        table.add_row(f"state {name}", "", f"x {number(factor)}")
    return Group(table, *(explain(code) for code in change.warnings))


def resize_list(rows: Sequence[Resize]) -> RenderableType:
    """Resizes that happened: before -> after, the pause and what was lost."""
    if not rows:
        return "It has not changed its size."
    one_line = _resizes(rows, ["workers", "batch", "kappa"], " -> ")
    return _Fitting(one_line, _resizes(rows, ["workers", "kappa"], "\n-> "))


def scaling_list(rows: Sequence[ScalingRow]) -> RenderableType:
    """What the scaling rules make of base values, a line per kappa."""
    return _values(("kappa",), [((row.kappa,), row) for row in rows])


def size_list(sizes: Sequence[SizePreview], notes: Sequence[str] = ()) -> RenderableType:
    """The sizes that a job may have, a line each; then what else is to be known of them."""
    rows = [((size.workers, size.batch, size.kappa), size) for size in sizes]
    return Group(_values(("workers", "batch", "kappa"), rows), *notes)


def recipe_list(recipes: Sequence[RecipeInfo]) -> RenderableType:
    """What can be trained, a line each."""
    table = grid("recipe", "why")
    table.columns[1].header = ""
    for recipe in recipes:
        table.add_row(recipe.name, recipe.summary)
    return table


def recipe_view(recipe: RecipeInfo) -> RenderableType:
    """One recipe and its settings."""
    schema = recipe.config_schema
    table = grid("setting", "default", "allowed", "why")
    table.columns[3].header = ""
    for name, setting in schema.get("properties", {}).items():
        default = "required" if name in schema.get("required", ()) else json.dumps(setting.get("default"))
        table.add_row(name, default, _allowed(setting, schema.get("$defs", {})), setting.get("description", ""))
    settings: list[RenderableType] = ["", table] if table.rows else []
    teacher = ["It learns from a teacher, the EMA: a job of it must have `ema`."] if recipe.needs_ema else []
    return Group(recipe.summary, *teacher, *settings)


def _allowed(setting: Mapping[str, Any], defined: Mapping[str, Any]) -> str:
    """Of a JSON schema what fits into a cell."""
    if "$ref" in setting:
        return _allowed(defined.get(setting["$ref"].rpartition("/")[2], {}), defined)
    if "anyOf" in setting:
        return " or ".join(_allowed(option, defined) for option in setting["anyOf"])
    if "enum" in setting:
        return ", ".join(map(str, setting["enum"]))
    limits = [f"{word} {number(setting[limit])}" for limit, word in LIMITS.items() if limit in setting]
    return " ".join([setting.get("type", "any"), *limits])


def cluster_view(cluster: ClusterView) -> RenderableType:
    """Nodes, and who waits for them."""
    seen = "never" if cluster.seen_at is None else f"{cluster.seen_at:%Y-%m-%d %H:%M:%S %Z}"
    state = "connected" if cluster.connected else "not connected"
    nodes = grid("node", "address", "state", "cpu in use", "gpu in use")
    for node in cluster.nodes:
        used = [f"{node.cpu_used:g} of {node.cpu:g}", f"{node.gpu_used:g} of {node.gpu:g}"]
        nodes.add_row(node.id[:12], node.address, _state_of(node), *used)
    queue = grid("waiting", "name", "priority", "why")
    for job in cluster.queue:
        queue.add_row(job.id, job.name, str(job.priority), job.message)
    parts: list[RenderableType] = [
        f"Ray: {state}, seen {seen}",
        "",
        nodes,
        "",
        queue if cluster.queue else "No job waits.",
    ]
    return Group(*parts)


def _state_of(node: Node) -> str:
    if not node.alive:
        return "gone"
    if not node.draining:
        return "alive"
    return "to leave" if node.drains_at is None else f"to leave by {node.drains_at:%H:%M:%S %Z}"


@dataclass(frozen=True)
class _Fitting:
    """The first where there is room for it, else the second."""

    wide: RenderableType
    narrow: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Called by rich."""
        room = Measurement.get(console, options.update_width(PLAIN_WIDTH), self.wide).maximum
        yield self.wide if room < options.max_width else self.narrow  # Ctrl-C writes ^C behind it


def _live(jobs: Sequence[tuple[JobView, float | None]], *, bar: int) -> Table:
    table = grid("job", *([""] if bar else []), "", "loss", "kappa", *SHOWN.values(), "workers", "phase")
    table.columns[0].max_width = 15
    for column in table.columns:
        column.min_width = LEAST.get(str(column.header))
    for job, loss in jobs:
        bars = [ProgressBar(total=1.0, completed=share(job.progress), width=bar)] if bar else []
        values = [number(value) for value in (loss, job.kappa, *map(job.values.get, SHOWN), job.workers)]
        table.add_row(job.name, *bars, f"{share(job.progress):4.0%}", *values, job.status.phase)
    return table


def _resizes(rows: Iterable[Resize], sizes: Sequence[str], arrow: str) -> Table:
    table = grid("sample", "cause", *sizes, *SHOWN.values(), "pause", "lost")
    for row in rows:
        pairs = [getattr(row, name) for name in sizes] + [(row.before.get(name), row.after.get(name)) for name in SHOWN]
        moves = [f"{number(before)}{arrow}{number(after)}" for before, after in pairs]
        table.add_row(str(row.samples), row.cause, *moves, f"{row.pause_s:.2f} s", counted(row.steps_lost, "step"))
    return table


def _values(keys: tuple[str, ...], rows: Sequence[tuple[tuple[float, ...], ScalingRow | SizePreview]]) -> Group:
    """A line per size of what differs between sizes; below it what does not, and what is to be known of a size."""
    names = list(dict.fromkeys(name for _, row in rows for name in row.values))
    told = [row for _, row in rows if not row.error]
    moving = [name for name in names if len({number(row.values.get(name)) for row in told}) > 1 or len(rows) == 1]
    table = grid(*keys, *(SHOWN.get(name, name) for name in moving))
    for key, row in rows:
        table.add_row(*map(number, key), *(number(row.values.get(name)) for name in moving))
    fixed = [f"{SHOWN.get(name, name)} {number(told[0].values.get(name))}" for name in names if name not in moving]
    notes = [f"{keys[0]} {number(key[0])}: {explain(code)}" for key, row in rows for code in row.warnings]
    errors = [f"{keys[0]} {number(key[0])} is refused: {explain(row.error)}" for key, row in rows if row.error]
    below = [f"At every size: {', '.join(fixed)}."] if fixed else []
    return Group(table, *(["", *below, *notes, *errors] if [*below, *notes, *errors] else []))


def grid(*columns: str) -> Table:
    """An empty table; its columns stay on one line, those named `why` fold."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column != "why", overflow="fold" if column == "why" else "ellipsis")
    return table
