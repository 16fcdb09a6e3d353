"""A checkpoint knows no world size: whoever is there takes it up, and the end is as if nothing had happened."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.company import BATCH, Theatre, perform, plane
from tests.workers.stage import allocation
from workers import checkpoint
from workers.checkpoint import Snapshot
from workers.storage import Storage
from workers.trainer import Trainer

STEPS, FALL = 200, 100
"""All steps, and that after which nobody of the first workers lives."""
JOB = plane(
    schedule={"budget": f"{STEPS} base_steps"},
    ema={"momentum": 0.999},  # which forgets nothing until the end
    checkpoint={"every": f"{10 * BATCH} samples"},
)


def ended_with(folder: Path) -> Snapshot:
    """The last checkpoint, after the last step."""
    found = checkpoint.load_latest(Storage(str(folder / "storage")), lambda *why: pytest.fail(f"{why}"))
    assert found is not None
    assert found[1].meta["samples"] == STEPS * BATCH
    return found[1]


def fall_together(folder: Path) -> None:
    """In a worker's process: stop after that step, and die when it is time."""
    step = Trainer.step

    def mortal(self: Trainer, *args: Any) -> bool:
        ended = step(self, *args)
        while self.replica.samples >= FALL * BATCH:
            if (folder / "now").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.001)
        return ended

    Trainer.step = mortal  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """What one worker ends with."""
    folder = tmp_path_factory.mktemp("undisturbed")

    async def script(theatre: Theatre) -> None:
        await theatre.until(lambda: theatre.told("finished"))

    perform(script, folder, JOB)
    return ended_with(folder)


def saved(theatre: Theatre) -> int:
    """Samples of the last checkpoint that was told of."""
    told = theatre.told("checkpoint_saved")
    return told[-1]["samples"] if told else 0


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (2, 4), (4, 2)])
def test_it_is_taken_up_at_any_world_size(before: int, after: int, undisturbed: Snapshot, tmp_path: Path) -> None:
    """By workers that were never there before."""

    async def script(theatre: Theatre) -> None:
        for number in range(before):
            theatre.crew.prepared[f"w{number}"] = partial(fall_together, tmp_path)
        theatre.allocation = allocation(before)
        told = (FALL - (before > 1)) * BATCH  # that all took the last step is known with the next alone
        await theatre.until(lambda: saved(theatre) and theatre.report and theatre.report.samples == told)
        theatre.allocation = allocation(after)
        (tmp_path / "now").touch()
        await theatre.until(lambda: theatre.told("finished"))

    theatre = perform(script, tmp_path, JOB)
    rows = [row for row in theatre.told("resized") if row["samples"] >= theatre.told("rollback")[0]["to_samples"] > 0]
    assert rows[0]["workers"][0] == before
    assert rows[0]["workers"][1] in range(min(2, after), after + 1), "some may begin before all are warm"
    assert rows[-1]["workers"][1] == after
    ended = ended_with(tmp_path)
    assert ended.tensors.keys() == {"model", "ema", "optimizer"}
    for group, named in ended.tensors.items():
        for name, tensor in named.items():
            torch.testing.assert_close(tensor, undisturbed.tensors[group][name], rtol=1e-4, atol=1e-6)
