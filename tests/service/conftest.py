from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from service.app import create_app
from service.db import Database, connect, migrate
from service.settings import Settings
from tests.service.world import ADDRESS, Clock, InProcess, World
from tests.serving import served


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database file, to copy."""
    path = tmp_path_factory.mktemp("template") / "emascale.db"
    engine = connect(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_folder=tmp_path, event_poll_s=0.02)


@pytest.fixture
def database(migrated: Path, settings: Settings, clock: Clock) -> Iterator[Database]:
    shutil.copy(migrated, settings.data_folder / "emascale.db")
    engine = connect(settings.database_url)
    yield Database(engine, clock)
    engine.dispose()


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def world(settings: Settings, database: Database, clock: Clock, portal: BlockingPortal) -> Iterator[World]:
    numbers = count(1)
    app = create_app(settings, database, new_job_id=lambda: f"job{next(numbers):04d}")
    with httpx.Client(transport=InProcess(app, portal), base_url=ADDRESS) as http:
        yield World(settings, database, clock, http)


@pytest.fixture
def wire(world: World) -> Iterator[httpx.Client]:
    """The same service behind a real socket, for answers that have no end."""
    app = create_app(world.settings, world.database)
    with served(app) as address, httpx.Client(base_url=address, timeout=60) as http:
        yield http
