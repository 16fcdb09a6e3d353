"""The roles of the containers on machines of their own: jobs outlive what happens to machines."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from safetensors.numpy import load_file

from api_schemas.errors import Unavailable
from api_schemas.views import Phase
from tests.following import FollowedJob, spec
from tests.topology.cluster import Cluster

pytestmark = pytest.mark.timeout(400)  # images and cluster are made within that of the first test
NAMES = ("first", "second", "third")
OUTAGE_S = 60


@pytest.fixture(scope="module")
def running(topology: Cluster) -> Cluster:
    """Head, service and three workers."""
    topology.start("head", "head")
    for name in NAMES:
        topology.worker(name)
    topology.serve()
    topology.has_workers(*NAMES)
    return topology


@pytest.fixture(scope="module")
def job(running: Cluster) -> FollowedJob:
    """One that trains on all three workers until it is told to stop."""
    asked = spec(
        recipe={"name": "classify", "config": {"model": "mlp", "hidden": 512, "depth": 2}},
        schedule={"budget": "1000000 base_steps"},
        elasticity={"workers": [1, 3]},
        checkpoint={"every": "4 epochs"},
    )
    job = FollowedJob(lambda: running.client, running.client.submit(asked).id)
    job.trains_on(3)
    job.until(lambda _: bool(job.said("checkpoint_saved")))
    return job


def lost_nothing(job: FollowedJob) -> list[tuple[str, tuple[int, int]]]:
    """Cause and sizes of each change so far."""
    rows = job.rows()
    assert all(row.steps_lost == row.samples_lost == 0 for row in rows), rows
    return [(row.cause, row.workers) for row in rows]


def job_goes_on_without_it_and_grows_when_it_is_back(running: Cluster, job: FollowedJob, name: str) -> None:
    job.trains_on(2)
    running.has_workers(*(other for other in NAMES if other != name))
    running.worker(name)
    job.trains_on(3)


def test_every_role_that_works_is_healthy(running: Cluster) -> None:
    """The service's check asks localhost, which is its own where it has a namespace."""
    names = ["head", *NAMES, *(["service"] if running.has_namespaces else [])]
    assert {name: running.check(name) for name in names} == dict.fromkeys(names, 0)


def test_without_keys_nobody_reads_what_jobs_wrote(running: Cluster, job: FollowedJob) -> None:
    for path in ("", "/emascale", f"/emascale/jobs/{job.id}/"):
        assert httpx.get(f"{running.objects}{path}").status_code == 403


def test_a_worker_that_is_told_to_stop_leaves_after_its_jobs(running: Cluster, job: FollowedJob) -> None:
    """As `docker compose up --scale worker=2` does."""
    running.role("third").stop()
    job_goes_on_without_it_and_grows_when_it_is_back(running, job, "third")
    assert lost_nothing(job)[-2][:2] == ("drain", (3, 2))
    assert not job.said("rank_lost")


def test_a_machine_is_lost_and_comes_back(running: Cluster, job: FollowedJob) -> None:
    running.role("second").kill()
    job_goes_on_without_it_and_grows_when_it_is_back(running, job, "second")
    assert lost_nothing(job)[-2] == ("rank_lost", (3, 2))


def test_the_service_is_killed_and_started_again(running: Cluster, job: FollowedJob) -> None:
    before = lost_nothing(job)
    seen = job.progresses().progress.samples
    running.role("service").kill()
    running.serve()
    assert job.progresses().progress.samples > seen
    running.has_workers(*NAMES)
    assert lost_nothing(job) == before
    job.assert_exactly_once()


def test_another_service_takes_over(running: Cluster, job: FollowedJob) -> None:
    running.serve("standby")
    job.progresses()
    running.role("service").kill()
    job.progresses()
    job.client.resize(job.id, 2)
    job.trains_on(2)
    assert lost_nothing(job)[-1] == ("api", (3, 2))


def test_an_outage_of_the_database(running: Cluster, job: FollowedJob) -> None:
    seen = job.view.progress.samples
    with running.postgres.stopped():
        time.sleep(OUTAGE_S)
        with pytest.raises(Unavailable):
            job.client.job(job.id)
    assert job.progresses().progress.samples > seen
    lost_nothing(job)
    job.assert_exactly_once()


def test_the_end_of_a_job_is_in_the_bucket_and_comes_out_of_the_api(
    running: Cluster, job: FollowedJob, tmp_path: Path
) -> None:
    job.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    job.assert_exactly_once()
    checkpoint = job.client.checkpoints(job.id).items[-1]
    weights = next(file for file in checkpoint.files if file.startswith("ema-"))
    assert load_file(job.client.download_checkpoint(job.id, checkpoint.name, weights, tmp_path / "ema"))
    assert not (running.folder / "data" / "jobs").exists()
    assert "w0" in "\n".join(job.client.logs(job.id))
