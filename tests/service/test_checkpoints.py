"""Checkpoints and artifacts of a job: what was announced, as far as it is still there."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.service.world import START, Controller, World, started


def save(world: World, controller: Controller, samples: int) -> None:
    """A checkpoint, as a worker writes and announces it."""
    name = f"{samples:015d}"
    for file in ("manifest.json", "model.safetensors", "ranks/0.safetensors"):
        world.store(controller.job, f"checkpoints/{name}/{file}", file.encode())
    controller.report({"type": "checkpoint_saved", "samples": samples, "name": name, "bytes": 1000 + samples})


def listed(world: World, job: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = world.get(f"/v1/jobs/{job}/checkpoints")["items"]
    return items


def test_a_checkpoint_has_its_files(world: World) -> None:
    controller = world.run()
    save(world, controller, 640)
    assert listed(world, controller.job) == [
        {
            "name": "000000000000640",
            "samples": 640,
            "bytes": 1640,
            "saved_at": START.isoformat().replace("+00:00", "Z"),
            "files": ["manifest.json", "model.safetensors", "ranks/0.safetensors"],
        }
    ]


def test_every_listed_file_can_be_downloaded(world: World) -> None:
    controller = world.run()
    save(world, controller, 640)
    (checkpoint,) = listed(world, controller.job)
    for file in checkpoint["files"]:
        address = f"/v1/jobs/{controller.job}/checkpoints/{checkpoint['name']}/{file}"
        assert world.http.get(address).content == file.encode()


def test_the_oldest_comes_first_and_those_that_were_pruned_are_gone(world: World) -> None:
    controller = world.run()
    for samples in (640, 1280, 10_000):
        save(world, controller, samples)
    folder = world.store(controller.job, "checkpoints/000000000000640/manifest.json").parent
    for file in ("manifest.json", "model.safetensors"):
        (folder / file).unlink()
    assert [row["samples"] for row in listed(world, controller.job)] == [1280, 10_000]


def test_one_that_was_written_again_after_a_rollback_is_listed_once(world: World) -> None:
    controller = world.run()
    save(world, controller, 640)
    save(world, controller, 1280)
    world.clock.move(60)
    controller.report({"type": "rollback", "to_samples": 640}, started(samples=640))
    save(world, controller, 1280)
    found = listed(world, controller.job)
    assert [row["samples"] for row in found] == [640, 1280]
    assert found[1]["saved_at"] == "2026-01-01T12:01:00Z"


@pytest.mark.parametrize("path", ["000000000001280/model.safetensors", "latest", ".writing-3f"])
def test_what_was_never_announced_is_not_listed(world: World, path: str) -> None:
    """A checkpoint that is being written; and files that are none."""
    controller = world.run()
    save(world, controller, 640)
    world.store(controller.job, f"checkpoints/{path}")
    assert [row["samples"] for row in listed(world, controller.job)] == [640]


def test_one_whose_writer_died_before_it_was_announced_is_listed_as_its_manifest_has_it(world: World) -> None:
    controller = world.run()
    save(world, controller, 1280)
    name = "000000000000640"
    manifest = {"meta": {"samples": 640}, "files": {"model": {"bytes": 1000}, "ema": {"bytes": 500}}}
    content = json.dumps(manifest).encode()
    for file in ("manifest.json", "model.safetensors"):
        world.store(controller.job, f"checkpoints/{name}/{file}", content)
    before, found = listed(world, controller.job)[0], listed(world, controller.job)
    assert [row["samples"] for row in found] == [640, 1280]
    assert (before["name"], before["bytes"], before["files"]) == (
        name,
        1500 + len(content),
        ["manifest.json", "model.safetensors"],
    )
    assert abs(datetime.fromisoformat(before["saved_at"]) - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"meta": {}}', b'{"meta": {"samples": 1}, "files": {"m": {}}}'])
def test_a_manifest_that_cannot_be_read_hides_no_other_checkpoint(world: World, content: bytes) -> None:
    controller = world.run()
    save(world, controller, 640)
    world.store(controller.job, "checkpoints/000000000001280/manifest.json", content)
    assert [row["samples"] for row in listed(world, controller.job)] == [640]


def test_artifacts_are_listed_with_their_addresses_and_where_they_lie(world: World) -> None:
    job = world.submit()
    assert world.get(f"/v1/jobs/{job}/artifacts") == {"items": [], "next": None}
    file = world.store(job, "artifacts/ema.safetensors", b"12345")
    other = world.store(job, "artifacts/plots/a b.png", b"1")
    below = f"/v1/jobs/{job}/artifacts"
    assert world.get(f"/v1/jobs/{job}/artifacts")["items"] == [
        {"name": "ema.safetensors", "bytes": 5, "url": f"{below}/ema.safetensors", "location": str(file)},
        {"name": "plots/a b.png", "bytes": 1, "url": f"{below}/plots/a%20b.png", "location": str(other)},
    ]
    assert [world.http.get(f"{below}/{path}").content for path in ("ema.safetensors", "plots/a%20b.png")] == [
        b"12345",
        b"1",
    ]


def test_the_job_names_what_it_exported(world: World) -> None:
    controller = world.run()
    names = ("ema.safetensors", "model.safetensors")
    for name in names:
        controller.report({"type": "exported", "artifacts": {name: f"/a/{name}"}})
    below = f"/v1/jobs/{controller.job}/artifacts"
    assert world.job(controller.job)["artifacts"] == {name: f"{below}/{name}" for name in names}
