"""A real Ray head: it starts, refuses strangers, is found again, grows, and goes without a trace.

A process can attach to one cluster with one token, once; so whatever attaches runs in a process of its own.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.head import HEAD_IP, EmbeddedRay, HeadFailed
from service.processes import members, wait_until

ROOT = Path(__file__).parents[2]
SECOND_IP = "127.0.0.2"
PATIENCE_S = 30

FAKE_CONTROLLER = """
import json
import time
import ray

class Controller:
    def exchange(self, command_json):
        command = json.loads(command_json)
        return json.dumps({
            "job": command["job"], "incarnation": command["incarnation"], "generation": 1, "workers": 1,
            "joining": 0, "samples": 0, "done": False, "events": [],
        })

def start(launch):
    launch = json.loads(launch)
    if launch["job"] == "bad":
        raise ZeroDivisionError("no such luck")
    if launch["job"] == "slow":
        time.sleep(2)
    name = "controller:" + launch["job"]
    controller = ray.remote(Controller).options(name=name, namespace="emascale", lifetime="detached", num_cpus=0)
    handle = controller.remote()
    ray.get(handle.__ray_ready__.remote())
"""
FAKE_RECIPES = """
def catalogue():
    return [{"name": "fake", "summary": "None.", "config_schema": {"type": "object"}}]
"""
DRIVER = """
import asyncio, os, signal, sys
sys.modules["workers"] = None  # as in the reconciler
from datetime import UTC, datetime
from api_schemas.exchange import Allocation, Command, Launch
from api_schemas.jobs import JobSpec
from service.cluster import ClusterError, RayCluster

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = JobSpec.model_validate({
    "name": "a", "recipe": {"name": "fake"}, "optimizer": {"name": "sgd", "lr": 0.1},
    "schedule": {"budget": "1 epochs"}, "batch": {"base": 8, "per_worker": 8},
})
LAUNCH = Launch(job="a", incarnation=1, spec=SPEC, storage="/nowhere")
COMMAND = Command(
    job="a", incarnation=1, intent="train", acked=0,
    allocation=Allocation(workers=1, kappa=(1, 1), requested_at=NOW),
)
cluster = RayCluster(sys.argv[1])

async def main():
"""


@pytest.fixture(scope="module")
def node_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the nodes import from: a small `workers`, and a `service` that must not be touched."""
    path = tmp_path_factory.mktemp("node")
    for file, text in {
        "workers/__init__.py": "",
        "workers/controller.py": FAKE_CONTROLLER,
        "workers/recipes/__init__.py": FAKE_RECIPES,
        "service/__init__.py": "raise ImportError('a node has no service')",
    }.items():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_text(text)
    return path


def a_head(data_folder: Path, node_path: Path) -> EmbeddedRay:
    return EmbeddedRay(data_folder, {**os.environ, "PYTHONPATH": str(node_path)})


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, node_path: Path) -> Iterator[EmbeddedRay]:
    head = a_head(tmp_path_factory.mktemp("data"), node_path)
    head.start(slots=2)
    yield head
    head.stop()


