"""The database: migrations, sessions, and rows that follow their changes."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import SQLModel, select

from api_schemas.errors import Unavailable
from service import db
from service.db import Database, UnusableDatabase, connect, driver_url, lock, migrate, migrations, upsert
from service.tables import EventRow, Job, MetricRow, RecipeRow
from tests.postgres import PostgresServer
from tests.service.world import Clock


@pytest.fixture
def empty_on_sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'deep' / 'new.db'}"


@pytest.fixture
def empty_on_postgresql(postgres: PostgresServer) -> Iterator[str]:
    with postgres.bare_database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Of a database without tables."""
    engine = connect(request.getfixturevalue(f"empty_on_{request.param}"))
    yield engine
    engine.dispose()


def insert_job(database: Database, job: str = "a") -> None:
    now = database.now()
    with database.writing() as session:
        session.add(
            Job(
                id=job,
                name=job,
                recipe="r",
                spec={},
                labels={},
                priority=0,
                storage="s",
                since=now,
                code="c",
                message="m",
                created_at=now,
                updated_at=now,
            )
        )


def test_migrations_make_the_tables_as_they_are_declared(engine: Engine) -> None:
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_the_file_of_a_database_is_for_its_user_alone(tmp_path: Path) -> None:
    """It holds who may do what."""
    engine = connect(f"sqlite:///{tmp_path}/folder/emascale.db")
    migrate(engine)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "folder").iterdir()}
    engine.dispose()
    assert set(modes.values()) == {0o600}, modes


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    migrate(engine)
    tables = inspect(engine).get_table_names()
    migrate(engine)
    assert inspect(engine).get_table_names() == tables
    assert {"job", "event", "metric", "ledger", "resize", "recipe", "cluster", "lease"} < set(tables)


def test_services_that_start_together_migrate_in_turn(engine: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [engine] * 4))
    assert inspect(engine).has_table("lease")


def test_a_migration_can_be_taken_back(engine: Engine) -> None:
    migrate(engine)
    with engine.execution_options(writes=True).begin() as connection:
        command.downgrade(migrations(connection), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://u:p@h/n", "postgresql+psycopg://u:p@h/n"),
        ("postgres://u:p@h/n?sslmode=require", "postgresql+psycopg://u:p@h/n?sslmode=require"),
        ("postgresql+psycopg2://h/n", "postgresql+psycopg://h/n"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
    ],
)
def test_an_url_means_the_driver_that_is_used(url: str, driver: str) -> None:
    assert driver_url(url).render_as_string(hide_password=False) == driver


@pytest.mark.parametrize("url", ["", "emascale.db", "mysql://h/n", "https://example.org"])
def test_another_kind_of_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with sqlite:/// or postgresql://"):
        driver_url(url)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    engine = connect("postgresql://me:secret@127.0.0.1:1/jobs")
    with pytest.raises(UnusableDatabase, match=r"me:\*\*\*@127.0.0.1:1/jobs does not answer") as refused:
        migrate(engine)
    assert "secret" not in str(refused.value)


def test_a_driver_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UnusableDatabase, match=r"pip install 'psycopg\[binary\]'"):
        connect("postgresql://h/n")


def test_a_mistake_in_a_statement_is_no_outage(database: Database) -> None:
    with pytest.raises(DBAPIError), database.reading() as session:
        session.execute(text("SELECT nothing FROM nowhere"))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_server_that_takes_no_writes_for_now_is_an_outage(database: Database) -> None:
    """As a standby does that has not taken over yet."""
    with pytest.raises(Unavailable), database.writing() as session:
        session.execute(text("SET TRANSACTION READ ONLY; CREATE TABLE more (id int)"))


def test_a_file_that_another_process_locks_is_unavailable(
    on_sqlite: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0)
    database, others = Database(connect(on_sqlite), clock), Database(connect(on_sqlite), clock)
    with database.writing() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(Unavailable), others.writing() as another:
            another.execute(text("SELECT 1"))
    database.engine.dispose()
    others.engine.dispose()


def test_writers_of_one_process_wait_as_long_as_it_takes(
    on_sqlite: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0)
    database = Database(connect(on_sqlite), clock)

    def write() -> None:
        with database.writing() as session:
            upsert(session, RecipeRow, [{"name": "r", "summary": "", "config_schema": {}}])

    with ThreadPoolExecutor() as pool:
        with database.writing():
            waiting = pool.submit(write)
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        waiting.result()
    database.engine.dispose()


