"""Jobs whose storage is a bucket: nothing of them lies on a disk that workers or service would share."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from api_schemas.views import Phase
from tests.buckets import Bucket, access, s3_server
from tests.integration.stage import Job, Stage, staged


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """Named by the environment, as `serve` and its nodes read it."""
    with s3_server() as endpoint, pytest.MonkeyPatch.context() as environment:
        bucket = Bucket(endpoint, "training")
        for name, value in {**access(endpoint), "EMASCALE_STORAGE_URL": bucket.url}.items():
            environment.setenv(name, value)
        yield bucket


@pytest.fixture(scope="module")
def stage(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("data"), slots=4) as stage:
        yield stage
        assert bucket.listing()
        assert not (stage.data_folder / "jobs").exists()


def test_a_job_survives_the_loss_of_all_its_workers_on_what_the_bucket_holds(stage: Stage) -> None:
    job = stage.submit(
        recipe={"name": "classify", "config": {"model": "mlp", "hidden": 1024, "depth": 3}},
        schedule={"budget": "4000 base_steps"},
        elasticity={"workers": [1, 3]},
        checkpoint={"every": "4 epochs", "keep": 2},
    )
    short = stage.submit(name="short", checkpoint={"every": "4 epochs", "keep": 2})
    job.trains_on(3)
    os.kill(job.ranks()["w1"], signal.SIGKILL)
    job.until(lambda _: "joined" in [row.cause for row in job.rows()])
    again = job.rows()[-1].samples
    saved = job.leaves_a_checkpoint_behind(after=again)
    for process in job.ranks().values():
        os.kill(process, signal.SIGKILL)
    stage.client.resize(job.id, 2)
    job.until(lambda _: bool(job.said("rollback")))
    job.trains_on(2)
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    (row,) = (row for row in job.rows() if row.samples_lost)
    assert row.workers == (3, 2)
    assert row.samples >= saved
    assert [event.to_samples for event in job.said("rollback")] == [row.samples]
    job.assert_exactly_once()
    short.ends()
    short.assert_exactly_once()


def test_a_paused_job_goes_on_from_the_bucket_under_ray_train(stage: Stage) -> None:
    job = stage.submit(engine="ray_train", schedule={"budget": "1000000 base_steps"}, elasticity={"workers": [1, 2]})
    job.trains_on(2)
    job.progresses()
    stage.client.pause(job.id)
    there = job.until(lambda view: view.status.phase is Phase.PAUSED).progress.samples
    assert stage.client.checkpoints(job.id).items[-1].samples == there
    stage.client.resume(job.id)
    job.trains_on(2)
    job.progresses()
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    assert [(row.cause, row.samples, row.samples_lost) for row in job.rows()] == [("resume", there, 0)]
    job.assert_exactly_once()


def test_the_service_shows_what_the_bucket_holds(stage: Stage, bucket: Bucket, tmp_path: Path) -> None:
    (job,) = (Job(stage, each.id) for each in stage.client.jobs().items if each.name == "short")
    client, stored = stage.client, {key for key in bucket.listing() if key.startswith(f"{job.id}/")}
    checkpoints = client.checkpoints(job.id).items
    assert [each.samples for each in checkpoints] == [each.samples for each in job.said("checkpoint_saved")[-2:]]
    for each in checkpoints:
        assert {f"{job.id}/checkpoints/{each.name}/{file}" for file in each.files} <= stored
    last = checkpoints[-1]
    weights = next(file for file in last.files if file.startswith("ema-"))
    artifacts = {each.name: each for each in client.artifacts(job.id).items}
    assert artifacts["ema.safetensors"].location == f"{bucket.url}/{job.id}/artifacts/ema.safetensors"
    exported = load_file(client.download(job.id, "ema.safetensors", tmp_path / "exported"))
    kept = load_file(client.download_checkpoint(job.id, last.name, weights, tmp_path / "kept"))
    assert all((exported[name] == tensor).all() for name, tensor in kept.items())
    assert "evaluation" in "\n".join(client.logs(job.id))
    for key in stored:
        assert_readable_by_all(key, bucket.get(key))
    client.delete(job.id)
    assert not [key for key in bucket.listing() if key.startswith(f"{job.id}/")]


def assert_readable_by_all(key: str, content: bytes) -> None:
    """JSON, lines of text, or tensors behind a header of JSON: nothing that would have to be unpickled."""
    if key.endswith(".safetensors"):
        length = int.from_bytes(content[:8], "little")
        assert isinstance(json.loads(content[8 : 8 + length]), dict)
    elif key.endswith(".json"):
        json.loads(content)
    else:
        assert key.endswith(".log")
        content.decode()
