from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.buckets import Bucket, access, s3_server

_numbers = count(1)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty one, which this process finds by its environment."""
    for name, value in access(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return Bucket(s3_endpoint, f"bucket-{next(_numbers)}")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For training that is many small steps: threads that wait for each other on a busy machine cost it minutes."""
    import torch  # here: tests of the service do without it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
