"""Trains under torchrun, as one would write it: a checkpoint every so many steps, and on from the newest at a start.

`-m tests.benchmarks.peers.restarted HIDDEN DEPTH FOLDER`. Imports torch alone, and makes up its data, so that a restart
is not slower than it must be. It tells the benchmark of its steps, and whose worker it is, by files in the folder.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from tests.benchmarks.peers.steps import Log

BATCH = 8
EVERY = 20
"""Steps from one checkpoint to the next."""
TIMEOUT_S, WRITTEN_PER_S = 10, 2_000_000
"""Of a collective: as the stall timeout of our own job, and a second more for so many parameters: others wait in it
while the first one writes a checkpoint."""


def network(hidden: int, depth: int) -> nn.Sequential:
    """As workers/recipes/classify.py builds it."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, hidden), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(hidden, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, 10))


class Training:
    """What is trained, and where it is stored."""

    def __init__(self, hidden: int, depth: int, folder: Path) -> None:
        self.model = network(hidden, depth)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.parts = {"model": self.model, "ema": self.ema, "optimizer": self.optimizer}
        self.steps = 0
        self._file = folder / "checkpoint.pt"

    def save(self) -> None:
        """Whole or not at all."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save(state | {"steps": self.steps}, self._file.with_suffix(".new"))
        self._file.with_suffix(".new").rename(self._file)

    def restore(self) -> None:
        """The newest checkpoint, if there is one."""
        if self._file.exists():
            state = torch.load(self._file, mmap=True, weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.steps = state["steps"]

    def step(self, ddp: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Returns once the optimizer and the EMA have moved."""
        images, labels = data
        functional.cross_entropy(ddp(images), labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average()
        self.steps += 1

    def average(self) -> None:
        """Move the EMA."""
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 0.01)


def main() -> None:
    """Train until somebody ends it."""
    hidden, depth, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    (folder / f"worker-{os.getpid()}").write_text(str(os.getppid()))
    training = Training(hidden, depth, folder)
    training.restore()
    size = sum(parameter.numel() for parameter in training.model.parameters())
    dist.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT_S + size // WRITTEN_PER_S))
    ddp = DistributedDataParallel(training.model, gradient_as_bucket_view=True)
    data = torch.randn(BATCH, 1, 8, 8), torch.randint(10, (BATCH,))
    lead = dist.get_rank() == 0
    log = Log(folder, dist.get_world_size()) if lead else None
    while True:
        began = time.monotonic()
        training.step(ddp, data)
        if log:
            log.add(training.steps, began, time.monotonic())
        if lead and training.steps % EVERY == 0:
            training.save()


if __name__ == "__main__":
    main()
