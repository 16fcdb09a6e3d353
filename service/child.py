"""A child process of the service that is to run all the time."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0  # one that lived so long starts again without delay
STOP_PATIENCE_S = 5.0
LOOK_S = 0.02


class Child:
    """`python -m service <arguments>`, started again when it ends."""

    def __init__(self, name: str, arguments: list[str], pid_file: Path, fds: tuple[int, ...] = ()) -> None:
        self.name = name
        self._arguments = arguments
        self._pid_file = pid_file
        self._fds = fds
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._delay = FIRST_DELAY_S
        self._kill_at = 0.0  # by the monotonic clock, while it is being stopped

    def keep(self, environment: Mapping[str, str], now: float) -> None:
        """Start it if it does not run and is not being held back; `now` by the monotonic clock."""
        if self._process is None:
            self._start(environment, now)
        elif (code := self._process.poll()) is not None:
            steady = now - self._began > STEADY_S
            self._delay = FIRST_DELAY_S if steady else self._delay
            if steady or now - self._began > self._delay:
                what = {"action": "child_restarted", "child": self.name, "exit_code": code}
                logger.warning("the %s ended and is started again", self.name, extra=what)
                self._delay = min(2 * self._delay, LONGEST_DELAY_S)
                self._start(environment, now)

    def stop(self, grace_s: float = 0.0) -> int | None:
        """End it, with force if it takes too long: what it has to do yet may take so long. Returns its exit code; None:
        it did not run.
        """
        if self._process is None:
            return None
        process = self._process
        self._end(grace_s)
        while process.poll() is None and time.monotonic() < self._kill_at:
            time.sleep(LOOK_S)
        self.kill()
        return process.returncode

    def hurry(self) -> None:
        """While `stop` waits: let it do nothing more."""
        self._end(0.0)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._pid_file.unlink(missing_ok=True)

    def _end(self, grace_s: float) -> None:
        if self._process is not None:
            self._process.terminate()
            self._kill_at = time.monotonic() + grace_s + STOP_PATIENCE_S

    def _start(self, environment: Mapping[str, str], now: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service", *self._arguments, f"--parent={os.getpid()}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=self._fds,
            start_new_session=True,  # Ctrl-C is for the supervisor, which ends the children in order
        )
        self._began = now
        self._pid_file.write_text(f"{self._process.pid}\n")
