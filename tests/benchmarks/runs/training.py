"""A whole training through the engine: real ranks, their conductor, and real resizes at given samples."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from api_schemas.exchange import Allocation
from api_schemas.jobs import JobSpec
from tests.benchmarks.runs.settings import Part
from tests.workers.company import Theatre
from tests.workers.stage import allocation
from workers import checkpoint, recipes
from workers.member import Member
from workers.storage import Storage

NEVER = 10**15
"""Samples."""

PATIENCE_S = 3600.0
"""For each part of a run."""


class Trained(NamedTuple):
    """What a training came to."""

    path: dict[int, Tensor]  # samples -> all EMA weights in a row
    evaluations: dict[int, dict[str, float]]  # samples -> scores of the EMA
    resizes: list[dict[str, Any]]

    @property
    def scores(self) -> dict[str, float]:
        """At the end."""
        return self.evaluations[max(self.evaluations)]


class TrainingFailed(Exception):
    """The job ended otherwise; says how."""


def train(spec: JobSpec, parts: Sequence[Part]) -> Trained:
    """The job, from its first sample to its last. Raises TrainingFailed."""
    with tempfile.TemporaryDirectory(prefix="fidelity-") as folder:
        return asyncio.run(_train(spec, parts, Path(folder)))


async def _train(spec: JobSpec, parts: Sequence[Part], folder: Path) -> Trained:
    theatre = Theatre(folder, spec, watched=False)
    theatre.patience_s = PATIENCE_S
    starts = frozenset(part.start * spec.batch.base for part in parts[1:])
    theatre.crew.prepared = {
        f"w{number}": partial(hold, starts) for number in range(sum(part.workers for part in parts))
    }
    try:
        await theatre.crew.stand_by(max(part.workers for part in parts))
        theatre.allocation = _allocation(parts[0])
        await theatre.until(lambda: theatre.told("started"))
        for last, part in pairwise(parts):
            await _change(theatre, last, part, part.start * spec.batch.base)
        await theatre.until(lambda: theatre.told("finished"))
    finally:
        await theatre.end()
    (end,) = theatre.told("finished")
    if end["outcome"] != "succeeded":
        raise TrainingFailed(end["message"])
    evaluations = {event["samples"]: event["ema"] for event in theatre.told("evaluated")}
    return Trained(_path(spec, Storage(str(folder / "storage"))), evaluations, theatre.told("resized"))


async def _change(theatre: Theatre, last: Part, part: Part, samples: int) -> None:
    """From one part to the next at that sample: who joins is warm by then."""
    theatre.allocation = _allocation(last._replace(workers=part.workers), not_before=NEVER)
    await theatre.until(lambda: theatre.awake() >= part.workers)
    theatre.allocation = _allocation(part, not_before=samples)
    await theatre.until(lambda: any(event["samples"] >= samples for event in theatre.told("resized")))
    (change,) = [event for event in theatre.told("resized") if event["samples"] >= samples]
    if (change["samples"], change["workers"], change["kappa"][1]) != (
        samples,
        (last.workers, part.workers),
        part.kappa,
    ):
        raise TrainingFailed(f"At sample {samples} came another change: {change}")


def _allocation(part: Part, **changes: Any) -> Allocation:
    return allocation(part.workers, kappa=(part.kappa, part.kappa), **changes)


def hold(starts: frozenset[int]) -> None:
    """In a worker's process: it waits at these samples until the next size was announced. Small models train faster."""
    waits = Member._waits

    def held(self: Member, samples: int) -> bool:
        while samples in starts and not waits(self, samples):
            time.sleep(0.001)
        return waits(self, samples)

    Member._waits = held  # type: ignore[method-assign]


def _path(spec: JobSpec, storage: Storage) -> dict[int, Tensor]:
    """The EMA weights of each checkpoint; buffers are no weights."""
    kind = recipes.load(spec.recipe.name)
    model = kind(kind.Config.model_validate(spec.recipe.config), spec.seed).model()
    names = [name for name, _ in model.named_parameters()]
    found = {}
    for each in checkpoint.names(storage):
        ema = checkpoint.load(storage, each).tensors["ema"]
        found[checkpoint.samples_of(each)] = torch.cat([ema[name].double().flatten() for name in names])
    return found
