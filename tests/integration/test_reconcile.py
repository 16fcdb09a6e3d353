"""The reconciler as its own process on a real Ray cluster, with controllers of words on the nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlmodel import select

from api_schemas.exchange import PROTOCOL
from api_schemas.jobs import JobSpec, ResizeRequest
from api_schemas.views import Phase
from service import jobs, resizes
from service.db import Database, connect, migrate
from service.head import EmbeddedRay
from service.processes import wait_until
from service.settings import Settings
from service.tables import ClusterRow, EventRow, Job, LedgerRow
from tests.service.world import spec

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60

CONTROLLER = '''
"""Trains 100 samples an exchange; the job's folder tells it to end (`end`) or to die (`die`)."""
import json, os, time
from datetime import datetime, timezone
from pathlib import Path
import ray

class Controller:
    def __init__(self, launch):
        self.launch, self.folder = launch, Path(launch["storage"])
        self.workers = self.samples = self.generation = self.said = 0
        self.finished, self.spool = False, []

    def exchange(self, command_json):
        command = json.loads(command_json)
        self.spool = [event for event in self.spool if event["sequence"] > command["acked"]]
        if (self.folder / "die").exists():
            (self.folder / "die").unlink()
            os._exit(1)
        if self.finished and not self.spool:
            os._exit(0)
        self.obey(command)
        time.sleep(0.02)
        return json.dumps({**self.own(), "workers": self.workers, "joining": 0, "samples": self.samples,
                           "done": self.finished, "events": self.spool})

    def obey(self, command):
        wanted = command["allocation"]["workers"]
        if command["intent"] == "cancel" or (self.folder / "end").exists():
            if not self.finished:
                outcome = "cancelled" if command["intent"] == "cancel" else "succeeded"
                self.finished, self.workers = True, 0
                self.say("finished", outcome=outcome, code="finished", message="It ended.")
            return
        if wanted != self.workers:
            before, self.workers, self.generation = self.workers, wanted, self.generation + 1
            if before:
                self.say("resized", cause=command["allocation"]["cause"], reason=command["allocation"]["reason"],
                         samples=self.samples, workers=[before, wanted], kappa=[before, wanted], before={}, after={},
                         batch=[64 * before, 64 * wanted], state_factors={}, warnings=[], decide_s=0, pause_s=0,
                         steps_lost=0, samples_lost=0)
            else:
                self.say("started", workers=wanted, kappa=wanted, batch=64 * wanted, samples=0, values={},
                         epoch_size=1000, total_samples=10**6, bn_momentum=None)
        self.samples += 100
        self.say("committed", start=self.samples - 100, stop=self.samples)

    def own(self):
        launch = self.launch
        return {"protocol": launch["protocol"], "job": launch["job"], "incarnation": launch["incarnation"],
                "generation": self.generation}

    def say(self, kind, **fields):
        self.said += 1
        at = datetime.now(timezone.utc).isoformat()
        self.spool.append({**self.own(), "type": kind, "sequence": self.said, "at": at, **fields})

def start(launch_json):
    launch = json.loads(launch_json)
    Path(launch["storage"]).mkdir(parents=True, exist_ok=True)
    options = {"name": "controller:" + launch["job"], "namespace": "emascale", "lifetime": "detached", "num_cpus": 0}
    controller = ray.remote(Controller).options(max_concurrency=4, **options).remote(launch)
    ray.get(controller.__ray_ready__.remote())
