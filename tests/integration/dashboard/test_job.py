"""The page of a job in a browser: from the form to its end, and what is done with it on the way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from api_schemas.errors import NotFound
from api_schemas.views import Phase
from tests.dashboard.browser import Screen, needs_chromium
from tests.integration.stage import LONG, Job, Stage

pytestmark = [needs_chromium, pytest.mark.timeout(400)]


def test_a_job_from_the_form_to_its_change_of_size_and_its_end(stage: Stage, screen: Screen) -> None:
    page = screen.go("/new")
    submit_from_the_form(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("running")
    job = Job(stage, page.url.rpartition("/")[2])
    job.trains_on(2)
    expect(chart(page, "Loss")).to_be_visible()

    page.get_by_role("button", name="Resize").click()
    page.get_by_label("Workers (1 to 2)").fill("7")
    expect(page.get_by_text("This job may have 1 to 2 workers.")).to_be_visible()
    page.get_by_label("Workers (1 to 2)").fill("1")
    expect(page.get_by_role("row", name="workers 2 1")).to_be_visible()
    screen.shown("resize")
    page.get_by_role("dialog").get_by_role("button", name="Resize").click()

    page.get_by_role("link", name="Resizes").click()
    expect(page.get_by_role("row").filter(has_text="2 → 1")).to_contain_text("0 steps")
    assert job.rows()[-1].workers == (2, 1)

    another = stage.submit(name="another", elasticity={"workers": [9, 9]})
    screen.go(f"/jobs/{another.id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("another")
    page.get_by_role("button", name="Cancel job").click()
    screen.shown("cancel")
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled")
    another.ends(Phase.CANCELLED)
    screen.go(f"/jobs/{job.id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("running")
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)


def submit_from_the_form(page: Page) -> None:
    page.get_by_label("name", exact=True).fill("from the form")
    page.get_by_label("budget").fill("2000 eons")
    expect(page.locator(".field", has_text="budget").locator(".error")).to_contain_text("must read", ignore_case=True)
    page.get_by_label("budget").fill("2000 epochs")
    page.get_by_label("workers, 2 of 2").fill("2")
    expect(page.get_by_role("region", name="Sizes").get_by_role("row")).to_have_count(3)
    page.get_by_role("button", name="As YAML").click()
    yaml = page.get_by_label("Job as YAML")
    expect(yaml).to_have_value(re.compile("name: from the form"))
    yaml.fill(f"{yaml.input_value()}priority: 3\n")
    page.get_by_role("button", name="As a form").click()
    page.get_by_text("More: scaling").click()
    expect(page.get_by_label("priority")).to_have_value("3")
    page.get_by_role("button", name="Submit").click()


def test_a_job_is_paused_and_goes_on(stage: Stage, screen: Screen) -> None:
    job = stage.submit(name="napping", elasticity={"workers": [1, 2]}, **LONG)
    job.trains_on(2)
    page = screen.go(f"/jobs/{job.id}")
    heading = page.get_by_role("heading", level=1)
    page.get_by_role("button", name="Pause").click()
    screen.shown("pause")
    page.get_by_role("button", name="Pause the job").click()
    expect(heading).to_contain_text("paused")
    expect(page.get_by_text("Paused at sample")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    screen.shown("paused")
    page.get_by_role("button", name="Resume").click()
    expect(heading).to_contain_text("running")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    assert job.trains_on(2).generation > 0
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)


def test_a_job_that_has_ended_is_deleted(stage: Stage, screen: Screen) -> None:
    job = stage.submit(name="unwanted", elasticity={"workers": [9, 9]})
    stage.client.cancel(job.id)
    page = screen.go(f"/jobs/{job.id}")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Delete").click()
    screen.shown("delete")
    page.get_by_role("button", name="Delete it all").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="unwanted")).to_have_count(0)
    with pytest.raises(NotFound):
        stage.client.job(job.id)


def test_a_job_is_the_template_of_another(stage: Stage, screen: Screen, ended: Job) -> None:
    page = screen.go(f"/jobs/{ended.id}")
    page.get_by_role("link", name="Use as template").click()
    expect(page.get_by_label("budget")).to_have_value("1500 base_steps")
    page.get_by_label("name", exact=True).fill("again")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("again")
    again = Job(stage, page.url.rpartition("/")[2])
    assert again.id != ended.id
    assert again.view.spec == ended.view.spec.model_copy(update={"name": "again"})
    stage.client.cancel(again.id)
    again.ends(Phase.CANCELLED)


def test_the_parts_of_a_job_that_has_ended(screen: Screen, ended: Job) -> None:
    page = screen.go(f"/jobs/{ended.id}")
    for title in ("Loss", "Evaluation: accuracy", "World size", "Kappa", "Learning rate", "EMA momentum", "Throughput"):
        expect(chart(page, title)).to_be_visible()
    chart(page, "Loss").press("Home")
    expect(page.locator("figure", has_text="Learning rate").locator(".at")).to_be_visible()
    part(page, "Events", "exported: ")
    page.wait_for_load_state("networkidle")
    happened = page.locator(".events .kind").all_text_contents()
    assert happened.count("submitted") == happened.count("started") == happened.count("exported") == 1
    part(page, "Logs", "worker w0 of job")
    part(page, "Spec", "per_worker: 64")
    part(page, "Files", "ema.safetensors")
    with page.expect_download() as download:
        page.get_by_role("link", name="ema.safetensors").click()
    assert Path(download.value.path()).read_bytes() == ended.location("ema.safetensors").read_bytes()


def chart(page: Page, title: str) -> Locator:
    return page.get_by_role("img", name=re.compile(f"^{title} over"))


def part(page: Page, name: str, text: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_text(text).first).to_be_visible()


def test_charts_never_make_the_page_wider_than_it_is(screen: Screen, ended: Job) -> None:
    """Not even until they are drawn anew."""
    page = screen.go(f"/jobs/{ended.id}/curves")
    expect(page.get_by_role("img").first).to_be_visible()
    page.locator(".plot canvas").first.evaluate("canvas => { canvas.closest('.uplot').style.width = '1440px' }")
    assert not screen.overflows()
