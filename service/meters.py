"""What monitoring reads at /metrics, as Prometheus' text: the requests of this process, and what the database knows.

What comes from the database is the same whichever process is asked. Counts of resizes are those of the jobs that are
stored: deleting a job takes its own along, which Prometheus takes for a restart of the counter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import case
from sqlmodel import Session, col, func, select
from starlette.types import Scope

from api_schemas.errors import Unavailable
from api_schemas.views import RESUME, ClusterView, Phase
from service import surroundings
from service.db import Database
from service.tables import Job, ResizeRow

LATENCIES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
PAUSES_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
NO_ROUTE = "none"


class Meters:
    """Everything that is measured."""

    def __init__(self, database: Database) -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "emascale_http_request_seconds",
            "From a request to the first byte of its answer.",
            ["method", "route", "status"],
            buckets=LATENCIES_S,
            registry=self._registry,
        )
        self._registry.register(_Stored(database))

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """An answer has begun."""
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        self._requests.labels(scope["method"], route, status).observe(seconds)

    def text(self) -> bytes:
        """All of it, in the format of Prometheus. Blocks."""
        return generate_latest(self._registry)


class _Stored(Collector):
    """What the database knows; without it, that it does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        """Nothing: it would have to read the database for that."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read it all in one view."""
        try:
            with self._database.reading() as session:
                found = [*_jobs(session), *_resizes(session)]
            found += _cluster(surroundings.cluster(self._database))
        except Unavailable:
            yield _gauge("emascale_database_up", "Whether the database answers.", 0)
            return
        yield _gauge("emascale_database_up", "Whether the database answers.", 1)
        yield from found


def _jobs(session: Session) -> Iterator[Metric]:
    counted = dict(session.exec(select(Job.phase, func.count()).group_by(col(Job.phase))).all())
    jobs = GaugeMetricFamily("emascale_jobs", "Jobs that are stored.", labels=["phase"])
    for phase in Phase:
        jobs.add_metric([phase.value], counted.get(phase, 0))
    yield jobs
    workers, samples = session.exec(select(func.sum(Job.workers), func.sum(Job.samples))).one()
    yield _gauge("emascale_workers", "Workers that train.", workers or 0)
    yield _gauge("emascale_samples", "Samples that the stored jobs have trained on.", int(samples or 0))


def _resizes(session: Session) -> Iterator[Metric]:
    payload: Any = col(ResizeRow.payload)
    cause, pause_s = payload["cause"].as_string(), payload["pause_s"].as_float()
    lost = func.sum(payload["steps_lost"].as_integer())
    within = [func.sum(case((pause_s <= limit, 1), else_=0)) for limit in PAUSES_S]
    chosen: Any = select(cause, func.count(), func.sum(pause_s), lost, *within).group_by(cause)
    pauses = HistogramMetricFamily(
        "emascale_resize_pause_seconds",
        "How long resizes stopped training, those by which a paused job went on apart.",
        labels=["cause"],
    )
    steps = GaugeMetricFamily("emascale_resize_steps_lost", "Steps that resizes lost.", labels=["cause"])
    for name, count, total, steps_lost, *counts in session.exec(chosen):
        limits = zip((*map(str, map(float, PAUSES_S)), "+Inf"), (*map(int, counts), count), strict=True)
        if name != RESUME:  # as long as somebody wanted it to be
            pauses.add_metric([name], list(limits), sum_value=total)
        steps.add_metric([name], steps_lost)
    yield pauses
    yield steps


def _cluster(view: ClusterView) -> Iterator[Metric]:
    alive = [node for node in view.nodes if node.alive]
    yield _gauge("emascale_cluster_connected", "Whether the cluster was seen lately.", int(view.connected))
    yield _gauge("emascale_nodes", "Nodes that live.", len(alive))
    yield _gauge("emascale_nodes_draining", "Of them, those that are to leave.", sum(node.draining for node in alive))
    yield _gauge("emascale_jobs_waiting", "Jobs that wait for slots.", len(view.queue))
    slots = GaugeMetricFamily("emascale_slots", "CPUs and GPUs of the nodes.", labels=["resource"])
    used = GaugeMetricFamily("emascale_slots_used", "Of them, those in use.", labels=["resource"])
    for resource in ("cpu", "gpu"):
        slots.add_metric([resource], sum(getattr(node, resource) for node in alive))
        used.add_metric([resource], sum(getattr(node, f"{resource}_used") for node in alive))
    yield slots
    yield used


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=value)