def test_what_postgresql_cannot_keep_is_replaced(database: Database) -> None:
    """A NUL is in the log line of a crash sooner or later; SQLite keeps it."""
    insert_job(database)
    with database.writing() as session:
        job = session.get_one(Job, "a")
        job.message, job.log_tail, job.values = "a\0b", ["c\0d"], {"lr": math.inf, "rho": [math.nan, 0.5]}
    with database.reading() as session:
        job = session.get_one(Job, "a")
        assert session.get(Job, "a\0") is None
    assert job.message in ("a\0b", "a\ufffdb")
    assert job.log_tail == ["c\0d"]
    assert job.values == {"lr": None, "rho": [None, 0.5]}


def test_a_reader_has_one_view(database: Database) -> None:
    """What others commit meanwhile is not seen by half."""
    insert_job(database)
    with database.reading() as reader:
        before = reader.exec(select(Job.message)).one()
        with database.writing() as session:
            session.get_one(Job, "a").message = "new"
        assert reader.exec(select(Job.message)).one() == before


def test_a_change_raises_the_revision_and_the_date(database: Database, clock: Clock) -> None:
    insert_job(database)
    clock.move(5)
    with database.writing() as session:
        job = lock(session, Job, "a")
        assert job is not None
        job.message = "new"
    with database.reading() as session:
        job = session.get_one(Job, "a")
    assert (job.revision, job.updated_at) == (2, clock.now)
    assert job.created_at == clock.now - timedelta(seconds=5)


def test_no_change_leaves_the_revision(database: Database) -> None:
    insert_job(database)
    with database.writing() as session:
        job = lock(session, Job, "a")
        assert job is not None
        job.message = "m"
    with database.reading() as session:
        assert session.get_one(Job, "a").revision == 1


def test_what_raises_leaves_nothing(database: Database) -> None:
    def change_and_fail() -> None:
        with database.writing() as session:
            session.get_one(Job, "a").message = "new"
            session.flush()
            raise ZeroDivisionError

    insert_job(database)
    with pytest.raises(ZeroDivisionError):
        change_and_fail()
    with database.reading() as session:
        assert session.get_one(Job, "a").message == "m"


def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    insert_job(database)
    elsewhere = datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    with database.writing() as session:
        session.get_one(Job, "a").since = elsewhere
    with database.reading() as session:
        since = session.get_one(Job, "a").since
    assert since == elsewhere
    assert since.tzinfo is UTC


def test_writers_take_turns(database: Database) -> None:
    """Read-modify-write from several threads loses no change."""
    insert_job(database)

    def raise_priority() -> None:
        for _ in range(5):
            with database.writing() as session:
                job = lock(session, Job, "a")
                assert job is not None
                job.priority += 1

    threads = [threading.Thread(target=raise_priority) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert session.get_one(Job, "a").priority == 20


def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    insert_job(database)
    with database.writing() as writer:
        writer.get_one(Job, "a").message = "new"
        writer.flush()
        with database.reading() as reader:
            assert reader.get_one(Job, "a").message == "m"


def test_upsert_overwrites_or_leaves(database: Database) -> None:
    def put(summary: str, update: list[str]) -> str:
        with database.writing() as session:
            upsert(session, RecipeRow, [{"name": "r", "summary": summary, "config_schema": {}}], update)
        with database.reading() as session:
            return session.exec(select(RecipeRow.summary)).one()

    assert [put("1", []), put("2", []), put("3", ["summary"])] == ["1", "1", "3"]


def test_a_job_takes_its_history_with_it(database: Database) -> None:
    insert_job(database)
    with database.writing() as session:
        upsert(session, MetricRow, [{"job_id": "a", "name": "loss", "samples": 1, "value": 0.5}])
        session.delete(session.get_one(Job, "a"))
    with database.reading() as session:
        assert session.exec(select(MetricRow)).all() == []


def test_an_event_needs_its_job(database: Database) -> None:
    orphan = EventRow(job_id="nobody", incarnation=0, generation=0, sequence=1, type="x", at=database.now(), payload={})
    with pytest.raises(IntegrityError), database.writing() as session:
        session.add(orphan)
