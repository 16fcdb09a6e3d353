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
from tests.postgres import PostgresServer, postgres_server
from tests.service.scene import Scene
from tests.service.world import ADDRESS, Clock, InProcess, World
from tests.serving import served


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database file of SQLite, to copy."""
    path = tmp_path_factory.mktemp("template") / "emascale.db"
    engine = connect(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres(postgres_binaries: Path) -> Iterator[PostgresServer]:
    with postgres_server(postgres_binaries) as server:
        yield server


@pytest.fixture
def on_sqlite(migrated: Path, tmp_path: Path) -> str:
    shutil.copy(migrated, tmp_path / "emascale.db")
    return f"sqlite:///{tmp_path / 'emascale.db'}"


@pytest.fixture
def on_postgresql(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Of an empty, migrated database; whatever asks for it runs on each kind."""
    url: str = request.getfixturevalue(f"on_{request.param}")
    return url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(data_folder=tmp_path, database_url=database_url, event_poll_s=0.02, log_poll_s=0.02)


@pytest.fixture
def database(settings: Settings, clock: Clock) -> Iterator[Database]:
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
    app = create_app(settings, database, new_job_id=lambda: f"1k1fg9wpnmr{next(numbers):05d}")
    with httpx.Client(transport=InProcess(app, portal), base_url=ADDRESS) as http:
        yield World(settings, database, clock, http)


@pytest.fixture
def scene(database: Database, clock: Clock) -> Scene:
    """With a node of 4 CPUs."""
    return Scene(database, clock, 4)


@pytest.fixture
def wire(world: World) -> Iterator[httpx.Client]:
    """The same service behind a real socket, for answers that have no end."""
    app = create_app(world.settings, world.database)
    with served(app) as address, httpx.Client(base_url=address, timeout=60) as http:
        yield http
