"""The same roles where namespaces are not permitted: each machine is a loopback address."""

from __future__ import annotations

from pathlib import Path

from tests.following import FollowedJob, spec
from tests.topology.cluster import cluster
from tests.topology.images import Image


def test_a_job_trains_across_loopback_addresses(images: dict[str, Image], postgres_binaries: Path) -> None:
    with cluster(images, postgres_binaries, namespaces=False) as made:
        made.start("head", "head")
        for name in ("first", "second"):
            made.worker(name)
        made.serve()
        made.has_workers("first", "second")
        asked = spec(elasticity={"workers": [2, 2]}, checkpoint={"every": "4 epochs"})
        job = FollowedJob(lambda: made.client, made.client.submit(asked).id)
        job.ends()
        job.assert_exactly_once()
