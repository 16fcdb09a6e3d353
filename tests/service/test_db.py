"""The database: migrations, sessions, and rows that follow their changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, select

from service.db import Database, connect, lock, migrate, upsert
from service.tables import EventRow, Job, MetricRow, RecipeRow
from tests.service.world import Clock


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{tmp_path / 'deep' / 'new.db'}")
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


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    migrate(engine)
    tables = inspect(engine).get_table_names()
    migrate(engine)
    assert inspect(engine).get_table_names() == tables
    assert {"job", "event", "metric", "ledger", "resize", "recipe", "cluster"} < set(tables)


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
