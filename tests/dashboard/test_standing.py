"""How a job stands, and what is kept of it, in a browser; jobs are played."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from service.db import Database
from service.settings import Settings
from tests.dashboard.browser import WIDTHS, Screen, needs_chromium
from tests.service.world import Controller, finished, metrics, resized, spec, started

pytestmark = needs_chromium

NOISE = {"scaling": {"second_moment": "measured"}}


def play(database: Database, address: str, **changes: Any) -> Controller:
    job = httpx.post(f"{address}/v1/jobs", json=spec(**changes)).raise_for_status().json()["id"]
    return Controller.launch(database, job)


def tile(page: Page, name: str) -> Locator:
    return page.locator(".facts > div", has=page.get_by_text(name, exact=True))


def noise(*points: tuple[int, float | None]) -> dict[str, Any]:
    """Points of the noise scale, and of the fraction that workers tell beside it."""
    told = ((n, {"noise_scale": scale, "noise_fraction": 1.0 if scale is None else 0.5}) for n, scale in points)
    return metrics(*told)


def test_where_noise_is_measured_its_tile_stays(screen: Screen, database: Database) -> None:
    controller = play(database, screen.address, **NOISE)
    controller.report(started())
    page = screen.go(f"/jobs/{controller.job}")
    expect(tile(page, "Noise scale")).to_contain_text("not measured yet")
    controller.report(noise((64, 120.0)))
    expect(tile(page, "Noise scale")).to_contain_text("120")
    controller.report(noise((3000, None)), {"type": "committed", "start": 0, "stop": 3000})
    expect(tile(page, "Noise scale")).to_contain_text("the gradient is noise alone")
    page.get_by_role("link", name="Spec").click()
    page.reload()
    expect(tile(page, "Noise scale")).to_contain_text("the gradient is noise alone")


def test_noise_that_was_infinite_throughout_was_measured(screen: Screen, database: Database) -> None:
    controller = play(database, screen.address, **NOISE)
    points = [(samples, None) for samples in range(64, 192)]
    controller.report(started(), noise(*points), {"type": "committed", "start": 0, "stop": 192})
    asked: set[str] = set()
    screen.page.on("request", lambda request: asked.add(request.url) if "name=noise" in request.url else None)
    page = screen.go(f"/jobs/{controller.job}")
    expect(tile(page, "Noise scale")).to_contain_text("the gradient is noise alone")
    assert {url.rpartition("&")[2] for url in asked} == {"points=2"}


def test_noise_that_one_worker_cannot_measure_says_since_when(screen: Screen, database: Database) -> None:
    controller = play(database, screen.address, **NOISE)
    controller.report(started(), noise((64, 120.0)), {"type": "committed", "start": 0, "stop": 3000})
    page = screen.go(f"/jobs/{controller.job}")
    expect(tile(page, "Noise scale")).to_have_text("Noise scale120samples")
    controller.report(resized(1500, (2, 1)), resized(2500, (1, 1)), noise((3000, 120.0)))
    said = re.compile(r"120samplesnot measured since sample 1.500: one micro-batch a step$")
    expect(tile(page, "Noise scale")).to_have_text(said)
    screen.shown("noise-alone")
    controller.report(resized(3000, (1, 1), batch=(64, 128)))
    expect(tile(page, "Noise scale")).to_have_text("Noise scale120samples")
    controller.report(resized(3000, (1, 1), batch=(128, 64)), finished("succeeded"))
    expect(tile(page, "Noise scale")).to_contain_text(re.compile("not measured since sample 3.000"))


def test_noise_that_was_never_measured_by_one_worker_says_why(screen: Screen, database: Database) -> None:
    controller = play(database, screen.address, **NOISE)
    controller.report(started(workers=1, kappa=1.0, batch=64), {"type": "committed", "start": 0, "stop": 3000})
    page = screen.go(f"/jobs/{controller.job}")
    expect(tile(page, "Noise scale")).to_contain_text("not measured: one micro-batch a step")


def test_where_noise_is_assumed_there_is_no_tile_for_it(screen: Screen, database: Database) -> None:
    controller = play(database, screen.address, scaling={"second_moment": "assume_noise"})
    page = screen.go(f"/jobs/{controller.job}")
    expect(tile(page, "Workers")).to_be_visible()
    expect(tile(page, "Noise scale")).to_have_count(0)


def test_noise_is_drawn_on_a_log_axis(screen: Screen, database: Database) -> None:
    controller = play(database, screen.address, **NOISE)
    controller.report(started(), metrics(*((n, {"noise_scale": 10.0 ** (1 + n / 1000)}) for n in range(64, 4000, 64))))
    page = screen.go(f"/jobs/{controller.job}")
    button = page.get_by_role("button", name="log axis of Gradient noise scale")
    expect(button).to_have_attribute("aria-pressed", "true")
    screen.shown("noise")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")


def test_a_job_that_has_ended_says_with_how_many_workers(screen: Screen, database: Database) -> None:
    controller = play(database, screen.address)
    controller.report(started(), resized(64, (2, 3)), finished("cancelled"))
    page = screen.go(f"/jobs/{controller.job}")
    expect(tile(page, "Workers")).to_contain_text("ended with 3")


@pytest.mark.parametrize(
    ("part", "living", "ended"),
    [
        ("curves", "There are no curves yet", "There are no curves: it ended before its first steps."),
        ("logs", "There are no lines yet.", "No logs were kept."),
        ("files", "None yet", "None were kept"),
    ],
)
def test_of_a_job_that_has_ended_nothing_is_still_to_come(
    screen: Screen, database: Database, part: str, living: str, ended: str
) -> None:
    controller = play(database, screen.address)
    page = screen.go(f"/jobs/{controller.job}/{part}")
    expect(page.get_by_text(living)).to_be_visible()
    controller.report(started(), finished("cancelled"))
    expect(page.get_by_text(ended)).to_be_visible()
    expect(page.get_by_text(re.compile(r"\byet\b"))).to_have_count(0)
    screen.shown(f"ended-{part}")


def test_from_a_job_that_is_not_there_a_link_leads_back(screen: Screen) -> None:
    page = screen.go("/jobs/nosuch")
    expect(page.get_by_text("There is no job nosuch, by id or by name")).to_be_visible()
    screen.shown("missing")
    page.get_by_role("link", name="See the jobs").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


@pytest.mark.parametrize("name", ["digits", "vision/digits 2", 40 * "d"])
def test_the_name_of_one_job_leads_to_it(screen: Screen, database: Database, name: str) -> None:
    controller = play(database, screen.address, name=name)
    play(database, screen.address, name=f"{name} of another")
    screen.go("/jobs")
    page = screen.go(f"/jobs/{name}/events")
    expect(page).to_have_url(re.compile(f"#/jobs/{controller.job}/events$"))
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    page.go_back()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


def test_the_name_of_several_jobs_leads_to_a_choice(screen: Screen, database: Database) -> None:
    jobs = [play(database, screen.address).job for _ in range(2)]
    page = screen.go("/jobs/digits")
    expect(page.get_by_role("heading", level=1)).to_have_text("2 jobs are named digits")
    screen.shown("named")
    assert not screen.overflows()
    page.get_by_role("link", name=jobs[0]).click()
    expect(page).to_have_url(re.compile(jobs[0]))
    expect(page.get_by_role("heading", level=1)).to_contain_text("digits")


@pytest.mark.parametrize("name", ["digits*", "100%", "a/b"])
def test_a_name_that_no_job_has_is_not_found(screen: Screen, database: Database, name: str) -> None:
    play(database, screen.address)
    page = screen.go(f"/jobs/{name}")
    expect(page.get_by_text(f"There is no job {name}, by id or by name")).to_be_visible()


def test_times_say_their_zone_and_the_day_where_it_is_another(screen: Screen, database: Database) -> None:
    controller = play(database, screen.address)
    controller.report(started() | {"at": "2026-01-02T03:04:05Z"})
    page = screen.go(f"/jobs/{controller.job}/events")
    time = page.locator("time[datetime^='2026-01-02']")
    expect(time).to_have_text(re.compile(r"^2026-01-0[123] \d\d:04:05$"))
    expect(time).to_have_attribute("title", re.compile(r"^2026-01-0[123]T\d\d:04:05[+-]\d\d:\d\d$"))


def asked_to_cancel(screen: Screen, job: str) -> Locator:
    page = screen.go(f"/jobs/{job}")
    page.get_by_role("button", name="Cancel job").click()
    return page.get_by_role("dialog")


def save(controller: Controller, storage: str, samples: int) -> None:
    """A checkpoint, as a worker writes and announces it."""
    name = f"{samples:015d}"
    tensors = (f"{group}-0123456789abcdef.safetensors" for group in ("ema", "model", "optimizer"))
    for file in ("manifest.json", *tensors):
        path = Path(storage, controller.job, "checkpoints", name, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    controller.report({"type": "checkpoint_saved", "samples": samples, "name": name, "bytes": 1000 + samples})


def test_to_cancel_a_job_says_which_checkpoints_stay(screen: Screen, database: Database, tmp_path: Path) -> None:
    controller = play(database, screen.address, checkpoint={"every": "1 epochs"})
    controller.report(started(), {"type": "committed", "start": 0, "stop": 3000})
    for samples in (1000, 2000):
        save(controller, Settings(data_folder=tmp_path).storage_url, samples)
    dialog = asked_to_cancel(screen, controller.job)
    expect(dialog).to_contain_text(re.compile(r"2 checkpoints stay, the last of sample 2.000; what it learned since"))
    expect(dialog).not_to_contain_text("checkpoint.every")
    for part in ("files", "events"):
        screen.go(f"/jobs/{controller.job}/{part}")
        expect(screen.page.get_by_text("000000000002000").first).to_be_visible()
        screen.shown(f"{part}-saved")


def test_checkpoints_fit_the_screen(screen: Screen, database: Database, tmp_path: Path) -> None:
    controller = play(database, screen.address)
    controller.report(started(), {"type": "committed", "start": 0, "stop": 3000})
    save(controller, Settings(data_folder=tmp_path).storage_url, 2000)
    page = screen.go(f"/jobs/{controller.job}/files")
    table = page.get_by_role("region", name="Checkpoints")
    for width in (1280, WIDTHS["phone"]):
        page.set_viewport_size({"width": width, "height": 900})
        expect(table.get_by_role("link", name="optimizer", exact=True)).to_be_in_viewport(ratio=1)
        assert table.evaluate("region => region.scrollWidth - region.clientWidth") == 0
    link = table.get_by_role("link", name="ema", exact=True)
    expect(link).to_have_attribute("title", "ema-0123456789abcdef.safetensors")
    expect(link).to_have_attribute("href", re.compile("/ema-0123456789abcdef.safetensors$"))


def test_to_cancel_a_job_that_trains_says_what_is_lost(screen: Screen, database: Database) -> None:
    controller = play(database, screen.address)
    controller.report(started(), {"type": "committed", "start": 0, "stop": 3000})
    dialog = asked_to_cancel(screen, controller.job)
    expect(dialog).to_contain_text("It has no checkpoint, so its weights are lost.")
    expect(dialog).to_contain_text("checkpoint.every is not set")
    expect(dialog).to_contain_text("pause it instead")
    screen.shown("cancel")


def test_to_cancel_a_job_that_has_not_trained_loses_nothing(screen: Screen) -> None:
    job = httpx.post(f"{screen.address}/v1/jobs", json=spec()).raise_for_status().json()["id"]
    expect(asked_to_cancel(screen, job)).to_contain_text("nothing else is lost")
