"""What the command line shows: tables of the contract's models, and jobs live."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from api_schemas.previews import ScalingRow, SizePreview
from api_schemas.views import ClusterView, JobRow, JobView, Resize, ResizePreview
from api_schemas.wording import SHOWN, number, scores, share

PLAIN_WIDTH = 200
"""Columns where the output is no terminal: wide enough that nothing is cut."""


def console(*, stderr: bool = False) -> Console:
    """Where everything is shown. Text is taken as it is: messages may hold brackets."""
    shown = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not shown.is_terminal:
        shown.width = PLAIN_WIDTH
    return shown


def live(jobs: Iterable[tuple[JobView, float | None]], recent: Iterable[str]) -> RenderableType:
    """Jobs as they train, each with its loss, and below them what happened last."""
    table = _table("job", "", "", "loss", "kappa", *SHOWN.values(), "workers", "phase")
    for job, loss in jobs:
        bar = ProgressBar(total=1.0, completed=share(job.progress), width=24)
        values = [number(value) for value in (loss, job.kappa, *map(job.values.get, SHOWN), job.workers)]
        table.add_row(job.name, bar, f"{share(job.progress):.0%}", *values, job.status.phase)
    return Group(table, *recent)


def job_list(rows: Iterable[JobRow]) -> Table:
    """Jobs, one a line."""
    table = _table("id", "name", "phase", "workers", "kappa", "done", "created", "why")
    for row in rows:
        created = f"{row.created_at:%Y-%m-%d %H:%M}"
        done = f"{share(row.progress):.0%}"
        state = [row.status.phase, str(row.workers), number(row.kappa), done, created, row.status.message]
        table.add_row(row.id, row.name, *state)
    return table


def job_view(view: JobView) -> RenderableType:
    """One job, whole."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    seen, total = view.progress.samples, view.progress.total_samples
    table.add_row("job", f"{view.name} ({view.id})")
    table.add_row("phase", f"{view.status.phase}: {view.status.message}")
    table.add_row("size", f"{view.workers} workers, batch {number(view.batch)}, kappa {number(view.kappa)}")
    table.add_row("progress", f"{seen} of {number(total)} samples, epoch {number(view.progress.epoch)}")
    if view.progress.eta_s is not None:
        table.add_row("left", f"{view.progress.eta_s:.0f} s")
    for name, value in view.values.items():
        table.add_row(name, number(value))
    if view.evaluation is not None:
        table.add_row("evaluation", scores(view.evaluation.target, view.evaluation.ema))
    for name, url in view.artifacts.items():
        table.add_row(name, url)
    tail = [view.status.traceback] if view.status.traceback else []
    return Group(table, *tail, *view.status.log_tail)


def before_after(change: ResizePreview | Resize) -> Table:
    """Every value on both sides of a resize, and what its state is multiplied by."""
    table = _table("", "before", "after")
    sizes = {"workers": change.workers, "batch": change.batch, "kappa": change.kappa}
    for name, (before, after) in sizes.items():
        table.add_row(name, number(before), number(after))
    for name in {**change.before, **change.after}:
        table.add_row(name, number(change.before.get(name)), number(change.after.get(name)))
    for name, factor in change.state_factors.items():
        table.add_row(f"state {name}", "", f"x {number(factor)}")
    if change.warnings:
        table.add_row("warnings", "", ", ".join(change.warnings))
    return table


def resize_list(rows: Iterable[Resize]) -> Table:
    """Resizes that happened, one a line: before -> after, the pause and what was lost."""
    table = _table("sample", "cause", "workers", "batch", "kappa", *SHOWN.values(), "pause", "steps lost")
    for row in rows:
        sizes = [f"{number(before)} -> {number(after)}" for before, after in (row.workers, row.batch, row.kappa)]
        moves = [f"{number(row.before.get(name))} -> {number(row.after.get(name))}" for name in SHOWN]
        table.add_row(str(row.samples), row.cause, *sizes, *moves, f"{row.pause_s:.2f} s", str(row.steps_lost))
    return table


def scaling_list(rows: Sequence[ScalingRow]) -> Table:
    """What the scaling rules make of base values, a line per kappa."""
    return _values_table(("kappa",), [((row.kappa,), row) for row in rows])


def size_list(sizes: Sequence[SizePreview]) -> Table:
    """The sizes that a job may have, a line each."""
    rows = [((size.workers, size.batch, size.kappa), size) for size in sizes]
    return _values_table(("workers", "batch", "kappa"), rows)


def cluster_view(cluster: ClusterView) -> RenderableType:
    """Nodes, and who waits for them."""
    seen = "never" if cluster.seen_at is None else f"{cluster.seen_at:%Y-%m-%d %H:%M:%S %Z}"
    state = "connected" if cluster.connected else "not connected"
    nodes = _table("node", "address", "alive", "cpu", "gpu")
    for node in cluster.nodes:
        used = [f"{node.cpu_used:g} of {node.cpu:g}", f"{node.gpu_used:g} of {node.gpu:g}"]
        nodes.add_row(node.id[:12], node.address, "yes" if node.alive else "no", *used)
    queue = _table("waiting", "name", "priority", "why")
    for job in cluster.queue:
        queue.add_row(job.id, job.name, str(job.priority), job.message)
    return Group(f"Ray: {state}, seen {seen}", nodes, *([queue] if cluster.queue else []))


def _values_table(keys: tuple[str, ...], rows: Sequence[tuple[tuple[float, ...], ScalingRow | SizePreview]]) -> Table:
    names = list(dict.fromkeys(name for _, row in rows for name in row.values))
    table = _table(*keys, *names, "notes")
    for key, row in rows:
        notes = [*row.warnings, *([f"refused: {row.error}"] if row.error else [])]
        table.add_row(*map(number, key), *(number(row.values.get(name)) for name in names), ", ".join(notes))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column in ("id", "job"))
    return table
