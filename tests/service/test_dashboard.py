"""The dashboard as it is served: whole, from here alone, and kept by browsers as long as it may be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.routes.dashboard import FOREVER, KINDS, POLICY, STATIC
from tests.service.world import World, problem

ASSETS = sorted((STATIC / "assets").iterdir())


def test_the_page_is_asked_for_each_time_and_may_load_from_here_alone(world: World) -> None:
    response = world.http.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "://" not in response.text
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", response.text)


def test_what_the_page_loads_is_there(world: World) -> None:
    addresses = re.findall(r'(?:src|href)="(/assets/[^"]+)"', world.http.get("/").text)
    assert {Path(address).suffix for address in addresses} == {".js", ".css", ".svg"}
    for address in addresses:
        assert world.http.get(address).status_code == 200


@pytest.mark.parametrize("file", ASSETS, ids=lambda file: file.suffix)
def test_an_asset_has_its_type_and_is_kept_for_good(world: World, file: Path) -> None:
    response = world.http.get(f"/assets/{file.name}")
    assert response.content == file.read_bytes()
    assert response.headers["content-type"].partition(";")[0] == KINDS[file.suffix]
    assert response.headers["cache-control"] == FOREVER
    assert response.headers["x-content-type-options"] == "nosniff"
    again = world.http.get(f"/assets/{file.name}", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/assets/x.js", "/assets/..%2findex.html", "/index.html"])
def test_nothing_else_is_served(world: World, path: str) -> None:
    problem(world.http.get(path), 404, "not_found")
