"""torchft for the resize benchmark: three replicas and a lighthouse; a replica that is gone is replaced at once.

torchft does not stand still between two steps: what an event costs is by how much it makes a step longer.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from service.processes import wait_until
from tests.benchmarks import MODELS
from tests.benchmarks.peers.change import Change
from tests.benchmarks.peers.steps import Step, steps

HELP = (
    "A Python that has torchft: in a virtual environment of its own that sees this one's packages, "
    "`pip install torchft-nightly`. Without it torchft is left out."
)
PATIENCE_S = 180.0
REST = 10
"""Steps between two events; so many after a change still belong to it."""
OPTIONS = ("--min_replicas=2", "--join_timeout_ms=10000", "--heartbeat_timeout_ms=500", "--quorum_tick_ms=20")

python = ""
"""The one that is used."""


@contextmanager
def replicas(model: str) -> Iterator[Replicas]:
    """Three, and their lighthouse."""
    with tempfile.TemporaryDirectory(prefix="torchft-") as folder:
        running = Replicas(model, Path(folder))
        try:
            yield running
        finally:
            running.close()


class Replicas:
    """See `peers.change.Peer`."""

    def __init__(self, model: str, folder: Path) -> None:
        self._model = MODELS[model]
        self._folder = folder
        self._log = folder / "log"
        port = 29600 + os.getpid() % 1000
        self._address = f"http://127.0.0.1:{port}"
        lighthouse = Path(python).with_name("torchft_lighthouse")
        self._lighthouse = self._run(str(lighthouse), *OPTIONS, f"--bind=127.0.0.1:{port}")
        self._replicas = [self._replica() for _ in range(3)]

    def settle(self) -> None:
        self._until(lambda found: _in_a_row(found, 3), after=0.0)

    def shrink(self) -> Change:
        asked_at = time.monotonic()
        self._replicas.pop().terminate()
        return self._longest(asked_at, 2)

    def grow(self) -> Change:
        asked_at = time.monotonic()
        self._replicas.append(self._replica())
        return self._longest(asked_at, 3)

    def kill(self) -> Change:
        return self._struck(signal.SIGKILL)

    def freeze(self) -> Change:
        return self._struck(signal.SIGSTOP)

    def close(self) -> None:
        """End them all."""
        for process in (*self._replicas, self._lighthouse):
            process.kill()
            process.wait()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _replica(self) -> subprocess.Popen[bytes]:
        where = [str(self._folder), self._address]
        return self._run(python, "-m", "tests.benchmarks.peers.quorum", *map(str, self._model), *where)

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with self._log.open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def _longest(self, at: float, workers: int) -> Change:
        """How much longer than usual the longest way from one commit to the next took, until so many trained on."""
        usual = self._usual(at)
        found = self._until(lambda found: _in_a_row(found, workers), after=at)
        ends = [at, *(step.ended for step in found if step.committed)]
        gaps = [end - start for start, end in pairwise(ends)]
        longest = gaps.index(max(gaps))
        return Change(max(0.0, gaps[longest] - usual), ends[longest] - at, 0)

    def _struck(self, number: signal.Signals) -> Change:
        """Until the others train on without it; then another comes in its place."""
        struck, said = self._replicas.pop(), self._log.stat().st_size
        struck_at, struck_on = time.monotonic(), time.time()
        usual = self._usual(struck_at)
        struck.send_signal(number)
        found = self._until(lambda found: any(_committed_by(step, 2) for step in found), after=struck_at)
        ended = next(step.ended for step in found if _committed_by(step, 2))
        decided_on = self._decided_on(said)
        struck.kill()
        struck.wait()
        self.grow()
        return Change(max(0.0, ended - struck_at - usual), decided_on - struck_on, 0)

    def _usual(self, at: float) -> float:
        """From one commit to the next, before that moment."""
        ends = [step.ended for step in self._steps(0.0) if step.committed and step.ended < at][-REST:]
        return statistics.median(end - start for start, end in pairwise(ends))

    def _until(self, reached: Callable[[list[Step]], bool], *, after: float) -> list[Step]:
        """The attempts after a moment, once it is so."""
        found: list[Step] = []

        def look() -> bool:
            found[:] = self._steps(after)
            return reached(found)

        assert wait_until(look, PATIENCE_S), self._log.read_text()[-10000:]
        return found

    def _decided_on(self, said: int) -> float:
        """When the oldest replica goes on with another quorum, by what was said beyond so many bytes; since 1970."""
        telling = rf"^(\S+) {self._replicas[0].pid} .* reconfiguring for quorum"
        decided = re.search(telling, self._log.read_text()[said:], re.MULTILINE)
        assert decided is not None, "a manager says so"
        return float(decided[1])

    def _steps(self, after: float) -> list[Step]:
        """Of the oldest replica."""
        return steps(self._folder / f"replica-{self._replicas[0].pid}", after)


def _in_a_row(found: list[Step], workers: int) -> bool:
    """Whether the last so many steps were done by so many."""
    return len(found) >= REST and all(_committed_by(step, workers) for step in found[-REST:])


def _committed_by(step: Step, workers: int) -> bool:
    return step.workers == workers and step.committed == 1
