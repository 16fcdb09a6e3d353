"""A page of jobs as it changes, over a real connection: rows that changed, and the order where it did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from api_schemas.stream import Message, lines, messages
from service.changes import OVERLAP
from tests.service.world import World, committed, pointers

LIVE = {"Accept": "text/event-stream"}


@contextmanager
def listening(wire: httpx.Client, query: str = "", **headers: str) -> Iterator[Iterator[Message]]:
    with wire.stream("GET", f"/v1/jobs{query}", headers=LIVE | headers) as response:
        assert response.status_code == 200
        yield messages(lines(response.iter_text()))


def news(stream: Iterator[Message]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(next(stream).data)
    return told


def ids(told: dict[str, Any]) -> list[str]:
    return [row["id"] for row in told["items"]]


def test_it_begins_with_the_page(world: World, wire: httpx.Client) -> None:
    world.submit()
    world.submit()
    page = world.get("/v1/jobs")
    with listening(wire) as stream:
        told = news(stream)
    assert told == page | {"ids": [row["id"] for row in page["items"]]}


def test_a_change_is_the_row_alone(world: World, wire: httpx.Client) -> None:
    world.submit()
    controller = world.run()
    with listening(wire) as stream:
        news(stream)
        controller.report(committed(0, 640))
        told = news(stream)
    assert told["ids"] is None
    assert [(row["id"], row["progress"]["samples"]) for row in told["items"]] == [(controller.job, 640)]


def test_a_new_job_comes_with_the_new_order(world: World, wire: httpx.Client) -> None:
    first = world.submit()
    with listening(wire) as stream:
        news(stream)
        second = world.submit()
        told = news(stream)
    assert (ids(told), told["ids"]) == ([second], [second, first])


def test_what_leaves_the_page_is_missing_in_the_order(world: World, wire: httpx.Client) -> None:
    first, second = world.submit(), world.submit()
    with listening(wire, "?status=queued") as stream:
        assert news(stream)["ids"] == [second, first]
        world.http.post(f"/v1/jobs/{second}/cancel")
        assert news(stream) == {"items": [], "ids": [first], "next": None}
        world.lose(first)
        assert news(stream) == {"items": [], "ids": [], "next": None}


def test_resumed_it_says_what_changed_meanwhile(world: World, wire: httpx.Client) -> None:
    quiet, busy, lost = world.submit(), world.submit(), world.submit()
    world.clock.move(60)
    with listening(wire) as stream:
        heard = next(stream).id
    world.clock.move(60)
    world.http.patch(f"/v1/jobs/{busy}", json={"priority": 3})
    world.lose(lost)
    with listening(wire, **{"Last-Event-ID": heard}) as stream:
        told = news(stream)
    assert (ids(told), told["ids"]) == ([busy], [busy, quiet])


def test_resumed_it_says_what_came_onto_the_page_from_beyond_its_end(world: World, wire: httpx.Client) -> None:
    beyond, quiet, lost = world.submit(), world.submit(), world.submit()
    world.clock.move(60)
    with listening(wire, "?limit=2") as stream:
        heard = next(stream).id
    world.clock.move(60)
    world.lose(lost)
    with listening(wire, "?limit=2", **{"Last-Event-ID": heard}) as stream:
        told = news(stream)
    assert (ids(told), told["ids"]) == ([beyond], [quiet, beyond])


def test_resumed_it_looks_a_little_behind_its_cursor(world: World, wire: httpx.Client) -> None:
    """What was being committed while the page was read may be dated before."""
    job = world.submit()
    world.clock.move(OVERLAP.total_seconds() / 2)
    with listening(wire) as stream:
        heard = next(stream).id
    with listening(wire, **{"Last-Event-ID": heard}) as stream:
        assert ids(news(stream)) == [job]


@pytest.mark.parametrize("cursor", ["99999999999999", "999999999999999999"])
def test_a_cursor_from_the_future_is_now(world: World, wire: httpx.Client, cursor: str) -> None:
    job = world.submit()
    with listening(wire, **{"Last-Event-ID": cursor}) as stream:
        assert news(stream)["ids"] == [job]


def test_a_page_further_back_is_live_too(world: World, wire: httpx.Client) -> None:
    jobs = [world.submit() for _ in range(3)]
    with listening(wire, f"?limit=1&after={jobs[2]}") as stream:
        told = news(stream)
        assert (told["ids"], told["next"]) == ([jobs[1]], jobs[1])
        world.http.patch(f"/v1/jobs/{jobs[0]}", json={"priority": 1})
        world.http.patch(f"/v1/jobs/{jobs[1]}", json={"priority": 1})
        assert ids(news(stream)) == [jobs[1]]


@pytest.mark.parametrize(
    ("query", "headers", "pointer"),
    [("?nonsense=1", {}, "?nonsense"), ("?label=x", {}, "?label"), ("", {"Last-Event-ID": "x"}, "Last-Event-ID")],
)
def test_a_wrong_parameter_is_named(world: World, query: str, headers: dict[str, str], pointer: str) -> None:
    assert list(pointers(world.http.get(f"/v1/jobs{query}", headers=LIVE | headers))) == [pointer]


# Many who look at the same page
