"""The dashboard in a browser, before the real service with real jobs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from api_schemas.errors import NotFound
from api_schemas.views import Phase
from tests.dashboard.browser import Screen, chromium, needs_axe, needs_chromium
from tests.integration.stage import Job, Stage, staged

pytestmark = [
    needs_chromium,
    pytest.mark.timeout(400),
]

LONG = {
    "schedule": {"budget": "2000 epochs", "warmup": "2 epochs", "lr": "cosine"},
    "evaluation": {"every": "5 epochs"},
}
PROGRESS = re.compile(r"^[\d\s]+ of [\d\s]+ samples$")
IDLE_S = 30
IDLE_BYTES_A_MINUTE = 5000


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("stage"), slots=2) as stage:
        yield stage


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def screen(stage: Stage, browser: Browser) -> Iterator[Screen]:
    screen = Screen(browser, stage.address)
    yield screen
    screen.close()
    assert screen.complaints == []


@pytest.fixture(scope="module")
def ended(stage: Stage) -> Job:
    """A job that succeeded, after a change of size, with checkpoints and weights."""
    job = stage.submit(
        name="short",
        schedule={"budget": "1500 base_steps", "warmup": "50 base_steps", "lr": "cosine"},
        elasticity={"workers": [1, 2]},
        evaluation={"every": "2 epochs"},
        checkpoint={"every": "20 epochs"},
        labels={"team": "vision"},
    )
    job.trains_on(2)
    stage.client.resize(job.id, 1)
    job.ends()
    return job


def test_empty_screens_say_what_to_do(screen: Screen) -> None:
    page = screen.go("/jobs")
    expect(page.get_by_text("There are no jobs yet.")).to_be_visible()
    screen.shown("empty")
    page.get_by_role("link", name="Make the first one").click()
    expect(page.get_by_role("heading", name="New job")).to_be_visible()


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


def test_a_recipe_of_ones_own_has_a_form_where_the_service_can_import_it(screen: Screen) -> None:
    page = screen.go("/new")
    page.get_by_label("task").select_option("a class of my own")
    name = page.get_by_label("name", exact=True).last
    config = page.get_by_label("config", exact=True)
    name.fill("nowhere.to_be:Found")
    config.fill("width=32\nkinds=[1, 2]\ntitle=two words")
    page.get_by_role("button", name="As YAML").click()
    yaml = page.get_by_label("Job as YAML")
    expect(yaml).to_have_value(re.compile(r"width: 32\n"))
    assert "title: two words" in yaml.input_value()
    page.get_by_role("button", name="As a form").click()
    expect(config).to_have_value("width=32\nkinds=[1,2]\ntitle=two words")
    name.fill("workers.recipes.parabola:Parabola")
    expect(page.get_by_label("theta0")).to_be_visible()
    expect(page.get_by_text("Additional properties are not allowed").first).to_be_visible()
    config.fill("")
    expect(config).to_have_count(0)
    page.get_by_label("theta0").fill("2.5")
    page.get_by_role("button", name="As YAML").click()
    expect(yaml).to_have_value(re.compile("theta0: 2.5\n"))
    page.get_by_role("button", name="As a form").click()
    expect(page.get_by_label("theta0")).to_have_value("2.5")
    screen.shown("own-recipe")


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


def test_the_theme_is_chosen_and_kept(screen: Screen) -> None:
    page, html = screen.page, screen.page.locator("html")
    page.emulate_media(color_scheme="light")
    screen.go("/jobs")
    light = ground(page)
    page.get_by_role("button", name="Use the dark theme").click()
    expect(html).to_have_attribute("data-theme", "dark")
    assert ground(page) != light
    page.reload()
    expect(page.get_by_role("button", name="Use the light theme")).to_be_visible()
    assert ground(page) != light
    page.get_by_role("button", name="Use the light theme").click()
    assert ground(page) == light
    page.emulate_media(color_scheme="dark")  # nothing is chosen any more: it is as the system says
    expect(page.get_by_role("button", name="Use the light theme")).to_be_visible()


def ground(page: Page) -> str:
    """The colour of the page."""
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


@pytest.mark.usefixtures("ended")
def test_the_list_is_live_and_filtered(stage: Stage, screen: Screen) -> None:
    page = screen.go("/jobs")
    row = page.get_by_role("row").filter(has_text="short")
    expect(row).to_contain_text("succeeded")
    expect(row).to_contain_text("100 %")
    job = stage.submit(name="late", **LONG)
    late = page.get_by_role("row").filter(has_text="late")
    expect(late).to_contain_text("running")
    page.get_by_label("Label").select_option("team=vision")
    expect(late).to_have_count(0)
    expect(row).to_be_visible()
    page.get_by_label("Label").select_option("any label")
    expect(late).to_be_visible()
    page.get_by_label("Recipe").select_option("byol")
    expect(page.get_by_text("No job is like that.")).to_be_visible()
    page.get_by_label("Recipe").select_option("any recipe")
    page.get_by_label("Name begins with").fill("sho")
    expect(late).to_have_count(0)
    expect(row).to_be_visible()
    page.get_by_label("Status").select_option("active")
    expect(page.get_by_text("No job is like that.")).to_be_visible()
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)


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
    part(page, "Checkpoints", "ema.safetensors")
    with page.expect_download() as download:
        page.get_by_role("link", name="ema.safetensors").click()
    assert Path(download.value.path()).read_bytes() == ended.location("ema.safetensors").read_bytes()


def chart(page: Page, title: str) -> Locator:
    return page.get_by_role("img", name=re.compile(f"^{title} over"))


def part(page: Page, name: str, text: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_text(text).first).to_be_visible()


def test_the_cluster_and_why_a_job_waits(stage: Stage, screen: Screen) -> None:
    large = stage.submit(name="large", elasticity={"workers": [9, 9]})
    page = screen.go("/cluster")
    expect(page.get_by_text("of 2 slots in use")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    waits = page.get_by_role("region", name="Queue").get_by_role("row").filter(has_text="large")
    expect(waits).to_contain_text("9")
    screen.shown("cluster")
    stage.client.cancel(large.id)
    expect(waits).to_have_count(0)
    assert asked == [], "the stream tells it"


def test_by_keyboard_alone(stage: Stage, screen: Screen) -> None:
    job = stage.submit(name="by hand", elasticity={"workers": [9, 9]})
    page = screen.go("/jobs")
    heading = page.get_by_role("heading", level=1)
    press(page, page.get_by_role("link", name="by hand"))
    expect(heading).to_contain_text("by hand")
    press(page, page.get_by_role("button", name="Cancel job"))
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Cancel job")).to_be_focused()
    page.keyboard.press("Enter")
    press(page, page.get_by_role("button", name="Cancel the job"))
    expect(heading).to_contain_text("cancelled")
    job.ends(Phase.CANCELLED)


def test_a_question_that_was_just_closed_can_be_asked_again(screen: Screen, waiting: Job) -> None:
    """A dialog is closed before the page hears of it, and somebody may press its button in between."""
    page = screen.go(f"/jobs/{waiting.id}")
    button = page.get_by_role("button", name="Cancel job")
    button.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    button.evaluate("button => { document.querySelector('dialog').close(); button.click() }")
    page.wait_for_timeout(500)
    expect(page.get_by_role("dialog")).to_be_visible()


def press(page: Page, wanted: Locator) -> None:
    """Go there by Tab, and press Enter."""
    expect(wanted).to_be_visible()
    for _ in range(60):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            page.keyboard.press("Enter")
            return
    raise AssertionError("Tab never comes there")


@pytest.mark.usefixtures("ended")
def test_a_service_that_goes_and_comes_back(stage: Stage, browser: Browser) -> None:
    screen, other = Screen(browser, stage.address), Screen(browser, stage.address)
    page = screen.go("/jobs")
    expect(page.get_by_role("row").filter(has_text="short")).to_be_visible()
    trains = stage.submit(name="trains on", elasticity={"workers": [1, 2]}, **LONG)
    progress = other.go(f"/jobs/{trains.id}").get_by_text(PROGRESS)
    seen = progress.text_content() or ""
    expect(progress).not_to_have_text(seen)
    port = int(stage.address.rpartition(":")[2])
    stage.kill()
    try:
        for each in (screen, other):
            expect(each.page.get_by_text("The service does not answer.")).to_be_visible()
        screen.shown("away")
        seen = progress.text_content() or ""
    finally:
        stage.serve(port)
    for each in (screen, other):
        expect(each.page.get_by_text("The service does not answer.")).to_have_count(0)
    expect(progress).not_to_have_text(seen)
    stage.client.cancel(trains.id)
    expect(other.page.get_by_role("heading", level=1)).to_contain_text("cancelled")
    other.close()
    job = stage.submit(name="after the outage", elasticity={"workers": [9, 9]})
    expect(page.get_by_role("row").filter(has_text="after the outage")).to_be_visible()
    stage.client.cancel(job.id)
    screen.close()


def test_the_page_of_a_job_that_trains_hears_what_is_new_and_asks_for_nothing_whole(
    stage: Stage, screen: Screen
) -> None:
    asked: list[str] = []
    screen.page.on("request", lambda request: asked.append(request.url.removeprefix(stage.address)))
    job = stage.submit(name="watched", elasticity={"workers": [1, 2]}, **LONG)
    page = screen.go(f"/jobs/{job.id}")
    progress = page.get_by_text(PROGRESS)
    for _ in range(3):
        seen = progress.text_content() or ""
        expect(progress).not_to_have_text(seen)
    stage.client.cancel(job.id)
    expect(page.get_by_text("cancelled", exact=True)).to_be_visible()
    trained = asked[: asked.index(f"/v1/jobs/{job.id}")] if f"/v1/jobs/{job.id}" in asked else asked
    assert len([path for path in trained if "/metrics?" in path]) > 2, "curves grow by what is new"
    assert asked.count(f"/v1/jobs/{job.id}") <= 1, "at most once, when the stream has ended"


def test_where_no_stream_gets_through_it_asks(stage: Stage, screen: Screen, ended: Job) -> None:
    screen.page.route("**/v1/**", without_streams)
    page = screen.go("/jobs")
    expect(page.get_by_role("row").filter(has_text="short")).to_be_visible()
    job = stage.submit(name="unheard", elasticity={"workers": [9, 9]})
    expect(page.get_by_role("row").filter(has_text="unheard")).to_be_visible()
    screen.go("/cluster")
    expect(page.get_by_role("row").filter(has_text="unheard")).to_be_visible()
    stage.client.cancel(job.id)
    expect(page.get_by_role("row").filter(has_text="unheard")).to_have_count(0)
    screen.go(f"/jobs/{ended.id}/events")
    expect(page.get_by_text("succeeded: ")).to_be_visible()


def without_streams(route: Route) -> None:
    if route.request.resource_type == "eventsource":
        route.abort()
    else:
        route.continue_()


@pytest.fixture
def waiting(stage: Stage) -> Iterator[Job]:
    """A job that the cluster has no room for."""
    job = stage.submit(name="waiting", elasticity={"workers": [9, 9]})
    job.until(lambda view: view.status.code != "submitted")
    yield job
    stage.client.cancel(job.id)


IDLE = {"/jobs": "waiting", "/jobs/{id}": "Needs 9 workers", "/jobs/{id}/events": "submitted", "/cluster": "waiting"}
"""Pages, and what can be read there."""


def test_idle_pages_cost_next_to_nothing(stage: Stage, browser: Browser, waiting: Job) -> None:
    screens = {place: Screen(browser, stage.address) for place in IDLE}
    for place, screen in screens.items():
        page = screen.go(place.format(id=waiting.id))
        expect(page.get_by_text(IDLE[place]).first).to_be_visible()
    page.wait_for_timeout(5000)
    before = {place: screen.received for place, screen in screens.items()}
    assert min(before.values()) > 0
    page.wait_for_timeout(1000 * IDLE_S)
    a_minute = {place: (screen.received - before[place]) * 60 // IDLE_S for place, screen in screens.items()}
    for screen in screens.values():
        screen.close()
        assert screen.complaints == []
    assert max(a_minute.values()) < IDLE_BYTES_A_MINUTE, a_minute
    print(a_minute)


SCREENS = {
    "jobs": "/jobs",
    "new": "/new",
    "cluster-idle": "/cluster",
    "curves": "/jobs/{id}",
    "resizes": "/jobs/{id}/resizes",
    "events": "/jobs/{id}/events",
    "logs": "/jobs/{id}/logs",
    "files": "/jobs/{id}/files",
    "spec": "/jobs/{id}/spec",
}


@needs_axe
@pytest.mark.parametrize("name", SCREENS)
def test_everybody_can_use_it(screen: Screen, ended: Job, name: str) -> None:
    page = screen.go(SCREENS[name].format(id=ended.id))
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.wait_for_timeout(1000)
    screen.shown(name)
    assert not screen.overflows()
    assert screen.barriers() == []


def test_charts_never_make_the_page_wider_than_it_is(screen: Screen, ended: Job) -> None:
    """Not even until they are drawn anew."""
    page = screen.go(f"/jobs/{ended.id}/curves")
    expect(page.get_by_role("img").first).to_be_visible()
    page.locator(".plot canvas").first.evaluate("canvas => { canvas.closest('.uplot').style.width = '1440px' }")
    assert not screen.overflows()


@needs_axe
@pytest.mark.parametrize("name", ["Resize", "Pause", "Cancel job"])
def test_everybody_can_answer_a_question(screen: Screen, waiting: Job, name: str) -> None:
    page = screen.go(f"/jobs/{waiting.id}")
    page.get_by_role("button", name=name, exact=True).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert screen.barriers() == []