def drive(head: EmbeddedRay, body: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the body with `cluster` attached, in a process and a folder of its own."""
    script = folder / "driver.py"
    script.write_text(DRIVER + textwrap.indent(textwrap.dedent(body), "    ") + "\nasyncio.run(main())\n")
    return subprocess.run(
        [sys.executable, str(script), str(head.address())],
        env={**os.environ, "PYTHONPATH": str(ROOT), **head.access(), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_offers_its_slots(head: EmbeddedRay, tmp_path: Path) -> None:
    nodes = "print([(node.address, node.cpu, node.cpu_used) for node in await cluster.nodes()])"
    assert said(drive(head, nodes, tmp_path)) == str([(HEAD_IP, 2.0, 0.0)])


def test_a_launch_that_nobody_waits_for_any_more_comes_to_nothing(head: EmbeddedRay, tmp_path: Path) -> None:
    """It would take the place of what is launched instead."""
    body = """
        launching = asyncio.ensure_future(cluster.launch(LAUNCH.model_copy(update={"job": "slow"})))
        await asyncio.wait({launching}, timeout=1)
        launching.cancel()
        await asyncio.sleep(3)
        print(await cluster.controllers())
    """
    assert "slow" not in said(drive(head, body, tmp_path))


def test_its_token_is_for_this_user_alone(head: EmbeddedRay) -> None:
    token = Path(head.access()["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    record = head.record()
    assert record is not None
    assert stat.S_IMODE(record.folder.stat().st_mode) == 0o700
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in members(record.nodes[0].leader)]
    assert not any(token.read_bytes() in line for line in lines), "a command line is seen by all"


@pytest.mark.parametrize("text", ["0" * 64, None], ids=["wrong", "none"])
def test_a_stranger_is_refused(head: EmbeddedRay, tmp_path: Path, text: str | None) -> None:
    token = tmp_path / "token"
    token.write_text(text or "")
    stranger = {"RAY_AUTH_TOKEN_PATH": str(token)} if text else {"RAY_AUTH_MODE": "disabled"}
    done = drive(head, "pass", tmp_path, **stranger)
    assert done.returncode == 1
    assert "ClusterUnreachable" in done.stderr


def test_a_service_that_starts_anew_finds_it(head: EmbeddedRay, node_path: Path) -> None:
    record = head.record()
    assert record is not None
    found = a_head(Path(head.access()["RAY_AUTH_TOKEN_PATH"]).parents[1], node_path)
    assert found.start(slots=2) == record.address
    assert found.record() == record


def test_a_second_node_joins_and_goes(head: EmbeddedRay, tmp_path: Path) -> None:
    head.add_node(SECOND_IP, slots=1)
    count = "print(sorted((node.address, node.cpu) for node in await cluster.nodes()))"
    assert said(drive(head, count, tmp_path)) == str([(HEAD_IP, 2.0), (SECOND_IP, 1.0)])
    head.remove_node(SECOND_IP)
    wait = f"""
    while len(await cluster.nodes()) > 1:
        await asyncio.sleep(0.1)
    {count}
    """
    assert said(drive(head, wait, tmp_path)).splitlines()[-1] == str([(HEAD_IP, 2.0)])


def test_a_node_that_is_to_leave_is_seen_with_its_time_and_gets_nothing_more(head: EmbeddedRay, tmp_path: Path) -> None:
    head.add_node(SECOND_IP, slots=1)
    body = f"""
    import ray
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason
    (second,) = [node for node in await cluster.nodes() if node.address == "{SECOND_IP}"]
    print(second.draining, second.drains_at)
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    by = datetime(2100, 1, 1, tzinfo=UTC)

    @ray.remote(num_cpus=1)
    class Holder:
        def where(self):
            return ray.get_runtime_context().get_node_id()

    holders = [Holder.remote() for _ in range(3)]  # an idle node would end at once
    print(second.id in ray.get([holder.where.remote() for holder in holders]))
    GcsClient(address=sys.argv[1]).drain_node(second.id, reason, "spot", int(by.timestamp() * 1000))
    print([(node.address, node.draining, node.drains_at == by) for node in await cluster.nodes() if node.draining])
    """
    assert said(drive(head, body, tmp_path)).splitlines() == ["False None", "True", str([(SECOND_IP, True, True)])]
    head.remove_node(SECOND_IP)


def test_nodes_call_by_name_and_need_nothing_of_the_service(head: EmbeddedRay, tmp_path: Path) -> None:
    body = """
    print([recipe.name for recipe in await cluster.catalogue()])
    try:
        await cluster.launch(LAUNCH.model_copy(update={"job": "bad"}))
    except ClusterError as error:
        print(type(error).__name__, "no such luck" in str(error))
    """
    assert said(drive(head, body, tmp_path)).splitlines() == ["['fake']", "LaunchFailed True"]


def test_a_controller_outlives_the_process_that_launched_it(head: EmbeddedRay, tmp_path: Path) -> None:
    launch = "await cluster.launch(LAUNCH); os.kill(os.getpid(), signal.SIGKILL)"
    assert drive(head, launch, tmp_path).returncode == -signal.SIGKILL
    body = """
    print(await cluster.controllers(), (await cluster.exchange(COMMAND)).workers)
    await cluster.kill("a")
    for job in ("a", "never"):
        try:
            await cluster.exchange(COMMAND.model_copy(update={"job": job}))
        except ClusterError as error:
            print(type(error).__name__)
    """
    assert said(drive(head, body, tmp_path)).splitlines() == ["{'a'} 1", "ControllerGone", "ControllerGone"]


def test_it_ends_without_a_trace(tmp_path: Path, node_path: Path) -> None:
    head = a_head(tmp_path, node_path)
    head.start(slots=1)
    said(drive(head, "await cluster.launch(LAUNCH)", tmp_path))
    record = head.record()
    assert record is not None
    assert len(members(record.nodes[0].leader)) > 3  # its agents and the controller's process as well
    head.stop()
    assert not any(members(node.leader) for node in record.nodes)
    assert not record.folder.exists()
    assert head.address() is None
    head.stop()


def test_a_broken_one_is_replaced(tmp_path: Path, node_path: Path) -> None:
    head = a_head(tmp_path, node_path)
    try:
        first = head.start(slots=1)
        record = head.record()
        assert record is not None
        os.kill(next(pid for pid, name in members(record.nodes[0].leader).items() if name == "raylet"), signal.SIGKILL)
        assert wait_until(lambda: head.address() is None, PATIENCE_S)
        assert head.start(slots=1) != first
        assert not members(record.nodes[0].leader)
    finally:
        head.stop()


def test_one_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path, node_path: Path) -> None:
    head = a_head(tmp_path, node_path)
    with pytest.raises(HeadFailed, match="exit code"):
        head.start(slots=-1)
    assert head.address() is None
    head.stop()
    assert not list(tmp_path.glob("ray/*.json"))
