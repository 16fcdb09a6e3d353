"""The way to the database, SQLite or PostgreSQL: connections, sessions, and inserts that repeat without harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from pydantic_core import to_json
from sqlalchemy import (
    ARRAY,
    URL,
    BigInteger,
    Connection,
    Engine,
    Executable,
    String,
    bindparam,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlmodel import Session, SQLModel, create_engine

from api_schemas.errors import Unavailable

DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
"""What an URL may begin with, and the driver that is meant."""
BUSY_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 5
ABANDONED_MS = 30_000
"""A transaction without a statement for so long is of a machine that is gone: PostgreSQL ends it, and its locks."""
CONNECTIONS = 40  # as many as the threads that the handlers run in
_PASSING = ("25006", "25P03")
"""SQLSTATEs of PostgreSQL that are no operational errors to its driver, though they pass: the server is a standby, or
has ended a transaction that was idle for too long."""
BATCH = 500
"""Rows of one INSERT statement."""

Row = TypeVar("Row", bound=SQLModel)


class UnusableDatabase(Exception):
    """The database that `database_url` names cannot be used; the message says why."""


def driver_url(url: str) -> URL:
    """The URL with the driver that this service uses. Raises ValueError where it names another kind of database."""
    try:
        address = make_url(url)
    except ArgumentError:
        address = None
    if address is None or address.get_backend_name() not in DRIVERS:
        raise ValueError("must begin with sqlite:/// or postgresql://")
    return address.set(drivername=DRIVERS[address.get_backend_name()])


def missing(url: str) -> Path | None:
    """The file of an SQLite database that is not there; None for any other database."""
    address = driver_url(url)
    if address.get_backend_name() != "sqlite" or not address.database or address.database == ":memory:":
        return None
    file = Path(address.database)
    return None if file.exists() else file


def connect(url: str) -> Engine:
    """An engine for SQLite or PostgreSQL; nothing is asked yet. Raises ValueError, UnusableDatabase."""
    address = driver_url(url)
    return _sqlite(address) if address.get_backend_name() == "sqlite" else _postgresql(address)


def _postgresql(address: URL) -> Engine:
    patience = {"connect_timeout": CONNECT_TIMEOUT_S, "tcp_user_timeout": 1000 * BUSY_TIMEOUT_S}
    asked = {name: value for name, value in patience.items() if name not in address.query}
    try:
        engine = create_engine(
            address, pool_size=CONNECTIONS, pool_pre_ping=True, connect_args=asked, json_serializer=_json
        )
    except ModuleNotFoundError as error:
        raise UnusableDatabase("PostgreSQL needs a driver: pip install 'psycopg[binary]'") from error
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    from psycopg.types.string import StrDumper  # here: with SQLite nobody needs the driver

    class WithoutNul(StrDumper):
        """PostgreSQL keeps every character but NUL, which may come in a log line or from a client."""

        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\ufffd"))

    connection.adapters.register_dumper(str, WithoutNul)
    connection.autocommit = True
    connection.execute(f"SET idle_in_transaction_session_timeout = {ABANDONED_MS}")
    connection.autocommit = False


def _json(value: Any) -> str:
    """What is not finite becomes null: JSON cannot say it, though SQLite would keep it."""
    return to_json(value, inf_nan_mode="null").decode()


def _sqlite(address: URL) -> Engine:
    """With a write-ahead log and foreign keys. Makes the folder of the file, and the file for this user alone."""
    if address.database and address.database != ":memory:":
        file = Path(address.database)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)  # and SQLite gives what it puts beside it the same mode
    asked = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    engine = create_engine(address, pool_size=CONNECTIONS, connect_args=asked, json_serializer=_json)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself: `_begin_sqlite` does
    # synchronous = full: what was acknowledged to a controller, which then forgets it, survives a power cut
    # cache_size: 256 KiB of the 40 connections each; what they lack is in the system's own cache
    for pragma in ("journal_mode = wal", "synchronous = full", "foreign_keys = on", "cache_size = -256"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock at once: one that reads first could not get it any more when another wrote."""
    options = connection.get_execution_options()
    if options.get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")


def migrate(engine: Engine) -> None:
    """Bring the tables up to date; several services that start together take turns. Raises UnusableDatabase."""
    try:
        with engine.execution_options(writes=True).begin() as connection:
            if engine.dialect.name == "postgresql":  # a writer of SQLite has its lock already
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('emascale migrations'))"))
            command.upgrade(migrations(connection), "head")
    except OperationalError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise UnusableDatabase(f"{shown} does not answer: {error.orig}") from error


def migrations(connection: Connection) -> Config:
    """What alembic's commands need to work on this connection."""
    config = Config()
    config.set_main_option("script_location", "service:migrations")
    config.attributes["connection"] = connection
    return config


