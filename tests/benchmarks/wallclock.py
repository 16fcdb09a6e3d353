"""What a larger batch saves on this machine, and what more machines would: `./run bench wallclock [--json FILE]`.

BYOL through the service, on two workers, at one kappa after the other, everything else re-derived. `samples_per_s` as
the job's curve has it; `target_s` from the first step until an evaluation finds the EMA as good as the target (its
price included), which is what kappa = 1 reaches at the end of the run less `MARGIN`, the mean over seeds.

The projection is for machines that nobody here has. It knows what one worker needs for its share of a batch and what a
resize costs, both measured here, how fast gloo moves gradients between two processes, and what a hop costs
(`bench scale`, whose result it reads). Its assumptions are in its output. Derived for this project.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from api_schemas.events import Evaluated, Started
from tests.benchmarks import finish, say, spread
from tests.benchmarks.peers import bandwidth
from tests.benchmarks.scale import ring_s
from tests.integration.stage import Job, Stage, staged

RESULTS = Path(__file__).parent / "results"
BASE = 32
MARGIN = 0.01
"""Of the target, below what kappa = 1 reaches."""
SHARE = 128
"""Images that a worker of the projection takes: 32 of them have the paper's 4,096, 192 its 24,576."""
WORKERS = (32, 192)
EARLY = (0.0, 0.1, 1 / 3)
"""Shares of the samples that are trained at the base batch first."""

ASSUMPTIONS = [
    "Six times the batch on six times the workers, each with as many samples as before, as fast as the one measured.",
    "No communication hides behind computation: gradients go round a ring, 2 (W - 1) / W of their bytes at the rate "
    "and 2 (W - 1) hops one after the other, as measured between processes of one machine.",
    "As many samples as at the base batch make the model as good; that is what the fidelity benchmark looks at.",
    "One resize, which pauses as long as the one measured; evaluations and checkpoints are left out on both sides.",
]


class Run(NamedTuple):
    """What a job came to."""

    rate: float  # samples per second
    scores: dict[int, float]  # samples -> the EMA's accuracy
    seconds: dict[int, float]  # samples -> since the first step


