"""Trains under torchft, as its documentation has it: a manager a replica, which agrees on a quorum in every step.

`-m tests.benchmarks.peers.quorum HIDDEN DEPTH FOLDER LIGHTHOUSE`, with a Python that has torchft. Ends after a step
when told to (SIGTERM). Its steps are in `folder/replica-PID`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torchft
from torch.nn import functional

from tests.benchmarks.peers.restarted import BATCH, Training
from tests.benchmarks.peers.steps import Step

TIMEOUT = timedelta(seconds=10)


class _Parts:
    """What a replica that joins, or missed a step, gets from another."""

    def __init__(self, training: Training) -> None:
        self._training = training

    def state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._training.parts.items()}

    def load(self, state: dict[str, Any]) -> None:
        for name, part in self._training.parts.items():
            part.load_state_dict(state[name])


def main() -> None:
    """Train until told to end."""
    hidden, depth, folder, lighthouse = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(created)f %(process)d %(message)s")  # when a quorum changes
    training = Training(hidden, depth, folder)
    manager = _manager(training, lighthouse)
    ddp = torchft.DistributedDataParallel(manager, training.model)
    optimizer = torchft.Optimizer(manager, training.optimizer)
    images, labels = torch.randn(BATCH, 1, 8, 8), torch.randint(10, (BATCH,))
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    with (folder / f"replica-{os.getpid()}").open("wb", buffering=0) as log:
        while not told:
            began, before = time.monotonic(), manager.current_step()
            optimizer.zero_grad()
            functional.cross_entropy(ddp(images), labels).backward()
            optimizer.step()
            committed = manager.current_step() > before
            if committed:
                training.average()
            ended, workers = time.monotonic(), manager.num_participants()
            log.write(Step(workers, manager.current_step(), began, ended, committed).packed())
    manager.shutdown(wait=False)
    os._exit(0)


def _manager(training: Training, lighthouse: str) -> torchft.Manager:
    store, parts = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False), _Parts(training)
    return torchft.Manager(
        pg=torchft.ProcessGroupGloo(timeout=TIMEOUT),
        load_state_dict=parts.load,
        state_dict=parts.state,
        min_replica_size=1,
        timeout=TIMEOUT,
        rank=0,
        world_size=1,
        store_addr="127.0.0.1",
        store_port=store.port,
        lighthouse_addr=lighthouse,
        hostname="127.0.0.1",
    )


if __name__ == "__main__":
    main()
