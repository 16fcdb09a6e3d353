"""A job as its user calls it: by its id, the beginning of that, or its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anyio.from_thread import BlockingPortal

from api_schemas import Client
from api_schemas.errors import InvalidRequest, NotFound
from service.app import create_app
from tests.service.world import ADDRESS, InProcess, World, spec

JOBS = {
    "1k1fg9wpnmr0000z": "a",
    "1k1fg9wpnmr00010": "1k1fg9wpnmr0000z",
    "1k1fg9wpnmrzzzzz": "1k",
    "1k1fg9x000000000": "b",
}
"""Names by id: some names are like ids."""


@pytest.fixture
def client(world: World, portal: BlockingPortal) -> Iterator[Client]:
    ids = iter(JOBS)
    app = create_app(world.settings, world.database, new_job_id=lambda: next(ids))
    with Client(ADDRESS, transport=InProcess(app, portal)) as client:
        for job, name in JOBS.items():
            assert client.submit(spec(name=name)).id == job
        yield client


@pytest.mark.parametrize(
    "text", sorted({each[:length] for each in JOBS for length in (2, 6, 7, 11, 12, 15, 16)} | {"a", "b"})
)
def test_it_is_found_where_it_is_the_only_one(client: Client, text: str) -> None:
    found = {text} & JOBS.keys() or {job for job, name in JOBS.items() if job.startswith(text) or name == text}
    if len(found) == 1:
        assert {client.resolve(text)} == found
    else:
        with pytest.raises(InvalidRequest, match=f"^{len(found)} jobs are named '{text}'"):
            client.resolve(text)


@pytest.mark.parametrize("text", ["", "1k2", "c", "1k1fg9wpnmr0000y", "1k*", "é\0 ?/"])
def test_where_there_is_none_both_are_told(client: Client, text: str) -> None:
    with pytest.raises(NotFound, match=r"^No job is named .*, or has an id that starts so\.$"):
        client.resolve(text)