def main(
    kappas: Annotated[str, typer.Option(help="Which, separated by commas; 1 must be there.")] = "1,2,4,8",
    seeds: Annotated[int, typer.Option(help="Runs of each.")] = 3,
    scale: Annotated[Path, typer.Option(help="What `bench scale` wrote.")] = RESULTS / "scale.json",
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Measure, print a row at a time, write all."""
    with tempfile.TemporaryDirectory(prefix="wallclock-") as folder, staged(Path(folder), slots=3) as service:
        runs = {int(kappa): [_run(service, int(kappa), seed) for seed in range(seeds)] for kappa in kappas.split(",")}
        worker, pause_s = _worker(service), _pause(service)
    target = statistics.fmean(run.scores[max(run.scores)] for run in runs[1]) - MARGIN
    rows = [_row(kappa, found, target) for kappa, found in runs.items()]
    constants = {**worker, "pause_s": pause_s, "bytes_per_s": statistics.median(bandwidth.measure())}
    constants["hop_ms"] = json.loads(scale.read_text())["model"]["constants"]["hop_ms"]
    finish({"target": round(target, 4), "rows": rows, "projection": projection(constants)}, output)


def _run(service: Stage, kappa: int, seed: int) -> Run:
    job = service.submit(
        name=f"kappa {kappa}",
        recipe={"name": "byol", "config": {"hidden": 256, "head_hidden": 256}},
        optimizer={"name": "adamw", "lr": 3e-4},
        schedule={"budget": "40 epochs"},
        ema={"momentum": 0.99},
        batch={"base": BASE, "per_worker": BASE * kappa // 2},
        elasticity={"workers": [2, 2]},
        evaluation={"every": "2 epochs"},
        seed=seed,
    )
    job.ends()
    run = _told(job)
    say({"kappa": kappa, "seed": seed, "samples_per_s": round(run.rate), "scores": list(run.scores.values())})
    return run


def _told(job: Job) -> Run:
    events = list(job.events())
    (began,) = (event.at for event in events if isinstance(event, Started))
    looks = [event for event in events if isinstance(event, Evaluated) and event.ema]
    scores = {event.samples: float((event.ema or {})["accuracy"] or 0) for event in looks}
    return Run(_rate(job), scores, {event.samples: (event.at - began).total_seconds() for event in looks})


def _rate(job: Job) -> float:
    points = job.client.metrics(job.id).series["samples_per_s"]
    return statistics.median(rate for _, rate in points if rate)


def _row(kappa: int, runs: Sequence[Run], target: float) -> dict[str, Any]:
    rates, reached = [run.rate for run in runs], [_reached(run, target) for run in runs]
    times = [run.seconds[samples] for run, samples in zip(runs, reached, strict=True) if samples]
    row = {
        "kappa": kappa,
        "batch": BASE * kappa,
        "samples_per_s": spread(rates, 0),
        "step_ms": round(1000 * BASE * kappa / statistics.median(rates), 2),
        "score": spread([run.scores[max(run.scores)] for run in runs]),
        "reached": f"{len(times)} of {len(runs)}",
        "target_samples": statistics.median(samples for samples in reached if samples) if times else None,
        "target_s": spread(times, 1) if times else None,
    }
    say(row)
    return row


def _reached(run: Run, target: float) -> int | None:
    return next((samples for samples, score in sorted(run.scores.items()) if score >= target), None)


def _worker(service: Stage) -> dict[str, float]:
    """Seconds that one worker alone takes for its share of a step, and the bytes of its gradient."""
    job = service.submit(
        name="share of a worker",
        recipe={
            "name": "byol",
            "config": {"dataset": "fashion_mnist", "train_size": 2560, "model": "resnet", "hidden": 16},
        },
        schedule={"budget": "40 base_steps"},
        batch={"base": SHARE, "per_worker": SHARE},
        elasticity={"workers": [1, 1]},
    )
    job.ends()
    gradient_bytes = sum(weights.nbytes for weights in job.weights().values())  # and of some buffers
    return {"compute_s": SHARE / _rate(job), "gradient_bytes": gradient_bytes}


def _pause(service: Stage) -> float:
    """Of the resize from 1 to 2 workers in which kappa becomes 6."""
    job = service.submit(
        name="progressive",
        recipe={"name": "byol", "config": {"hidden": 256, "head_hidden": 256}},
        schedule={"budget": "20 epochs"},
        batch={"base": BASE, "per_worker": 3 * BASE},
        elasticity={
            "workers": [1, 2],
            "kappa": [1, 6],
            "progressive": [{"until": "10 epochs", "kappa_max": 1}],
        },
    )
    job.ends()
    return max(row.pause_s for row in job.rows())


def projection(constants: Mapping[str, float]) -> dict[str, Any]:
    """How much sooner a run ends whose batch becomes six times as large on six times the workers."""
    few, many = (step_s(workers, constants) for workers in WORKERS)
    kappa = WORKERS[1] / WORKERS[0]
    speedup = kappa * few / many
    return {
        "kappa": kappa,
        "workers": WORKERS,
        "step_s": [round(few, 4), round(many, 4)],
        "speedup": {
            f"{early:.2f} of the samples at the base batch": round(_overall(early, speedup), 2) for early in EARLY
        },
        "constants": dict(constants),
        "assumptions": ASSUMPTIONS,
    }


def step_s(workers: int, constants: Mapping[str, float]) -> float:
    """A step of so many workers: what each computes, gradients once round the ring, and the vote."""
    hops_s = 2 * ring_s(workers, constants["hop_ms"])  # the gradient's, and the vote's
    moved = 2 * (workers - 1) / workers * constants["gradient_bytes"] / constants["bytes_per_s"]
    return constants["compute_s"] + moved + hops_s


def _overall(early: float, speedup: float) -> float:
    return 1 / (early + (1 - early) / speedup)


if __name__ == "__main__":
    typer.run(main)
