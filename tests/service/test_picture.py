"""The cluster as it changes, over a real connection: nodes that changed, and the order and the queue where they did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st

from api_schemas.stream import Message, lines, messages
from api_schemas.views import ClusterChanges, ClusterView, Node, QueuedJob
from service.picture import changes
from service.roster import Roster
from tests.service.world import START, World

LIVE = {"Accept": "text/event-stream"}


def node(name: str, **changed: Any) -> Node:
    known = {"address": "10.0.0.1", "alive": True, "cpu": 4, "gpu": 0, "cpu_used": 2, "gpu_used": 0}
    return Node(**{"id": name} | known | changed)


def waiting(name: str) -> QueuedJob:
    return QueuedJob(id=name, name=name, priority=0, message="Needs 4 workers of 1 CPU.")


def picture(world: World, nodes: list[Node], queue: list[QueuedJob] | None = None, *, connected: bool = True) -> None:
    """The reconciler writes down what it sees now."""
    view = ClusterView(connected=connected, seen_at=world.clock.now, nodes=nodes, queue=queue or [])
    Roster(world.database).write_cluster(view)


@contextmanager
def listening(wire: httpx.Client) -> Iterator[Iterator[Message]]:
    with wire.stream("GET", "/v1/cluster", headers=LIVE) as response:
        assert response.status_code == 200
        yield messages(lines(response.iter_text()))


def news(stream: Iterator[Message]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(next(stream).data)
    return told


def test_it_begins_with_the_whole(world: World, wire: httpx.Client) -> None:
    picture(world, [node("a"), node("b")], [waiting("j1")])
    with listening(wire) as stream:
        assert news(stream) == world.get("/v1/cluster") | {"ids": ["a", "b"]}


def test_one_that_was_never_seen(wire: httpx.Client) -> None:
    with listening(wire) as stream:
        assert news(stream) == {"connected": False, "seen_at": None, "nodes": [], "ids": [], "queue": []}


def test_a_change_is_the_node_alone(world: World, wire: httpx.Client) -> None:
    picture(world, [node("a"), node("b")], [waiting("j1")])
    with listening(wire) as stream:
        news(stream)
        picture(world, [node("a"), node("b", cpu_used=3)], [waiting("j1")])
        told = news(stream)
        assert (told["nodes"], told["ids"], told["queue"]) == ([node("b", cpu_used=3).model_dump()], None, None)
        picture(world, [node("b", cpu_used=3)], [waiting("j1")])
        told = news(stream)
        assert (told["nodes"], told["ids"], told["queue"]) == ([], ["b"], None)
        picture(world, [node("b", cpu_used=3)])
        told = news(stream)
        assert (told["nodes"], told["ids"], told["queue"]) == ([], None, [])


def test_a_cluster_that_is_lost(world: World, wire: httpx.Client) -> None:
    picture(world, [node("a")])
    with listening(wire) as stream:
        assert news(stream)["connected"] is True
        world.clock.move(31)  # since when nobody has seen it
        told = news(stream)
    assert (told["connected"], told["nodes"], told["ids"]) == (False, [], None)


views = st.builds(
    ClusterView,
    connected=st.booleans(),
    seen_at=st.just(START),
    nodes=st.lists(
        st.builds(node, st.sampled_from("abcd"), cpu_used=st.integers(0, 2)), unique_by=lambda each: each.id
    ),
    queue=st.lists(st.builds(waiting, st.sampled_from("xyz")), unique_by=lambda each: each.id),
)


@given(st.lists(views, min_size=1, max_size=6))
def test_who_adds_up_what_is_told_sees_what_there_is(seen: list[ClusterView]) -> None:
    shown = told = None
    for view in seen:
        news = changes(told, view)
        assert (news is None) == (view == told)
        shown, told = added(shown, news), view
        assert shown == view


def added(shown: ClusterView | None, news: ClusterChanges | None) -> ClusterView | None:
    """As the dashboard adds it up."""
    if news is None:
        return shown
    nodes = shown.nodes if shown else []
    known = {each.id: each for each in [*nodes, *news.nodes]}
    order = news.ids if news.ids is not None else [each.id for each in nodes]
    queue = news.queue if news.queue is not None else shown.queue if shown else []
    return ClusterView(
        connected=news.connected, seen_at=news.seen_at, nodes=[known[each] for each in order], queue=queue
    )
