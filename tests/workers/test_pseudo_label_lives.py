"""When pseudo-labels begin to count, real workers agree on it, through resizes and deaths."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api_schemas.jobs import JobSpec
from tests.workers.company import BATCH, Theatre, perform, plane
from tests.workers.stage import allocation
from workers.recipes.semi_supervised import Pupil
from workers.trainer import Trainer


def note_beginnings(folder: Path) -> None:
    """In a worker's process: write down after each step which beginning its teacher knows of."""
    step = Trainer.step

    def stepped(self: Trainer, *args: Any) -> bool:
        ended = step(self, *args)
        assert self.replica.ema is not None
        teacher = self.replica.ema.module
        assert isinstance(teacher, Pupil)
        with (folder / f"{os.getpid()}.jsonl").open("a") as file:
            print(json.dumps([self.replica.samples, float(teacher.begun)]), file=file)
        return ended

    Trainer.step = stepped  # type: ignore[method-assign, assignment]


def beginnings(folder: Path) -> dict[int, set[float]]:
    """Samples -> what workers noted there."""
    found: dict[int, set[float]] = {}
    for place in folder.iterdir():
        for line in place.read_text().splitlines(keepends=True):
            if line.endswith("\n"):  # else it died while it wrote
                samples, begun = json.loads(line)
                found.setdefault(samples, set()).add(begun)
    return dict(sorted(found.items()))


def job(model: str) -> JobSpec:
    config = {"model": model, "hidden": 8, "depth": 1, "start_accuracy": 0.7, "threshold": 0.5, "ramp": "0 samples"}
    return plane(recipe={"name": "pseudo_label", "config": config}, optimizer={"name": "adamw", "lr": 1e-2})


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_all_workers_begin_at_the_same_sample_and_whoever_joins_knows(model: str, tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    noted.mkdir()

    async def script(theatre: Theatre) -> None:
        for number in range(6):
            theatre.crew.prepared[f"w{number}"] = partial(note_beginnings, noted)
        theatre.allocation = allocation(2)
        await theatre.trains("w0", "w1")
        await theatre.until(lambda: any(min(begun) >= 0 for begun in beginnings(noted).values()))
        theatre.allocation = allocation(3)
        await theatre.trains("w0", "w1", "w2")
        theatre.crew.strike("w0")
        await theatre.trains("w1", "w2", "w3")

    theatre = perform(script, tmp_path, job(model))
    found = beginnings(noted)
    assert all(len(begun) == 1 for begun in found.values())
    values = [begun.pop() for begun in found.values()]
    (never, began) = sorted(set(values))
    assert never < 0
    assert values.index(began) * BATCH == began, "noted in the step that begins there"
    if model == "mlp":  # BatchNorm's statistics are each worker's own between two averagings
        theatre.check_replicas()
