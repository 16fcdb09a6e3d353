"""Does training at a batch that changes follow the training at the base batch? `./run bench fidelity [--quick]`

Every run goes through the engine: real ranks, a conductor, and resizes at given samples. Gap: how far the EMA weights
are from those of the run at kappa = 1 with the same data order, in units of how far another data order leads (1 means
as far as that); `se` is its standard error over seeds. Metric: the EMA's score at the end, accuracy where the recipe
has one, else loss; `metric_base` is that of kappa = 1, `metric_base_se` its standard error over seeds.

Runs are kept in a folder as they come (`--state`), so a sweep that was cut goes on where it was. What is trained, by
which schedules and methods, is in tests/benchmarks/runs/settings.py.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from api_schemas.dynamics import Size, optimizer_values
from api_schemas.errors import ScalingError
from tests.benchmarks import finish, say
from tests.benchmarks.runs.gap import gap
from tests.benchmarks.runs.settings import BATCH, METHODS, RESIZED, SCHEDULES, SETTINGS, job
from tests.benchmarks.runs.shelf import Shelf
from tests.benchmarks.runs.training import Trained, train

QUICK = ("lr_only", "all_but_ema", "matched", "matched_per_worker")
OTHER_ORDER = 1000
"""Added to a seed for the second data order."""


def main(
    quick: Annotated[bool, typer.Option(help="The schedule switch, four methods and two seeds alone.")] = False,
    settings: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(SETTINGS),
    schedules: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(SCHEDULES),
    methods: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(METHODS),
    seeds: Annotated[int, typer.Option(help="Runs of each kind.")] = 5,
    state: Annotated[Path | None, typer.Option(help="Keep runs here, and go on with those that are there.")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Measure, print a row at a time, write all."""
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # a rank that is ended while it waits for the next generation says so
    if quick:
        schedules, methods, seeds = "switch", ",".join(QUICK), 2
    shelf = Shelf(state)
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for setting in settings.split(","):
        for row in _rows(shelf, setting, schedules.split(","), methods.split(","), range(seeds)):
            (left_out if "refused" in row else rows).append(row)
    finish({"rows": rows, "left_out": left_out}, output)


def refusal(setting: str, method: str, schedule: str) -> str | None:
    """Why the scaling rules have no values for a part of the schedule; None: they have."""
    spec = job(setting, method, seed=0, data_seed=0)
    try:
        for _, kappa, workers in RESIZED[schedule]:
            optimizer_values(spec, Size(workers=workers, batch=round(kappa * BATCH), kappa=kappa))
    except ScalingError as error:
        return str(error)
    return None


def _rows(
    shelf: Shelf, setting: str, schedules: Sequence[str], methods: Sequence[str], seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Those that the rules refuse have `refused` in place of what was measured."""
    bases = [(_run(shelf, setting, "matched", "base", seed), _base_of(shelf, setting, seed)) for seed in seeds]
    for schedule in schedules:
        for method in methods:
            if refused := refusal(setting, method, schedule):
                row = {"setting": setting, "schedule": schedule, "method": method, "refused": refused}
                say(row)
                yield row
                continue
            runs = [_run(shelf, setting, method, schedule, seed) for seed in seeds]
            row = {"setting": setting, "schedule": schedule, "method": method, **_compared(runs, bases)}
            say(row)
            yield row


def _base_of(shelf: Shelf, setting: str, seed: int) -> Trained:
    """The base run with the other data order."""
    return _run(shelf, setting, "matched", "base", seed, data_seed=seed + OTHER_ORDER)


def _run(shelf: Shelf, setting: str, method: str, schedule: str, seed: int, data_seed: int | None = None) -> Trained:
    order = seed if data_seed is None else data_seed
    spec = job(setting, method, seed=seed, data_seed=order)
    parts = RESIZED[schedule]
    return shelf.take(f"{setting}-{schedule}-{method}-{seed}-{order}", spec, parts, lambda: train(spec, parts))


def _compared(runs: Sequence[Trained], bases: Sequence[tuple[Trained, Trained]]) -> dict[str, Any]:
    gaps = [gap(run.path, base.path, other.path) for run, (base, other) in zip(runs, bases, strict=True)]
    scores, base_scores = [score(run) for run in runs], [score(base) for base, _ in bases]
    return {
        "gap": round(statistics.fmean(gaps), 4),
        "se": round(_error(gaps), 4),
        "metric": round(statistics.fmean(scores), 5),
        "metric_base": round(statistics.fmean(base_scores), 5),
        "metric_base_se": round(_error(base_scores), 5),
        "seeds": len(runs),
    }


def score(run: Trained) -> float:
    """At the end, the EMA's accuracy; of a recipe that has none its loss."""
    return run.scores["accuracy"] if "accuracy" in run.scores else run.scores["loss"]


def _error(values: Sequence[float]) -> float:
    """Standard error of the mean; 0 for a single value, of which nothing is known."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


if __name__ == "__main__":
    typer.run(main)
