"""What is around the jobs: recipes, the cluster, and whether the service is well."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from api_schemas.views import ClusterView, Node, QueuedJob, RecipeInfo
from service.roster import Roster
from tests.service.world import START, World, problem, spec

NODE = Node(id="n1", address="10.0.0.1", alive=True, cpu=4, gpu=1, cpu_used=2, gpu_used=0)


def picture(world: World, **changes: Any) -> None:
    """The reconciler writes down what it sees now."""
    seen: dict[str, Any] = {"connected": True, "seen_at": world.clock.now, "nodes": [NODE], "queue": []}
    Roster(world.database).write_cluster(ClusterView(**seen | changes))


def test_the_catalogue_by_name(world: World) -> None:
    assert world.get("/v1/recipes") == {"items": [], "next": None}
    names = ("classify", "byol")
    recipes = [RecipeInfo(name=name, summary=f"It is {name}.", config_schema={"type": "object"}) for name in names]
    Roster(world.database).write_recipes(recipes)
    assert world.get("/v1/recipes")["items"] == [
        {"name": "byol", "summary": "It is byol.", "config_schema": {"type": "object"}, "needs_ema": False},
        {"name": "classify", "summary": "It is classify.", "config_schema": {"type": "object"}, "needs_ema": False},
    ]


def test_a_recipe_of_the_catalogue(world: World) -> None:
    row = RecipeInfo(name="byol", summary="It is byol.", config_schema={"type": "object"})
    Roster(world.database).write_recipes([row])
    assert world.get("/v1/recipes/byol") == row.model_dump()
    problem(world.http.get("/v1/recipes/a%00b"), 422, "invalid_request")


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/readyz", "/metrics"])
def test_a_probe_may_ask_for_the_head_alone(world: World, path: str) -> None:
    head, whole = world.http.head(path), world.http.get(path)
    assert (head.status_code, head.headers["content-type"]) == (200, whole.headers["content-type"])


def test_the_cluster_as_it_was_last_seen(world: World) -> None:
    waiting = QueuedJob(id="j1", name="digits", priority=2, message="Needs 4 workers of 1 CPU.")
    picture(world, queue=[waiting])
    assert world.get("/v1/cluster") == {
        "connected": True,
        "seen_at": START.isoformat().replace("+00:00", "Z"),
        "nodes": [NODE.model_dump()],
        "queue": [waiting.model_dump()],
    }


def test_a_cluster_that_was_never_seen(world: World) -> None:
    assert world.get("/v1/cluster") == {"connected": False, "seen_at": None, "nodes": [], "queue": []}


def test_that_the_cluster_was_seen_again_is_no_change(world: World) -> None:
    picture(world)
    tag = world.http.get("/v1/cluster").headers["etag"]
    world.clock.move(5)
    picture(world)
    assert world.http.get("/v1/cluster", headers={"If-None-Match": tag}).status_code == 304
    world.clock.move(31)
    assert world.http.get("/v1/cluster", headers={"If-None-Match": tag}).json()["connected"] is False
    picture(world, nodes=[])
    assert world.http.get("/v1/cluster", headers={"If-None-Match": tag}).json()["nodes"] == []


@pytest.mark.parametrize(("age", "connected"), [(0, True), (30, True), (31, False)])
def test_an_old_picture_counts_as_not_connected(world: World, age: int, connected: bool) -> None:
    picture(world)
    world.clock.move(age)
    assert world.get("/v1/cluster")["connected"] is connected
    assert world.get("/readyz")["status"] == ("ok" if connected else "degraded")


def test_ready_with_all_that_it_needs(world: World) -> None:
    picture(world)
    assert world.get("/readyz") == {"status": "ok", "checks": {"database": "ok", "cluster": "ok"}}


def test_without_the_cluster_degraded(world: World) -> None:
    assert world.get("/readyz")["checks"]["cluster"] == "not connected, never seen"
    picture(world, connected=False)
    assert world.get("/readyz") == {
        "status": "degraded",
        "checks": {"database": "ok", "cluster": "not connected, last seen at 2026-01-01T12:00:00+00:00"},
    }


def test_without_the_database_not_ready_but_alive(world: World) -> None:
    with world.database.engine.begin() as connection:
        connection.execute(text("DROP TABLE cluster"))
    problem(world.http.get("/readyz"), 503, "unavailable")
    assert world.get("/healthz") == {"status": "ok", "checks": {}}


def test_probes_may_add_what_they_like(world: World) -> None:
    assert world.http.get("/healthz?t=1").status_code == world.http.get("/readyz?t=1").status_code == 200


def test_a_job_may_need_more_than_the_cluster_has(world: World) -> None:
    """It waits until the cluster has grown: that is no error of the request."""
    picture(world)
    response = world.http.post("/v1/jobs", json=spec(elasticity={"workers": [50, 60]}))
    assert (response.status_code, response.json()["status"]["phase"]) == (201, "queued")
