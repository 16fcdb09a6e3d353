"""`python -m service serve`: what dies is replaced, what must survive does, and a stop leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.head import EmbeddedRay, HeadRecord
from service.processes import Process, members, wait_until

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
NAMES = ("supervisor", "api", "reconciler")


class Serving:
    """A `serve` and what it says."""

    def __init__(self, data_folder: Path, *options: str) -> None:
        self.data_folder = data_folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--port=0", "--slots=1", f"--data={data_folder}", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self.complained: list[str] = []
        self._readers = [
            threading.Thread(target=lambda: self.said.extend(self.process.stdout or ()), daemon=True),
            threading.Thread(target=lambda: self.complained.extend(self.process.stderr or ()), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def ready(self) -> str:
        """The address, once it is told."""
        done = wait_until(lambda: bool(self.said) or self.process.poll() is not None, PATIENCE_S)
        assert done, "not ready in time"
        assert self.said, "".join(self.complained)
        found = re.search(r"http://127\.0\.0\.1:\d+", self.said[0])
        assert found is not None
        return found[0]

    def pid(self, name: str) -> int | None:
        file = self.data_folder / "run" / f"{name}.pid"
        return int(file.read_text() or 0) if file.exists() else None

    def record(self) -> HeadRecord:
        record = EmbeddedRay(self.data_folder, {}).record()
        assert record is not None
        return record

    def everything(self) -> set[Process]:
        """Every process of it that lives, Ray's included."""
        pids = {self.pid(name) for name in NAMES}
        pids |= {pid for node in self.record().nodes for pid in members(node.leader)}
        found = {Process.of(pid) for pid in pids if pid}
        return {process for process in found if process is not None}

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@contextmanager
def serving(data_folder: Path, *options: str) -> Iterator[Serving]:
    service = Serving(data_folder, *options)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.end(signal.SIGTERM)


@pytest.fixture
def data_folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    EmbeddedRay(tmp_path, {}).stop()  # where a test fails after a crash on purpose


def connected(url: str) -> bool:
    return bool(httpx.get(f"{url}/v1/cluster").json()["connected"])


def ended(processes: set[Process]) -> bool:
    return not any(process.alive() for process in processes)


def test_a_stop_leaves_no_process_and_no_file_of_a_running_one(data_folder: Path) -> None:
    with serving(data_folder) as service:
        assert connected(service.ready())
        running, sessions = service.everything(), service.record().folder
        assert len(running) > 6
        assert service.end(signal.SIGTERM) == 0
    assert ended(running)
    assert not sessions.exists()
    assert not list(data_folder.glob("run/*.pid"))
    assert EmbeddedRay(data_folder, {}).record() is None


def test_a_stop_while_it_starts_leaves_nothing_either(data_folder: Path) -> None:
    with serving(data_folder) as service:
        assert wait_until(lambda: EmbeddedRay(data_folder, {}).record() is not None, PATIENCE_S)
        running = service.everything()
        assert service.record().address == ""
        assert service.end(signal.SIGINT) == 0
    assert ended(running)
    assert not any(members(process) for process in running)
    assert service.said == []


def test_a_second_one_on_the_same_folder_is_refused(data_folder: Path) -> None:
    with serving(data_folder) as first:
        wait_until(lambda: bool(first.pid("supervisor")), PATIENCE_S)
        with serving(data_folder) as second:
            assert second.process.wait(PATIENCE_S) == 1
            assert second.end(signal.SIGTERM) == 1
            assert f"Another `serve` (process {first.process.pid})" in "".join(second.complained)
        assert connected(first.ready())


def test_a_storage_that_cannot_be_written_is_refused(data_folder: Path) -> None:
    (data_folder / "file").touch()
    with serving(data_folder, f"--storage={data_folder}/file/jobs") as service:
        assert service.process.wait(PATIENCE_S) == 1
        assert service.end(signal.SIGTERM) == 1
    (complaint,) = service.complained
    assert complaint.startswith(f"storage_url: The storage at {data_folder}/file/jobs does not answer")
    assert not list(data_folder.glob("run/*.pid"))


def test_after_a_crash_the_next_one_finds_the_cluster_again(data_folder: Path) -> None:
    with serving(data_folder) as first:
        first.ready()
        before = first.record()
        children = {Process.of(first.pid(name) or 0) for name in ("api", "reconciler")}
        first.end(signal.SIGKILL)
    assert wait_until(lambda: ended({child for child in children if child}), PATIENCE_S)
    assert all(process.alive() for process in before.nodes[0].core)
    with serving(data_folder) as second:
        assert connected(second.ready())
        assert second.record() == before


def test_whatever_dies_is_replaced(data_folder: Path) -> None:
    with serving(data_folder) as service:
        url = service.ready()
        for name in ("api", "reconciler"):
            pid = service.pid(name)
            assert pid
            os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda name=name, pid=pid: service.pid(name) not in (pid, None), PATIENCE_S)
            assert httpx.get(f"{url}/healthz", timeout=PATIENCE_S).status_code == 200
        address = service.record().address
        for process in service.record().nodes[0].core:
            os.kill(process.pid, signal.SIGKILL)
        assert wait_until(lambda: _address(service) not in ("", address), PATIENCE_S)
        seen = httpx.get(f"{url}/v1/cluster").json()["seen_at"]
        assert wait_until(
            lambda: httpx.get(f"{url}/v1/cluster").json()["seen_at"] > seen and connected(url), PATIENCE_S
        )


def _address(service: Serving) -> str:
    record = EmbeddedRay(service.data_folder, {}).record()
    return record.address if record else ""