'''


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRay]:
    nodes = tmp_path_factory.mktemp("node")
    for file, text in {
        "workers/__init__.py": "",
        "workers/controller.py": CONTROLLER,
        "workers/recipes.py": "def catalogue(): return []",
        "service/__init__.py": "raise ImportError('a node has no service')",
    }.items():
        (nodes / file).parent.mkdir(exist_ok=True)
        (nodes / file).write_text(text)
    head = EmbeddedRay(tmp_path_factory.mktemp("data"), {**os.environ, "PYTHONPATH": str(nodes)})
    head.start(slots=4)
    yield head
    head.stop()


class Scene:
    def __init__(self, data_folder: Path, head: EmbeddedRay) -> None:
        self.head = head
        self.settings = Settings(data_folder=data_folder)
        self.database = Database(connect(self.settings.database_url), lambda: datetime.now(UTC))
        migrate(self.database.engine)

    @contextmanager
    def reconciling(self) -> Iterator[subprocess.Popen[bytes]]:
        environment = {
            **os.environ,
            **self.head.access(),
            "PYTHONPATH": str(ROOT),
            "EMASCALE_DATA_FOLDER": str(self.settings.data_folder),
            "EMASCALE_RAY_ADDRESS": self.head.address() or "",
        }
        process = subprocess.Popen([sys.executable, "-m", "service", "reconcile"], env=environment)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_S)

    def submit(self, job: str) -> None:
        made = JobSpec.model_validate(spec(name=job))
        jobs.submit(self.database, made, None, job_id=job, storage=str(self.folder(job)), key=None)

    def folder(self, job: str) -> Path:
        return self.settings.data_folder / "jobs" / job

    def job(self, job: str) -> Job:
        with self.database.reading() as session:
            found = session.get(Job, job)
        assert found is not None
        return found

    def until(self, job: str, *phases: Phase, workers: int | None = None, samples: int = 0) -> None:
        def reached() -> bool:
            now = self.job(job)
            return now.phase in phases and workers in (None, now.workers) and now.samples >= samples

        assert wait_until(reached, PATIENCE_S), self.job(job)

    def judge(self, job: str) -> None:
        """Every event once and in order, every sample once."""
        with self.database.reading() as session:
            ranges = session.exec(select(LedgerRow).where(LedgerRow.job_id == job).order_by(LedgerRow.start)).all()
            events = session.exec(select(EventRow).where(EventRow.job_id == job, EventRow.incarnation > 0)).all()
        assert [each.start for each in ranges] == [0, *(each.stop for each in ranges[:-1])]
        assert ranges[-1].stop == self.job(job).samples
        numbers = [(each.incarnation, each.sequence) for each in events]
        assert numbers == sorted(set(numbers))


@pytest.fixture
def scene(tmp_path: Path, head: EmbeddedRay) -> Iterator[Scene]:
    scene = Scene(tmp_path, head)
    yield scene
    scene.database.engine.dispose()


def test_the_controllers_of_this_test_speak_the_protocol() -> None:
    assert PROTOCOL == 1


def test_jobs_run_share_and_end(scene: Scene) -> None:
    with scene.reconciling():
        scene.submit("first")
        scene.until("first", Phase.RUNNING, workers=4, samples=100)
        scene.submit("second")
        scene.until("first", Phase.RUNNING, workers=2)
        scene.until("second", Phase.RUNNING, workers=2)
        resizes.ask(scene.database, "second", ResizeRequest(workers=1))
        scene.until("first", Phase.RUNNING, workers=3)
        jobs.cancel(scene.database, "second")
        scene.until("second", Phase.CANCELLED)
        scene.until("first", Phase.RUNNING, workers=4)
        (scene.folder("first") / "end").touch()
        scene.until("first", Phase.SUCCEEDED)
    for job in ("first", "second"):
        assert scene.job(job).incarnation == 1
        scene.judge(job)


def test_a_killed_reconciler_loses_and_doubles_nothing(scene: Scene) -> None:
    with scene.reconciling() as process:
        scene.submit("job")
        scene.until("job", Phase.RUNNING, samples=300)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
    with scene.reconciling():
        scene.until("job", Phase.RUNNING, samples=scene.job("job").samples + 300)
        (scene.folder("job") / "end").touch()
        scene.until("job", Phase.SUCCEEDED)
    assert scene.job("job").incarnation == 1
    scene.judge("job")


def test_a_controller_that_dies_is_replaced(scene: Scene) -> None:
    with scene.reconciling():
        scene.submit("mortal")
        scene.until("mortal", Phase.RUNNING, samples=300)
        (scene.folder("mortal") / "die").touch()
        assert wait_until(lambda: scene.job("mortal").incarnation == 2, PATIENCE_S)
        scene.until("mortal", Phase.RUNNING)
        jobs.cancel(scene.database, "mortal")
        scene.until("mortal", Phase.CANCELLED)


def test_a_reconciler_ends_when_the_cluster_is_lost(tmp_path: Path) -> None:
    head = EmbeddedRay(tmp_path, os.environ)
    head.start(slots=1)
    try:
        scene = Scene(tmp_path, head)
        with scene.reconciling() as process:
            assert wait_until(lambda: connected(scene.database), PATIENCE_S)
            head.stop()
            assert process.wait(PATIENCE_S / 2) == 1
        assert not connected(scene.database)
        scene.database.engine.dispose()
    finally:
        head.stop()


def connected(database: Database) -> bool:
    with database.reading() as session:
        row = session.get(ClusterRow, 1)
    return row is not None and bool(row.picture["connected"])
