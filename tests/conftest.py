from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.buckets import Bucket, access, s3_server
from tests.postgres import HOW_TO_GET_IT as NO_POSTGRES
from tests.postgres import binaries

_numbers = count(1)
HERE = Path(__file__).parent
CLUSTERS, DEPLOYMENT = "integration", "topology"
"""The folders of the tests that start clusters, of which two at once fight for the cores."""
TAIL = (DEPLOYMENT, *(f"{CLUSTERS}/test_{name}.py" for name in ("training", "supervisor", "trouble")))
"""Of those, what is left for the end, when of several processes one would be idle otherwise; one has the others."""
HOW_TO_GET_IT = ("apt-get install", "npm ci")
"""What the reason of a skip says where a machine can be made to run the test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--complete", action="store_true", help="Fail where a test is skipped for want of a package.")
    parser.addoption("--topology", action="store_true", help="Run the tests of the deployment alone.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In one of several processes (`-n 2`) those that start a cluster come first, but for the tail."""
    if config.getoption("topology"):
        others = [item for item in items if not _place(item).startswith(DEPLOYMENT)]
        items[:] = [item for item in items if _place(item).startswith(DEPLOYMENT)]
        config.hook.pytest_deselected(items=others)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _turn(_place(item)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Who runs what: a process has all tests with the same scope."""

    class OneHasTheClusters(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            place = nodeid.partition("::")[0].removeprefix(f"{HERE.name}/")
            return next((name for name in (*TAIL, CLUSTERS) if place.startswith(name)), place)

    return OneHasTheClusters(config, log)


def _turn(place: str) -> int:
    """When a file's tests come: -1 first, then 0, and at last the tail, the longest of it first."""
    last = next((number for number, name in enumerate(TAIL, 1) if place.startswith(name)), 0)
    return last or -place.startswith(CLUSTERS)


def _place(item: pytest.Item) -> str:
    """Its file below the folder of all tests."""
    return item.path.relative_to(HERE).as_posix()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("complete"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if any(how in reason for how in HOW_TO_GET_IT):
            report.outcome, report.longrepr = "failed", reason
    return report


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def postgres_binaries() -> Path:
    """The folder of a PostgreSQL server's programs; where there is none, the tests that need it are skipped."""
    found = binaries()
    if found is None:
        pytest.skip(NO_POSTGRES)
    return found


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
