"""Pictures of what the fidelity benchmark found: `./run bench report --state FOLDER` draws tests/benchmarks/figures.

FOLDER is what `bench fidelity --state` filled; nothing is trained here. Each picture is written as SVG and as PNG.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.fidelity import OTHER_ORDER
from tests.benchmarks.runs.gap import distances
from tests.benchmarks.runs.settings import BATCH, RESIZED, SCHEDULES, SETTINGS, job
from tests.benchmarks.runs.shelf import Shelf
from tests.benchmarks.runs.training import Trained

FIGURES, RESULTS = (Path(__file__).parent / name for name in ("figures", "results"))
NAMES = {
    "lr_only": "learning rate alone",
    "all_but_ema": "all but the EMA",
    "matched": "all rules, noise measured",
    "matched_per_worker": "all rules, per_worker",
}
COLOURS = {"lr_only": "#b3b3b3", "all_but_ema": "#d95f02", "matched": "#7570b3", "matched_per_worker": "#1b9e77"}
STEP_SCHEDULES = [name for name in SCHEDULES if name.startswith("k")]


def main(
    state: Annotated[Path, typer.Option(help="What `bench fidelity --state` kept.")],
    result: Annotated[Path, typer.Option(help="What it wrote.")] = RESULTS / "fidelity.json",
) -> None:
    """Draw all that there are runs for."""
    mpl.rcParams.update({"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    mpl.rcParams["svg.hashsalt"] = "emascale"  # the same picture is the same file
    rows, shelf = json.loads(result.read_text())["rows"], Shelf(state)
    _write("gaps", lambda figure: _gaps(figure, rows))
    _write("trajectories", lambda figure: _trajectories(figure, shelf, "byol-adamw"))
    _write("resize", lambda figure: _resizes(figure, shelf, "byol-adamw"))
    if any(row["schedule"] in STEP_SCHEDULES for row in rows):
        _write("kappa", lambda figure: _by_kappa(figure, rows))


def _write(name: str, draw: Callable[[Figure], None]) -> None:
    figure = plt.figure(figsize=(7.2, 3.4), layout="constrained")
    draw(figure)
    FIGURES.mkdir(exist_ok=True)
    for kind in ("svg", "png"):
        figure.savefig(FIGURES / f"{name}.{kind}", metadata={"Date": None} if kind == "svg" else {"Software": None})
    plt.close(figure)


def _gaps(figure: Figure, rows: Iterable[dict[str, Any]]) -> None:
    """A bar for each setting and method, on the schedule switch."""
    axes = figure.subplots()
    switch = {(row["setting"], row["method"]): row for row in rows if row["schedule"] == "switch"}
    settings = [setting for setting in SETTINGS if any(name == setting for name, _ in switch)]
    for number, (method, label) in enumerate(NAMES.items()):
        shown = [switch[setting, method] for setting in settings]
        at = [place + 0.2 * (number - 1.5) for place in range(len(settings))]
        gaps, errors = [row["gap"] for row in shown], [row["se"] for row in shown]
        axes.bar(at, gaps, width=0.19, yerr=errors, label=label, color=COLOURS[method], error_kw={"lw": 0.8})
    axes.axhline(0.25, color="black", lw=0.8, ls=":")
    axes.set_xticks(range(len(settings)), settings, rotation=12)
    axes.set_ylabel("gap (1: another order of the data)")
    axes.set_yscale("log")
    axes.set_title("kappa 1, 4, 2, 8, 1 in fifths of the run: how far the EMA strays from kappa = 1", fontsize=9)
    axes.legend(frameon=False, ncols=2, fontsize=8)


def _trajectories(figure: Figure, shelf: Shelf, setting: str) -> None:
    """Distance from the base run on the way, without and with the rules."""
    axes = figure.subplots()
    base, other = _run(shelf, setting, "base", "matched"), _run(shelf, setting, "base", "matched", OTHER_ORDER)
    _line(axes, distances(other.path, base.path), "another order of the data, kappa 1", color="black", ls="--")
    for method, label in NAMES.items():
        path = _run(shelf, setting, "switch", method).path
        _line(axes, distances(path, base.path), label, color=COLOURS[method])
    _mark_parts(axes)
    axes.set_ylabel("|EMA weights - those at kappa 1|")
    axes.set_xlabel("samples")
    axes.set_title(f"{setting}: the way of the EMA while kappa changes", fontsize=9)
    axes.legend(frameon=False, fontsize=8)


def _resizes(figure: Figure, shelf: Shelf, setting: str) -> None:
    """What is in force on the way through the schedule switch."""
    run = _run(shelf, setting, "switch", "matched_per_worker")
    samples = [0, *(row["samples"] for row in run.resizes), max(run.path)]
    panels = {"kappa": ("kappa", 1), "lr": ("learning rate", None), "ema_momentum": ("EMA momentum", None)}
    for axes, (name, (label, _)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        values = [_in_force(row, name) for row in run.resizes]
        before = _in_force(run.resizes[0], name, after=False)
        axes.step(samples, [before, *values, values[-1]], where="post", color=COLOURS["matched_per_worker"])
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("samples")
    pauses = ", ".join(f"{1000 * row['pause_s']:.0f}" for row in run.resizes)
    figure.suptitle(f"{setting}: four resizes between 1 and 2 workers, pauses of {pauses} ms", fontsize=9)


def _in_force(row: dict[str, Any], name: str, *, after: bool = True) -> float:
    return float(row["kappa"][after] if name == "kappa" else row["after" if after else "before"][name])


def _by_kappa(figure: Figure, rows: Iterable[dict[str, Any]]) -> None:
    """Gap against a kappa that stays: three settings a line."""
    shown = [row for row in rows if row["schedule"] in STEP_SCHEDULES]
    settings = [setting for setting in SETTINGS if any(row["setting"] == setting for row in shown)]
    lines = math.ceil(len(settings) / 3)
    figure.set_size_inches(7.2, 2.6 * lines)
    panels = figure.subplots(lines, 3, squeeze=False, sharex=True, sharey=True)
    for axes, setting in zip(panels.flat, settings, strict=False):
        for method, label in NAMES.items():
            here = [row for row in shown if (row["setting"], row["method"]) == (setting, method)]
            kappas = [int(row["schedule"].removeprefix("k")) for row in here]
            gaps, errors = [row["gap"] for row in here], [row["se"] for row in here]
            axes.errorbar(kappas, gaps, errors, label=label, color=COLOURS[method], marker="o", ms=3, lw=1.2)
        axes.set_xscale("log", base=2)
        axes.set_xticks(kappas, [f"{kappa}" for kappa in kappas])
        axes.set_yscale("log")
        axes.set_title(setting, fontsize=9)
    figure.supxlabel("kappa", fontsize=9)
    figure.supylabel("gap (1: another order of the data)", fontsize=9)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), frameon=False, fontsize=8, ncols=4, loc="outside upper center"
    )


def _run(shelf: Shelf, setting: str, schedule: str, method: str, order: int = 0) -> Trained:
    """The run of seed 0, as `bench fidelity` names it."""
    name = f"{setting}-{schedule}-{method}-0-{order}"
    return shelf.take(name, job(setting, method, seed=0, data_seed=order), RESIZED[schedule], lambda: _missing(name))


def _missing(name: str) -> Trained:
    raise typer.BadParameter(f"there is no run {name} in that folder; `bench fidelity` makes it", param_hint="--state")


def _line(axes: Axes, points: dict[int, float], label: str, **style: Any) -> None:
    axes.plot(list(points), list(points.values()), label=label, **style)


def _mark_parts(axes: Axes) -> None:
    for part in SCHEDULES["switch"]:
        axes.axvline(part.start * BATCH, color="#e0e0e0", lw=0.8, zorder=0)
        axes.annotate(f" {part.kappa:g}", (part.start * BATCH, 0.97), xycoords=("data", "axes fraction"), fontsize=8)


if __name__ == "__main__":
    typer.run(main)
