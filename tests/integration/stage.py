"""A whole service on this machine, with a Ray cluster of its own, and the words to write its tests in."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file
from torch import Tensor

from api_schemas.client import Client
from api_schemas.jobs import JobSpec
from api_schemas.tokens import Scope
from service.head import EmbeddedRay, NodeRecord
from service.processes import Process, members, wait_until
from tests.following import PATIENCE_S, FollowedJob, spec

ROOT = Path(__file__).parents[2]
Auth = Literal["none", "token"]
LONG = {
    "schedule": {"budget": "2000 epochs", "warmup": "2 epochs", "lr": "cosine"},
    "evaluation": {"every": "5 epochs"},
}
"""Parts of the spec of a job that does not end by itself while a test looks at it."""


class Stage:
    """The service of one data folder, and its client."""

    def __init__(self, data_folder: Path, slots: int, packages: Path | None, auth: Auth, grace_s: float) -> None:
        self.data_folder = data_folder
        self._slots = slots
        self._auth = auth
        path = f"{ROOT}{os.pathsep}{packages or ''}"
        self._environment = {**os.environ, "PYTHONPATH": path, "EMASCALE_GRACE_S": str(grace_s)}
        self._process: subprocess.Popen[str] | None = None
        self._client: Client | None = None
        self.address = ""  # once it has answered

    @property
    def client(self) -> Client:
        assert self._client is not None, "the service runs"
        return self._client

    def serve(self, port: int = 0) -> None:
        """Start the service; returns once it answers."""
        command = [sys.executable, "-m", "service", "serve", f"--port={port}", f"--auth={self._auth}"]
        log = (self.data_folder / "service.log").open("a")
        with log:
            self._process = subprocess.Popen(
                [*command, f"--slots={self._slots}", f"--data={self.data_folder}"],
                cwd=ROOT,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        found = re.search(r"http://\S+\d", said)
        assert found is not None, (self.data_folder / "service.log").read_text()
        self.address = found[0]
        self._client = Client(self.address)

    def tell(self, number: signal.Signals) -> None:
        """Send one to `serve`."""
        assert self._process is not None, "the service runs"
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End `serve`; with SIGKILL its cluster goes on."""
        if self._process is None:
            return
        self.tell(number)
        self._process.wait(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self.client.close()
        self._process = self._client = None

    def kill(self) -> None:
        """Kill whatever `serve` consists of, the cluster apart."""
        pids = [int((self.data_folder / "run" / f"{name}.pid").read_text()) for name in ("api", "reconciler")]
        self.stop(signal.SIGKILL)
        assert wait_until(lambda: not any(Process.of(pid) for pid in pids), PATIENCE_S)

    def token(self, name: str, scope: Scope) -> str:
        """A new one, made on the command line as its users do."""
        command = [sys.executable, "-m", "service", "token", "create", f"--data={self.data_folder}"]
        said = subprocess.run(
            [*command, f"--name={name}", f"--scope={scope}"],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
        )
        assert said.returncode == 0, said.stderr
        return said.stdout.strip()

    def processes(self, title: str) -> list[int]:
        """The cluster's processes whose title begins so."""
        return [pid for ip in self.nodes() for pid in self.processes_on(ip) if _title(pid).startswith(title)]

    # -- nodes ---------------------------------------------------------------------------------------------------------

    @property
    def ray(self) -> EmbeddedRay:
        """The service's own cluster."""
        return EmbeddedRay(self.data_folder, self._environment)

    def nodes(self) -> dict[str, NodeRecord]:
        """The cluster's nodes by their address, the head first."""
        record = self.ray.record()
        return {node.ip: node for node in record.nodes} if record else {}

    def processes_on(self, ip: str) -> list[int]:
        """Every process of a node; none where there is no such node."""
        node = self.nodes().get(ip)
        return list(members(node.leader)) if node else []

    def node_of(self, pid: int) -> str:
        """The address of the node that a process belongs to."""
        return next(ip for ip in self.nodes() if pid in self.processes_on(ip))

    def kill_raylet(self, ip: str) -> None:
        """What makes it a node, and nothing else, is killed."""
        node = self.nodes().get(ip)
        raylets = [pid for pid, name in members(node.leader).items() if name == "raylet"] if node else []
        if not raylets:
            raise ProcessLookupError(f"there is no raylet at {ip} yet")
        os.kill(raylets[0], signal.SIGKILL)

    def drain(self, ip: str, seconds: int) -> None:
        """Give notice of a node: it may be gone after so many seconds. Raises ProcessLookupError where there is none,
        also where the service has not seen yet that it went.
        """
        node = next((node for node in self.client.cluster().nodes if node.address == ip), None)
        if node is None:
            raise ProcessLookupError(f"the service sees no node at {ip} yet")
        about = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", f"--node-id={node.id}"]
        command = [Path(sys.executable).with_name("ray"), "drain-node", f"--address={self.ray.address()}", *about]
        environment = {**self._environment, **self.ray.access()}
        done = subprocess.run(
            [*command, f"--deadline-remaining-seconds={seconds}"], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise ProcessLookupError(f"Ray did not take the notice of {ip}: {done.stderr.strip().splitlines()[-1:]}")

    def has_nodes(self, *ips: str) -> None:
        """Once the service sees these nodes, and no others."""

        def seen() -> bool:
            view = self.client.cluster()
            return view.connected and sorted(node.address for node in view.nodes) == sorted(ips)

        assert wait_until(seen, PATIENCE_S), self.client.cluster()

    def submit(self, **changes: Any) -> Job:
        return Job(self, self.client.submit(spec(**changes)).id)


class Job(FollowedJob):
    """A job of the stage, with its processes."""

    def __init__(self, stage: Stage, id: str) -> None:
        super().__init__(lambda: stage.client, id)
        self.stage = stage

    def processes(self) -> dict[str, int]:
        """The process of each worker that lives, as its log says; one that is stopped is about to be killed."""
        lines = "\n".join(self.client.logs(self.id))
        found = re.findall(rf"worker (w\d+) of job {self.id}: process (\d+)", lines)
        return {worker: int(pid) for worker, pid in found if _runs(int(pid))}

    def ranks(self) -> dict[str, int]:
        """The same, once there are as many as train."""
        assert wait_until(lambda: len(self.processes()) >= self.view.workers, PATIENCE_S), self.story()
        return self.processes()

    def controller(self) -> int:
        """The process of its controller, as soon as no other job has one."""
        found: list[int] = []

        def only_one() -> bool:
            found[:] = self.stage.processes("ray::Controller")
            return len(found) == 1

        assert wait_until(only_one, PATIENCE_S), found
        return found[0]

    def weights(self, name: str = "ema") -> Mapping[str, Tensor]:
        exported: dict[str, Tensor] = load_file(self.location(f"{name}.safetensors"))
        return exported

    def location(self, artifact: str) -> Path:
        """Where it lies in the storage."""
        return Path(next(each.location for each in self.stage.client.artifacts(self.id).items if each.name == artifact))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "TXZ"


def _title(pid: int) -> str:
    """What a process calls itself; nothing once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def staged(
    data_folder: Path, *, slots: int = 3, packages: Path | None = None, auth: Auth = "none", grace_s: float = 0
) -> Iterator[Stage]:
    """A service that ends with the block, with all that it started. `packages`: a folder on the nodes' path."""
    stage = Stage(data_folder, slots, packages, auth, grace_s)
    try:
        stage.serve()
        yield stage
    finally:
        stage.stop()
        EmbeddedRay(data_folder, {}).stop()  # where a test failed after a kill


def validated(**changes: Any) -> JobSpec:
    """The same spec as the trainer has it."""
    return JobSpec.model_validate(spec(**changes))
