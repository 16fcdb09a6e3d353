"""The guard: pages of other sites reach nothing, whatever name or method they use; and what browsers are told."""

from __future__ import annotations

import httpx
import pytest
from anyio.from_thread import BlockingPortal

from service.app import create_app
from service.guard import HEADERS
from service.reference import POLICY
from tests.service.world import ADDRESS, InProcess, World, problem, spec


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:8000", "[::1]", "localhost:1"]
)
def test_names_of_this_machine_are_served(world: World, host: str) -> None:
    assert world.http.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "evil.example:localhost",
        "127.0.0.1.evil.example:8000",
        "127.0.0.2",
        "0.0.0.0",
        "[::",
        "localhost@evil.example",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/v1/jobs", "/nothing", "/docs"])
def test_other_names_that_lead_here_are_refused(world: World, host: str, path: str) -> None:
    detail = problem(world.http.get(path, headers={"Host": host}), 403, "forbidden")["detail"]
    assert "must be one of 127.0.0.1, ::1, localhost." in detail
    assert "EMASCALE_ALLOWED_HOSTS" in detail


def test_the_address_that_is_listened_on_is_a_name_too(world: World, portal: BlockingPortal) -> None:
    app = create_app(world.settings.model_copy(update={"host": "127.0.0.7"}), world.database)
    with httpx.Client(transport=InProcess(app, portal), base_url="http://127.0.0.7:8000") as http:
        assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9000", "http://localhost:8000", "null", "http://127.0.0.1"]
)
@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("POST", "/cancel"), ("PATCH", ""), ("DELETE", "")])
def test_a_page_of_another_site_changes_nothing(world: World, origin: str, method: str, path: str) -> None:
    job = world.submit()
    address = "/v1/jobs" if (method, path) == ("POST", "") else f"/v1/jobs/{job}{path}"
    response = world.http.request(method, address, json=spec(), headers={"Origin": origin})
    problem(response, 403, "forbidden")
    assert [row["status"]["phase"] for row in world.get("/v1/jobs")["items"]] == ["queued"]


def test_the_own_page_may_change_things(world: World) -> None:
    response = world.http.post("/v1/jobs", json=spec(), headers={"Origin": ADDRESS})
    assert response.status_code == 201


def test_what_other_pages_may_ask_they_may_not_read(world: World) -> None:
    response = world.http.get("/v1/jobs", headers={"Origin": "http://evil.example"})
    assert not [name for name in response.headers if name.startswith("access-control-")]
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"}
    refused = world.http.options("/v1/jobs/x", headers=preflight)
    assert refused.status_code == 405
    assert not [name for name in refused.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/recipes/a:B?py_modules=http://evil.example/a.zip", "/nothing"])
def test_what_another_page_loads_or_opens_is_not_even_looked_at(world: World, site: str, path: str) -> None:
    """An image of another site needs no right to be asked for, and its address may name code to import."""
    problem(world.http.get(path, headers={"Sec-Fetch-Site": site}), 403, "forbidden")


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz"])
def test_another_page_may_lead_to_the_dashboard(world: World, path: str) -> None:
    assert world.http.get(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_own_page_and_whoever_types_an_address_may_look(world: World, site: str) -> None:
    assert world.http.get("/v1/jobs", headers={"Sec-Fetch-Site": site}).status_code == 200


def test_a_form_of_another_site_cannot_submit(world: World) -> None:
    """Browsers send these kinds of body without asking; some leave out the Origin."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = world.http.post("/v1/jobs", content="{}", headers={"Content-Type": kind})
        problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("path", "headers"), [("/healthz", {}), ("/docs", {}), ("/nothing", {}), ("/healthz", {"Host": "evil.example"})]
)
def test_every_answer_tells_browsers_what_not_to_do(world: World, path: str, headers: dict[str, str]) -> None:
    answered = world.http.get(path, headers=headers).headers
    policy = {"/docs": POLICY}.get(path, HEADERS["Content-Security-Policy"])
    assert {name: answered[name] for name in HEADERS} == HEADERS | {"Content-Security-Policy": policy}
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy
    assert "unsafe" not in policy


def test_no_answer_is_kept_without_asking_again(world: World) -> None:
    job = world.submit()
    for path in ("/v1/jobs", f"/v1/jobs/{job}", f"/v1/jobs/{job}/events", "/v1/cluster", "/nothing"):
        assert world.http.get(path).headers["cache-control"] == "no-cache"
