"""torchrun for the resize benchmark: an agent for each of three nodes, which restarts its worker when anything changes.

What can be set is set in its favour: it looks every 0.1 s, and misses an agent after 3 s; a node that leaves is told to
(SIGTERM), and nobody is waited for longer than 1 s beyond the two that are needed.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from service.processes import Process, wait_until
from tests.benchmarks import MODELS
from tests.benchmarks.peers import restarted
from tests.benchmarks.peers.change import Change
from tests.benchmarks.peers.steps import Run, runs

PATIENCE_S = 180.0
OPTIONS = ("--nnodes=2:3", "--nproc-per-node=1", "--rdzv-backend=c10d", "--monitor-interval=0.1", "--max-restarts=1000")
DECIDED = re.compile(r"^I(\d{4} \d\d:\d\d:\d\d\.\d+) .* will restart worker group", re.MULTILINE)
CONFIG = "last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3"


@contextmanager
def torchrun(model: str) -> Iterator[Torchrun]:
    """Three agents and their workers."""
    with tempfile.TemporaryDirectory(prefix="torchrun-") as folder:
        running = Torchrun(model, Path(folder))
        try:
            yield running
        finally:
            running.close()


class Torchrun:
    """See `peers.change.Peer`."""

    def __init__(self, model: str, folder: Path) -> None:
        self._model = MODELS[model]
        self._folder = folder
        self._log = folder / "log"
        self._port = 29400 + os.getpid() % 1000
        self._random = random.Random(0)
        self._changed_at = 0.0  # by the last event
        self._agents: list[subprocess.Popen[bytes]] = []
        self._start()
        assert wait_until(self._is_met, PATIENCE_S), "the first agent, which never leaves, holds the store of all"
        while len(self._agents) < 3:
            self._start()

    def settle(self) -> None:
        """Three train, and the next event comes at any step between two checkpoints."""
        self._settle(3)

    def shrink(self) -> Change:
        self._changed_at = time.monotonic()
        agent = self._agents.pop()
        agent.terminate()
        change = self._asked(2)
        agent.wait()
        return change

    def grow(self) -> Change:
        self._changed_at = time.monotonic()
        self._start()
        return self._asked(3)

    def kill(self) -> Change:
        return self._struck(signal.SIGKILL)

    def freeze(self) -> Change:
        return self._struck(signal.SIGSTOP)

    def close(self) -> None:
        """End all agents, and workers that lost theirs."""
        for agent in self._agents:
            agent.kill()
            agent.wait()
        for worker in self._workers():
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", *OPTIONS, f"--rdzv-conf={CONFIG}"]
        command += [f"--rdzv-endpoint=127.0.0.1:{self._port}", "--rdzv-id=peer", "--local-addr=127.0.0.1"]
        command += ["-m", restarted.__name__, *map(str, self._model), str(self._folder)]
        # A node that comes later cannot reach the first one's store otherwise.
        environment = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
        environment |= {"LOGLEVEL": "INFO"}  # so that the agents tell when they decide
        with self._log.open("ab") as log:
            self._agents.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def _is_met(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _asked(self, workers: int) -> Change:
        first = self._until(lambda run: run.world == workers and run.began > self._changed_at)
        before = self._before(first)
        self._settle(workers)
        return Change(first.began - before.ended, before.ended - self._changed_at, _lost(before, first))

    def _struck(self, number: signal.Signals) -> Change:
        """Whoever trains again first ends the pause; in the end three do."""
        said, self._changed_at, struck_on = self._log.stat().st_size, time.monotonic(), time.time()
        os.kill(self._worker_of(self._agents[-1].pid), number)
        first = self._until(lambda run: run.began > self._changed_at)
        before = self._before(first)
        self._settle(3)
        return Change(first.began - self._changed_at, self._decided_on(said) - struck_on, _lost(before, first))

    def _settle(self, workers: int) -> None:
        steps = self._random.randint(restarted.EVERY, 2 * restarted.EVERY)
        self._until(lambda run: run.world == workers and run.began > self._changed_at and run.last - run.first >= steps)

    def _until(self, wanted: Callable[[Run], bool]) -> Run:
        """The first such run of steps, once there is one."""
        found: list[Run] = []

        def look() -> bool:
            found[:] = sorted(filter(wanted, runs(self._folder)), key=lambda run: run.began)
            return bool(found)

        assert wait_until(look, PATIENCE_S), self._log.read_text()[-10000:]
        return found[0]

    def _decided_on(self, said: int) -> float:
        """When the first agent restarts its worker, by what they have said beyond so many bytes; seconds since 1970."""
        decided = DECIDED.search(self._log.read_text()[said:])
        assert decided is not None, "an agent says so at this level"
        return datetime.strptime(f"{datetime.now().year}{decided[1]}", "%Y%m%d %H:%M:%S.%f").timestamp()

    def _before(self, run: Run) -> Run:
        """Who trained last before."""
        return max((each for each in runs(self._folder) if each.began < run.began), key=lambda each: each.ended)

    def _workers(self) -> dict[int, int]:
        """Living workers and their agents."""
        said = {int(path.name.partition("-")[2]): int(path.read_text() or 0) for path in self._folder.glob("worker-*")}
        return {worker: agent for worker, agent in said.items() if Process.of(worker)}

    def _worker_of(self, agent: int) -> int:
        (worker,) = [worker for worker, its in self._workers().items() if its == agent]
        return worker


def _lost(before: Run, after: Run) -> int:
    return int(before.last - after.first) + 1
