"""The service as a process of the demo's own, on the loopback and a free port."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SLOTS = 4
START_PATIENCE_S = 120
STOP_PATIENCE_S = 60
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ROOT = Path(__file__).parents[2]


class NotServed(Exception):
    """The service did not come up."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a service that keeps its data in the folder; it ends with the block. Raises NotServed."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "service.log"
    process = None
    try:
        with deferred_interrupts():
            process = _start(folder, log)
        yield _address(process, log)
    finally:
        if process is not None:
            with deferred_interrupts():
                _stop(process)


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Let the block come to its end; a signal that asks to stop is a KeyboardInterrupt after it."""
    asked: list[int] = []
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


def _start(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--port", "0", "--data", folder, "--slots", str(SLOTS)],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for the demo, which ends the service in order
        )


def _environment() -> dict[str, str]:
    """Without settings that are meant for another service."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("EMASCALE_")}
    return others | {"PYTHONPATH": str(ROOT)}


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """What the service prints once it answers and its cluster is there."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_PATIENCE_S)
    found = re.search(rb"http://\S+", process.stdout.readline()) if ready else None
    if found is None:
        said = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
        raise NotServed(f"The service did not start; the end of {log}:\n{said}")
    return found[0].decode()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the service, which ends all that it started."""
    assert process.stdout is not None
    process.stdout.close()
    process.terminate()
    try:
        process.wait(STOP_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
