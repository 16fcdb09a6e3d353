"""The same roles where namespaces are not permitted: each machine is a loopback address."""

from __future__ import annotations

import pytest

from tests.following import FollowedJob, spec
from tests.postgres import HOW_TO_GET_IT, binaries
from tests.topology.cluster import cluster
from tests.topology.images import Image


def test_a_job_trains_across_loopback_addresses(images: dict[str, Image]) -> None:
    found = binaries()
    if found is None:
        pytest.skip(HOW_TO_GET_IT)
    with cluster(images, found, namespaces=False) as (made, database_url):
        made.start("head", "head")
        for name in ("first", "second"):
            made.worker(name)
        made.serve(database_url)
        made.has_workers("first", "second")
        asked = spec(elasticity={"workers": [2, 2]}, checkpoint={"every": "4 epochs"})
        job = FollowedJob(lambda: made.client, made.client.submit(asked).id)
        job.ends()
        job.assert_exactly_once()
