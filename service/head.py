"""The embedded cluster: a Ray head that this machine runs, and that outlives the service that started it.

`ray start` makes the head's processes in a process session of their own; the record in the data
folder says how to find them again. They are ended by that session, agents and workers included.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from service.processes import Process, boot_id, end_session, members

logger = logging.getLogger(__name__)

HEAD_IP = "127.0.0.100"
"""Not 127.0.0.1: Ray would put the machine's own address in its place, which may change under it."""
OBJECT_STORE_BYTES = 128 * 2**20
START_PATIENCE_S = 60
CLIENT_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "3",  # who cannot attach is told after 3 s instead of 20
}
"""For every process that attaches to a cluster, one of somebody else too; set before it imports ray."""
_CORE = ("gcs_server", "raylet")
_CONNECT_S = 1.0


class HeadFailed(Exception):
    """The Ray head did not start."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class NodeRecord(_Record):
    """One `ray start`."""

    ip: str
    leader: Process  # began the session in which the node's processes live; ends once they run
    core: list[Process]  # without one of these the node is gone


class HeadRecord(_Record):
    """What is written down of a cluster."""

    boot: str
    address: str  # host:port, as ray.init takes it; empty while it starts
    folder: Path  # Ray's sessions: sockets and logs
    slots: int | None  # CPUs that the head was started with; None: all of the machine
    nodes: list[NodeRecord]


class EmbeddedRay:
    """The cluster of one data folder, running or not."""

    def __init__(self, data_folder: Path, environment: Mapping[str, str]) -> None:
        """`environment` is what the head's workers see, PYTHONPATH above all."""
        self._folder = data_folder / "ray"
        self._file = self._folder / "head.json"
        self._token = self._folder / "token"
        self._environment = environment

    def access(self) -> dict[str, str]:
        """Environment variables with which a process may attach; they must be set before it imports ray."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self._token), **CLIENT_ENVIRONMENT}

    def record(self) -> HeadRecord | None:
        """What was written down; None: nothing, or it is of before the last boot."""
        if not self._file.exists():
            return None
        record = HeadRecord.model_validate_json(self._file.read_bytes())
        return record if record.boot == boot_id() else None

    def alive(self) -> bool:
        """Whether the head's processes run; whether they answer, `address` finds out."""
        record = self.record()
        return record is not None and bool(record.address) and all(process.alive() for process in record.nodes[0].core)

    def address(self) -> str | None:
        """Where the cluster is; None: it does not run."""
        record = self.record()
        return record.address if record and self.alive() and _answers(record.address) else None

    def start(self, slots: int | None) -> str:
        """Find the cluster again, or start one with so many CPUs (None: all of the machine); its address.

        Raises HeadFailed.
        """
        if address := self.address():
            self._compare(slots)
            return address
        self.stop()
        _make_private(self._folder)
        _write_token(self._token)
        sessions = Path(tempfile.mkdtemp(prefix="ema-", dir="/tmp"))  # short: a socket's path has 107 bytes
        record = HeadRecord(boot=boot_id(), address="", folder=sessions, slots=slots, nodes=[])
        flags = ["--head", "--port=0", "--include-dashboard=false", "--no-monitor"]
        record = self._launch(record, [*flags, *_size(slots)], HEAD_IP)
        address = (sessions / HEAD_IP / "ray_current_cluster").read_text().strip()
        self._write(record.model_copy(update={"address": address}))
        return address

    def add_node(self, ip: str, slots: int, labels: Mapping[str, str] | None = None) -> None:
        """One more node on this machine, at a loopback address of its own. Raises HeadFailed."""
        record = self.record()
        if record is None or not record.address:
            raise HeadFailed("there is no Ray head to join")
        shown = ",".join(f"{name}={value}" for name, value in (labels or {}).items())
        flags = [f"--address={record.address}", *_size(slots), "--num-gpus=0", f"--labels={shown}"]
        self._launch(record, flags, ip)

    def remove_node(self, ip: str) -> None:
        """End a node that was added, as a power cut would."""
        record = self.record()
        assert record is not None
        for node in record.nodes[1:]:
            if node.ip == ip:
                end_session(node.leader)
        self._write(record.model_copy(update={"nodes": [node for node in record.nodes if node.ip != ip]}))

    def stop(self) -> None:
        """End every process of the cluster, the workers too, and remove what it left. Does nothing twice."""
        record = self.record()
        if record is not None:
            for node in reversed(record.nodes):
                end_session(node.leader)
            shutil.rmtree(record.folder, ignore_errors=True)
        self._file.unlink(missing_ok=True)

    def _compare(self, slots: int | None) -> None:
        record = self.record()
        if record and record.slots != slots:
            what = {"action": "head_size_kept", "slots": record.slots, "wanted": slots}
            logger.warning("the Ray head that runs keeps its size; stop the service once to change it", extra=what)

    def _launch(self, record: HeadRecord, flags: list[str], ip: str) -> HeadRecord:
        """Run `ray start` and write the node down: before it runs, so that it can always be ended."""
        log = self._folder / f"start-{ip}.log"
        with log.open("wb") as output:
            starter = subprocess.Popen(
                [_ray(), "start", *flags, *_common_flags(record.folder / ip, ip)],
                env={**self._environment, **self.access(), **NODE_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        leader = Process.of(starter.pid)
        assert leader is not None  # not waited for yet, so it keeps its number
        self._write(_with_node(record, NodeRecord(ip=ip, leader=leader, core=[])))
        _await(starter, leader, log)
        started = _with_node(record, NodeRecord(ip=ip, leader=leader, core=_core(leader)))
        self._write(started)
        return started

    def _write(self, record: HeadRecord) -> None:
        aside = self._file.with_suffix(".new")
        aside.write_text(record.model_dump_json(indent=2))
        aside.replace(self._file)


NODE_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # a worker is a process per slot: more threads would fight for the same CPUs
    "RAY_health_check_period_ms": "500",  # a node that went is noticed within 3 s instead of 15
    "RAY_timeout_ms_task_wait_for_death_info": "100",  # a worker that went with its node is noticed before the node ...
    "RAY_core_worker_internal_heartbeat_ms": "100",  # ... within 0.2 s instead of 2
}


def _with_node(record: HeadRecord, node: NodeRecord) -> HeadRecord:
    return record.model_copy(update={"nodes": [*record.nodes, node]})


def _common_flags(folder: Path, ip: str) -> list[str]:
    return [
        f"--node-ip-address={ip}",
        f"--temp-dir={folder}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--min-worker-port=0",  # any free one: several nodes share this machine
        "--max-worker-port=0",
        "--include-log-monitor=false",
        "--disable-usage-stats",
        "--log-style=record",
    ]


def _size(slots: int | None) -> list[str]:
    return [] if slots is None else [f"--num-cpus={slots}"]


def _ray() -> str:
    """Ray's command of the same environment as this interpreter."""
    found = shutil.which("ray", path=os.path.dirname(sys.executable))
    if found is None:
        raise HeadFailed(f"no `ray` command beside {sys.executable}: install the service's dependencies")
    return found


def _await(starter: subprocess.Popen[bytes], leader: Process, log: Path) -> None:
    """Wait for `ray start` to end; where it fails or is interrupted, nothing of it stays. Raises HeadFailed."""
    try:
        code = starter.wait(START_PATIENCE_S)
    except BaseException as interrupted:
        end_session(leader)
        starter.wait()
        if isinstance(interrupted, subprocess.TimeoutExpired):
            raise HeadFailed(f"`ray start` took longer than {START_PATIENCE_S} s; see {log}") from interrupted
        raise
    if code != 0:
        end_session(leader)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise HeadFailed(f"`ray start` failed with exit code {code}:\n{tail}")


def _core(leader: Process) -> list[Process]:
    found = [Process.of(pid) for pid, name in members(leader).items() if name in _CORE]
    return [process for process in found if process is not None]


def _make_private(folder: Path) -> None:
    """This user's alone, whatever the umask is, and also where it was there before."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def _write_token(path: Path) -> None:
    """A new secret, readable by this user alone."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except OSError:
        return False
    return True
