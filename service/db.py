"""The way to the database: connections, sessions that read or write, and inserts that repeat without harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, event, inspect, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel, create_engine

BUSY_TIMEOUT_S = 10
CONNECTIONS = 40  # as many as the threads that the handlers run in
BATCH = 500
"""Rows of one INSERT statement."""

Row = TypeVar("Row", bound=SQLModel)


def connect(url: str) -> Engine:
    """An engine for SQLite (write-ahead log, foreign keys on) or PostgreSQL. Makes the folder of an SQLite file."""
    address = make_url(url)
    if address.get_backend_name() != "sqlite":
        return create_engine(url, pool_size=CONNECTIONS, pool_pre_ping=True)
    if address.database:
        Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url, pool_size=CONNECTIONS, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself: `_begin_sqlite` does
    # synchronous = full: what was acknowledged to a controller, which then forgets it, survives a power cut
    for pragma in ("journal_mode = wal", "synchronous = full", "foreign_keys = on"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock at once: one that reads first could not get it any more when another wrote."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def migrate(engine: Engine) -> None:
    """Bring the tables up to date. Run once at the start, before anything else uses the database."""
    config = Config()
    config.set_main_option("script_location", "service:migrations")
    with engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


class Database:
    """Sessions on one engine; `now` dates what they change (timezone-aware UTC)."""

    def __init__(self, engine: Engine, now: Callable[[], datetime]) -> None:
        self.engine = engine
        self.now = now
        self._writer = engine.execution_options(writes=True)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A consistent view; nothing is committed."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back where it raises."""
        with Session(self._writer, expire_on_commit=False, info={"now": self.now}) as session, session.begin():
            yield session


def lock(session: Session, table: type[Row], key: object) -> Row | None:
    """A row that no other transaction changes before this one ends; None where there is none."""
    return session.get(table, key, with_for_update=True)


def upsert(
    session: Session, table: type[SQLModel], rows: Sequence[Mapping[str, Any]], update: Iterable[str] = ()
) -> None:
    """Insert rows; where the primary key exists already, overwrite the columns in `update` (none: leave it be)."""
    make = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[session.get_bind().dialect.name]
    statement: Any = make(table)
    columns = {name: statement.excluded[name] for name in update}
    keys = inspect(table).primary_key
    statement = (
        statement.on_conflict_do_update(index_elements=keys, set_=columns)
        if columns
        else statement.on_conflict_do_nothing()
    )
    for start in range(0, len(rows), BATCH):
        session.execute(statement, [dict(row) for row in rows[start : start + BATCH]])
