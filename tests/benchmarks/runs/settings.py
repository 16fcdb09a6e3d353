"""What the fidelity benchmark trains, how its batch changes, and which parts of the rules it leaves out. Data, no code.

Lengths are in base steps, so that every schedule ends each of its parts on a whole step, and checkpoints of all runs
fall on the same samples: 48 is divisible by 16, 8 and 6.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from api_schemas.jobs import JobSpec

STEPS, EVERY = 1440, 48
"""Base steps of a run, and between two looks at its EMA weights."""


class Part(NamedTuple):
    """From that base step on so many workers train at this kappa."""

    start: int
    kappa: float
    workers: int


def _fifths(*kappas: float) -> list[Part]:
    return [Part(STEPS // 5 * i, kappa, 1 + i % 2) for i, kappa in enumerate(kappas)]


BASE = [Part(0, 1, 1)]
SCHEDULES: dict[str, list[Part]] = {
    "k2": [Part(0, 2, 2)],
    "k4": [Part(0, 4, 2)],
    "k8": [Part(0, 8, 2)],
    "k16": [Part(0, 16, 2)],
    "switch": _fifths(1, 4, 2, 8, 1),
    "progressive": [Part(0, 1, 1), Part(STEPS // 3, 6, 2)],
}

RESIZED = {"base": BASE, **SCHEDULES}
"""With that of the base run."""

METHODS: dict[str, dict[str, Any]] = {
    "none": {"second_moment": "measured", "keep": ["lr", "optimizer", "state", "ema", "batchnorm"]},
    "lr_only": {"rule": "published", "keep": ["optimizer", "state", "ema", "batchnorm"]},
    "all_but_ema": {"second_moment": "measured", "keep": ["ema"]},
    "hyper_only": {"second_moment": "measured", "keep": ["state"]},
    "published": {"rule": "published"},
    "matched": {"second_moment": "measured"},
    "matched_per_worker": {"second_moment": "per_worker"},
}
"""`scaling` of the job, by method."""

_SGD = {"name": "sgd", "lr": 4e-3, "momentum": 0.9}
_ADAMW = {"name": "adamw", "lr": 5e-4}
_CLASSIFY = {"name": "classify", "config": {"model": "mlp", "hidden": 32, "depth": 2}}

_BYOL = {"name": "byol", "config": {"hidden": 32, "depth": 1, "head_hidden": 64, "projection": 16, "probed": 1000}}
_SLOW = {"momentum": 0.996}  # where BYOL starts, arXiv 2006.07733
_PSEUDO_LABEL = {"name": "pseudo_label", "config": {"hidden": 32, "labelled": 10}}
_LANGUAGE = {"name": "language", "config": {"size": 400_000, "context": 16, "width": 32, "depth": 1, "heads": 2}}

SETTINGS: dict[str, dict[str, Any]] = {
    "classify-sgd": {"recipe": _CLASSIFY, "optimizer": _SGD},
    "classify-adamw": {"recipe": _CLASSIFY, "optimizer": _ADAMW},
    "byol-sgd": {"recipe": _BYOL, "optimizer": {**_SGD, "lr": 2e-3}, "ema": _SLOW},
    "byol-adamw": {"recipe": _BYOL, "optimizer": {**_ADAMW, "lr": 2e-4}, "ema": _SLOW},
    "pseudo_label-adamw": {"recipe": _PSEUDO_LABEL, "optimizer": _ADAMW},
    "language-adamw": {"recipe": _LANGUAGE, "optimizer": _ADAMW},
}
"""What differs between the jobs, by setting."""

BATCH = 16
RHO = 0.99


def job(setting: str, method: str, *, seed: int, data_seed: int) -> JobSpec:
    """A run's job; its size is the schedule's to say."""
    made = {
        "name": f"{setting} {method}",
        "schedule": {"budget": f"{STEPS} base_steps"},
        "ema": {"momentum": RHO},
        "batch": {"base": BATCH, "per_worker": BATCH // 2},  # so that kappa = 1 has two shards, on one worker too
        "elasticity": {"workers": [1, 2]},
        "checkpoint": {"every": f"{EVERY} base_steps", "keep": 1000},
        "scaling": METHODS[method],
        "seed": seed,
        "data_seed": data_seed,
    }
    return JobSpec.model_validate(made | SETTINGS[setting])