class Database:
    """Sessions on one engine; `now` dates what they change (timezone-aware UTC).

    They raise Unavailable where the database does not answer. What a block wrote may then be committed, or not.
    """

    def __init__(self, engine: Engine, now: Callable[[], datetime]) -> None:
        self.engine = engine
        self.now = now
        self._reader = engine.execution_options(**_ONE_VIEW[engine.dialect.name])
        self._glancer = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = engine.execution_options(writes=True)
        self._turn = Lock() if engine.dialect.name == "sqlite" else nullcontext()
        """SQLite has one writer at a time; who waits for its file sleeps, and may be passed by again and again."""

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A consistent view; nothing is committed."""
        with _answering(), Session(self._reader, expire_on_commit=False) as session:
            yield session

    def rows(self, statement: Executable, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """What one statement finds: without a transaction around it, and so at a third of the cost of `reading`."""
        with _answering(), self._glancer.connect() as connection:
            return connection.execute(statement, parameters).all()

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back where it raises."""
        with (
            _answering(),
            self._turn,
            Session(self._writer, expire_on_commit=False, info={"now": self.now}) as session,
            session.begin(),
        ):
            yield session


_ONE_VIEW: dict[str, dict[str, Any]] = {
    "sqlite": {},  # every transaction of it has one
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if not _passes(error):
            raise
        raise Unavailable("The database does not answer; try again.") from error


def _passes(error: DBAPIError) -> bool:
    """Whether the same may succeed later: it is nothing in the statement."""
    if getattr(error.orig, "sqlite_errorname", "") == "SQLITE_ERROR":
        return False  # a mistake in a statement, which other drivers call ProgrammingError
    return isinstance(error, OperationalError) or getattr(error.orig, "sqlstate", "") in _PASSING


def lock(session: Session, table: type[Row], key: object) -> Row | None:
    """A row that no other transaction changes before this one ends; None where there is none."""
    return session.get(table, key, with_for_update=True)


@cache
def _by_name(dialect: str) -> Any:
    if dialect == "sqlite":
        return func.json_each(bindparam("by_name", type_=String)).table_valued("key", "value")
    arrays = bindparam("names", type_=ARRAY(String)), bindparam("numbers", type_=ARRAY(BigInteger))
    return func.unnest(*arrays).table_valued("key", "value").render_derived()


def by_name(session: Session, numbers: Mapping[str, int]) -> tuple[Any, dict[str, Any]]:
    """A table with the columns `key` and `value`, always the same, and the parameters that put these numbers in it."""
    dialect = session.get_bind().dialect.name
    if dialect == "sqlite":
        return _by_name(dialect), {"by_name": _json(dict(numbers))}
    return _by_name(dialect), {"names": list(numbers), "numbers": list(numbers.values())}


def upsert(
    session: Session, table: type[SQLModel], rows: Sequence[Mapping[str, Any]], update: Iterable[str] = ()
) -> None:
    """Insert rows; where the primary key exists already, overwrite the columns in `update` (none: leave it be).

    All rows have the same columns, and no two the same key.
    """
    if not rows:
        return
    insert_all = {"sqlite": _upsert_sqlite, "postgresql": _upsert_postgresql}[session.get_bind().dialect.name]
    insert_all(session.connection(), inspect(table).local_table, rows, tuple(update))


def _upsert_sqlite(
    connection: Connection, table: Any, rows: Sequence[Mapping[str, Any]], update: tuple[str, ...]
) -> None:
    statement = _from_rows(table, update)
    for start in range(0, len(rows), BATCH):
        connection.execute(statement, [dict(row) for row in rows[start : start + BATCH]])


def _upsert_postgresql(
    connection: Connection, table: Any, rows: Sequence[Mapping[str, Any]], update: tuple[str, ...]
) -> None:
    """One statement, and a parameter for each column: an array of what the rows have there."""
    statement = _from_arrays(table, tuple(rows[0]), update)
    connection.execute(statement, {f"{name}_": [row[name] for row in rows] for name in rows[0]})


@cache
def _from_rows(table: Any, update: tuple[str, ...]) -> Any:
    return _on_conflict(sqlite.insert(table), table, update)


@cache
def _from_arrays(table: Any, names: tuple[str, ...], update: tuple[str, ...]) -> Any:
    arrays = [func.unnest(bindparam(f"{name}_", type_=ARRAY(table.c[name].type))) for name in names]
    return _on_conflict(postgresql.insert(table).from_select(names, select(*arrays)), table, update)


def _on_conflict(statement: Any, table: Any, update: tuple[str, ...]) -> Any:
    if not update:
        return statement.on_conflict_do_nothing()
    columns = {name: statement.excluded[name] for name in update}
    return statement.on_conflict_do_update(index_elements=table.primary_key, set_=columns)
