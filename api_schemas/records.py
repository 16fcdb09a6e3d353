"""What a job left behind, as tables: events, curves, the ledger, checkpoints and artifacts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.console import Group, RenderableType

from api_schemas.display import grid
from api_schemas.events import Event
from api_schemas.views import Artifact, Checkpoint, Curves, JobView, Ledger, LedgerEpoch, Point
from api_schemas.wording import counted, describe, number, volume


def event_list(events: Sequence[Event], below: str = "") -> RenderableType:
    """Events, one a line, in the order given; then a sentence about those that are not among them."""
    if not events:
        return "No event is like that."
    table = grid("at", "event", "why")
    table.columns[2].header = ""
    for event in events:
        table.add_row(f"{event.at:%Y-%m-%d %H:%M:%S}", event.type, describe(event) or getattr(event, "message", ""))
    return Group(table, *([below] if below else []))


def curve_list(curves: Curves) -> RenderableType:
    """What was measured: the first and the last point of each curve."""
    table = grid("curve", "samples", "first", "last")
    for name, points in curves.series.items():
        (first, before), (last, after) = points[0], points[-1]
        table.add_row(name, f"{first} to {last}", number(before), number(after))
    return table


def curve_table(curves: Curves, most: int) -> RenderableType:
    """Curves side by side over samples, in so many rows at most."""
    table = grid("samples", *curves.series)
    for samples, values in rows(curves.series, most):
        table.add_row(str(samples), *map(number, values))
    return table


def rows(series: Mapping[str, Sequence[Point]], most: int) -> list[tuple[int, list[float | None]]]:
    """Of `most` (2 or more) samples at most, evenly picked among those at which anything was measured: what each curve
    said last up to there. The first and the last sample are among them."""
    measured = sorted({point.samples for points in series.values() for point in points})
    last = len(measured) - 1
    picked = measured if last < most else [measured[round(row * last / (most - 1))] for row in range(most)]
    return [(samples, [_until(points, samples) for points in series.values()]) for samples in picked]


def _until(points: Sequence[Point], samples: int) -> float | None:
    seen = bisect_right(points, samples, key=lambda point: point.samples)
    return points[seen - 1].value if seen else None


def ledger_view(ledger: Ledger) -> RenderableType:
    """Epochs, those alike on one line, with the generations that trained on their samples; then what was lost."""
    table = grid("epoch", "samples", "ranges", "generations")
    for told, alike in groupby(ledger.epochs, key=_told_of):
        epochs = [epoch.epoch for epoch in alike]
        table.add_row(str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}", *told)
    account = f"{counted(ledger.samples_lost, 'sample')} lost, {ledger.samples_repeated} repeated."
    return Group(table, "", account) if ledger.epochs else "No sample was trained on yet."


def _told_of(epoch: LedgerEpoch) -> tuple[str, str, str]:
    generations = sorted({generation for _, _, generation in epoch.ranges})
    return str(epoch.samples), str(len(epoch.ranges)), number(generations)


def artifact_list(artifacts: Sequence[Artifact], job: JobView) -> RenderableType:
    """What a job exported, and how to come by it."""
    if not artifacts:
        return "It left no artifacts." if job.status.is_terminal else "No artifacts yet; a job exports them at its end."
    table = grid("artifact", "size")
    for artifact in artifacts:
        table.add_row(artifact.name, volume(artifact.bytes))
    return Group(table, "", f"`emascale artifacts {job.id} NAME` downloads one, --all all of them.")


def checkpoint_list(checkpoints: Sequence[Checkpoint], job: JobView) -> RenderableType:
    """The durable checkpoints, and how to come by one."""
    if not checkpoints:
        waits = "No checkpoint yet; with `checkpoint.every` a job leaves some on the way, else one at its end."
        return "It left no checkpoint." if job.status.is_terminal else waits
    table = grid("checkpoint", "sample", "saved at", "size")
    for each in checkpoints:
        table.add_row(each.name, str(each.samples), f"{each.saved_at:%Y-%m-%d %H:%M:%S}", volume(each.bytes))
    return Group(table, "", f"`emascale checkpoints {job.id} NAME` downloads one.")
