"""/metrics: what monitoring reads says what the API says, in the format of Prometheus."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from api_schemas.views import ClusterView
from service.roster import Roster
from tests.service.world import World, committed, finished, resized


def scraped(http: httpx.Client) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of their names...) -> value."""
    response = http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
    return {(each.name, *(each.labels[name] for name in sorted(each.labels))): each.value for each in samples}


def test_an_empty_service(world: World) -> None:
    found = scraped(world.http)
    assert found["emascale_database_up",] == 1
    assert found["emascale_cluster_connected",] == 0
    assert (found["emascale_workers",], found["emascale_samples",], found["emascale_jobs", "running"]) == (0, 0, 0)


def test_jobs_workers_and_samples(world: World) -> None:
    world.submit()
    controller, other = world.run(), world.run()
    controller.report(committed(0, 640))
    other.report(committed(0, 64), finished("failed"))
    found = scraped(world.http)
    phases = {phase: found["emascale_jobs", phase] for phase in ("queued", "running", "failed", "succeeded")}
    assert phases == {"queued": 1, "running": 1, "failed": 1, "succeeded": 0}
    assert (found["emascale_workers",], found["emascale_samples",]) == (2, 704)


def test_resizes_with_their_pauses(world: World) -> None:
    controller = world.run()
    for number, pause_s in enumerate((0.05, 0.06, 200.0)):
        controller.report(resized(64 * (number + 1), (2, 3)) | {"pause_s": pause_s, "steps_lost": number})
    cause = world.get(f"/v1/jobs/{controller.job}/resizes")["items"][0]["cause"]
    found = scraped(world.http)
    name = "emascale_resize_pause_seconds"
    limits = {limit: found[f"{name}_bucket", cause, limit] for limit in ("0.05", "0.1", "120.0", "+Inf")}
    assert limits == {"0.05": 1, "0.1": 2, "120.0": 2, "+Inf": 3}
    assert round(found[f"{name}_sum", cause], 6) == 200.11
    assert found["emascale_resize_steps_lost", cause] == 3


def test_how_long_a_user_had_a_job_paused_is_no_pause_of_a_resize(world: World) -> None:
    controller = world.run()
    controller.report(resized(64, (2, 3), cause="resume", pause_s=3600.0, steps_lost=1))
    controller.report(resized(128, (3, 2), cause="api", pause_s=0.1))
    found = scraped(world.http)
    assert {place[1] for place in found if place[0] == "emascale_resize_pause_seconds_count"} == {"api"}
    assert found["emascale_resize_steps_lost", "resume"] == 1


def test_the_cluster(world: World) -> None:
    node = {"id": "a", "address": "10.0.0.1", "alive": True, "cpu": 8, "gpu": 2, "cpu_used": 3, "gpu_used": 1}
    gone = node | {"id": "b", "alive": False}
    leaving = node | {"id": "c", "draining": True, "gpu": 0, "gpu_used": 0}
    waiting = {"id": "job", "name": "digits", "priority": 0, "message": "Waits."}
    view = {"connected": True, "seen_at": world.clock(), "nodes": [node, gone, leaving], "queue": [waiting]}
    Roster(world.database).write_cluster(ClusterView.model_validate(view))
    found = scraped(world.http)
    assert (found["emascale_nodes",], found["emascale_nodes_draining",]) == (2, 1)
    assert (found["emascale_slots", "cpu"], found["emascale_slots_used", "cpu"]) == (16, 6)
    assert (found["emascale_slots", "gpu"], found["emascale_slots_used", "gpu"]) == (2, 1)
    assert (found["emascale_jobs_waiting",], found["emascale_cluster_connected",]) == (1, 1)


def test_requests_are_counted_by_route_and_status_and_never_by_address(world: World) -> None:
    job = world.submit()
    tag = world.http.get(f"/v1/jobs/{job}").headers["etag"]
    world.http.get(f"/v1/jobs/{job}", headers={"If-None-Match": tag})
    world.http.get("/v1/jobs/nobody")
    world.http.get("/nowhere")
    found = scraped(world.http)
    count = "emascale_http_request_seconds_count"
    counted = {labels[1:]: value for labels, value in found.items() if labels[0] == count}
    assert counted == {
        ("POST", "/v1/jobs", "201"): 1,
        ("GET", "/v1/jobs/{job_id}", "200"): 1,
        ("GET", "/v1/jobs/{job_id}", "304"): 1,
        ("GET", "/v1/jobs/{job_id}", "404"): 1,
        ("GET", "none", "404"): 1,
    }
