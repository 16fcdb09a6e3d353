"""The paper's toy through the engine: how far the EMA strays from that of the base batch. `./run bench parabola`

Without noise, at curvature 1: the largest difference between the EMA at kappa and the one at kappa = 1, at equal
samples, with rho kept, with 1 - kappa (1 - rho), and with rho^kappa. Figure and setting: Busbridge et al. 2023, arXiv
2307.13813, section 3.1; `paper` are the figures of its recursion. Weights are averaged before each step, as there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from api_schemas.jobs import JobSpec
from tests.benchmarks import finish, say
from tests.benchmarks.runs.settings import Part
from tests.benchmarks.runs.training import train

RATE, RHO, STEPS, EVERY = 1e-4, 0.9999, 49_664, 512
PAPER = {
    8: {"kept": 0.60, "linear": 1.1e-4, "power": 8.1e-5},
    64: {"kept": 0.90, "linear": 9.8e-4, "power": 7.3e-4},
    256: {"kept": 0.94, "linear": 4.0e-3, "power": 3.0e-3},
    512: {"kept": 0.95, "linear": 8.1e-3, "power": 6.1e-3},
}
"""Largest gap by kappa and rule."""


def main(output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None) -> None:
    """Measure, print a row at a time, write all."""
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    base = _averages(1, RHO, keep=[])
    rows = [_row(base, kappa, rule) for kappa, rules in PAPER.items() for rule in rules]
    finish({"rows": rows}, output)


def _row(base: dict[int, float], kappa: int, rule: str) -> dict[str, Any]:
    linear = (1 - kappa * (1 - RHO)) ** (1 / kappa)  # which becomes 1 - kappa (1 - rho) to the power of kappa
    averages = _averages(kappa, linear if rule == "linear" else RHO, keep=["ema"] if rule == "kept" else [])
    gap, paper = max(abs(averages[at] - base[at]) for at in averages), PAPER[kappa][rule]
    row = {"kappa": kappa, "rule": rule, "gap": float(f"{gap:.3g}"), "paper": paper, "ratio": round(gap / paper, 3)}
    say(row)
    return row


def _averages(kappa: int, momentum: float, keep: list[str]) -> dict[int, float]:
    """The EMA by samples, of one base step each."""
    spec = JobSpec.model_validate(
        {
            "name": f"parabola {kappa}",
            "recipe": {"name": "parabola", "config": {"b": 0.0}},
            "optimizer": {"name": "sgd", "lr": RATE},
            "schedule": {"budget": f"{STEPS} samples"},
            "ema": {"momentum": momentum, "order": "before"},
            "batch": {"base": 1, "per_worker": kappa},
            "evaluation": {"every": f"{EVERY} samples"},
            "scaling": {"keep": keep},
        }
    )
    run = train(spec, [Part(0, kappa, 1)])
    return {samples: scores["theta"] for samples, scores in run.evaluations.items()}


if __name__ == "__main__":
    typer.run(main)
