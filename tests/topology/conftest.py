from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.topology.cluster import Cluster, cluster
from tests.topology.hosts import namespaces_permitted
from tests.topology.images import Image, here, installed, laid_out


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """That of the service with a Python of its own, which has no torch; a worker's runs on that of the tests."""
    folder = tmp_path_factory.mktemp("images")
    service = laid_out("service", folder / "service", installed("service", folder / "venv"))
    return {"service": service, "worker": laid_out("worker", folder / "worker", here())}


@pytest.fixture(scope="module")
def topology(images: dict[str, Image], postgres_binaries: Path) -> Iterator[Cluster]:
    """A cluster without roles yet."""
    with cluster(images, postgres_binaries, namespaces=namespaces_permitted()) as made:
        yield made
