"""What a sample looks like in an epoch depends on nothing else: not on who loads it, nor on what happened before.

Real workers train through resizes and deaths. Each writes down what it was given, in which generation; of that, what
the events say was committed is compared with what one worker alone sees.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils.data import Dataset

from api_schemas.jobs import JobSpec
from tests.workers.company import Theatre, perform, plane
from tests.workers.stage import allocation
from workers.recipes import StepContext
from workers.trainer import Trainer

SIZE = 50
"""Samples of an epoch; no batch divides it."""

Look = tuple[int, int]
"""A sample's index and what augmentation made of it."""

SIZES = [3, 2, 3, 1, 3, 2]
"""What the workers become in `eventful`."""
_generation = [0]


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> int:
        return index


class Diary:
    """Fit nothing in particular, and write down what it is trained on."""

    class Config(BaseModel):
        folder: Path
        step_s: float = 0.0

    def __init__(self, config: Config, seed: int) -> None:
        self._config = config
        self._seed = seed

    def model(self) -> nn.Module:
        torch.manual_seed(self._seed)
        return nn.Linear(1, 1)

    def train_data(self) -> Numbers:
        return Numbers()

    def augment(self, index: int, generator: torch.Generator) -> Look:
        return index, int(torch.randint(2**53, (1,), generator=generator))

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:
        indices, made = batch
        if getattr(model, "module", model).training:  # else it has no samples, and joins with one that does not count
            looks = list(zip(indices.tolist(), made.tolist(), strict=True))
            with (self._config.folder / f"{os.getpid()}.jsonl").open("a") as file:
                print(json.dumps([_generation[0], step.samples, looks]), file=file)
        time.sleep(self._config.step_s)
        return nn.functional.mse_loss(model(indices[:, None] / SIZE), made[:, None] / 2.0**53)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"loss": float(next(model.parameters()).detach().sum())}


def heed_generations() -> None:
    """In a worker's process: remember in which generation it is."""
    enter = Trainer.enter

    def entered(self: Trainer, group: Any, plan: Any) -> None:
        _generation[0] = plan.generation
        enter(self, group, plan)

    Trainer.enter = entered  # type: ignore[method-assign]


def job(folder: Path, mode: str, step_s: float) -> JobSpec:
    folder.mkdir(parents=True)
    return plane(
        recipe={"name": f"{__name__}:Diary", "config": {"folder": str(folder), "step_s": step_s}},
        batch={"base": 12, "per_worker": 12} if mode == "scale" else {"base": 12, "per_worker": 5},
        elasticity={"mode": mode, "workers": (1, 8), "kappa": (0.5, 8.0)},
        checkpoint={"every": f"{10 * SIZE} samples"},
    )


def written(folder: Path) -> list[tuple[int, int, list[Look]]]:
    """Generation, samples before the step, and what was seen in it, by any worker."""
    lines = [line for place in folder.iterdir() for line in place.read_text().splitlines(keepends=True)]
    rows = [json.loads(line) for line in lines if line.endswith("\n")]  # else it died while it wrote
    return [(generation, start, [(index, made) for index, made in looks]) for generation, start, looks in rows]


def surviving(events: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """Start, stop and generation of what was committed and not rolled back."""
    line: list[tuple[int, int, int]] = []
    for event in events:
        if event["type"] == "rollback":
            end = event["to_samples"]
            line = [(start, min(stop, end), generation) for start, stop, generation in line if start < end]
        elif event["type"] == "committed":
            line.append((event["start"], event["stop"], event["generation"]))
    return line


def alone(folder: Path, samples: int) -> list[Look]:
    """What one worker sees, in order."""

    async def script(theatre: Theatre) -> None:
        theatre.crew.prepared["w0"] = heed_generations
        await theatre.until(lambda: theatre.report and theatre.report.samples >= samples)

    perform(script, folder, job(folder / "seen", "hold", 0.0))
    rows = sorted(written(folder / "seen"), key=lambda row: row[1])  # stable: micro-batches stay in their order
    return [look for _, _, looks in rows for look in looks][:samples]


def would_be_lost(theatre: Theatre) -> int:
    """How many samples; none where no checkpoint was told of yet."""
    saved = theatre.told("checkpoint_saved")
    return theatre.report.samples - saved[-1]["samples"] if saved and theatre.report else 0


async def eventful(theatre: Theatre) -> None:
    """Three resizes, a death, and the death of all, after which others take it up at another size."""
    for number in range(12):
        theatre.crew.prepared[f"w{number}"] = heed_generations
    theatre.allocation = allocation(2)
    await theatre.trains("w0", "w1")
    theatre.allocation = allocation(3)
    await theatre.trains("w0", "w1", "w2")
    theatre.crew.strike("w1")
    await theatre.trains("w0", "w2", "w3")
    theatre.allocation = allocation(1)
    await theatre.trains("w0", samples=3 * SIZE)
    theatre.allocation = allocation(3)
    await theatre.trains("w0", "w4", "w5")
    await theatre.until(lambda: SIZE < would_be_lost(theatre) < 4 * SIZE)  # and no other checkpoint is near
    theatre.allocation = allocation(2)
    for worker in ("w0", "w4", "w5"):
        theatre.crew.strike(worker)
    await theatre.until(lambda: theatre.told("rollback"))
    await theatre.until(lambda: len(theatre.training()) == 2)
    await theatre.trains(*theatre.training(), samples=3 * SIZE)


@pytest.mark.parametrize("mode", ["hold", "scale"])
def test_every_sample_of_an_epoch_looks_as_it_does_to_one_worker(mode: str, tmp_path: Path) -> None:
    theatre = perform(eventful, tmp_path, job(tmp_path / "seen", mode, 0.005))
    line, seen = surviving(theatre.events), written(tmp_path / "seen")
    assert [event["workers"][1] for event in theatre.told("resized")] == SIZES
    assert theatre.told("resized")[-1]["samples_lost"] >= SIZE
    reached = line[-1][1]
    expected = alone(tmp_path / "alone", reached)
    assert [start for start, _, _ in line] == [0, *(stop for _, stop, _ in line[:-1])]
    for start, stop, generation in line:
        rows = [looks for term, at, looks in seen if term == generation and start <= at < stop]
        looks = [look for looks in rows for look in looks]
        assert sorted(looks) == sorted(expected[start:stop]), (start, stop, generation)
    epochs = [expected[start : start + SIZE] for start in range(0, reached - SIZE + 1, SIZE)]
    assert len(epochs) > 5
    assert all(sorted(index for index, _ in epoch) == list(range(SIZE)) for epoch in epochs)
    assert len({look for epoch in epochs for look in epoch}) == len(epochs) * SIZE, "another look in every epoch"
