"""A PostgreSQL server for tests, from the binaries of this machine, on a socket in a folder of its own.

It differs from a desk's server on purpose: its clock is in India, and its texts are sorted as people sort them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

from service import tables
from service.db import connect, migrate
from service.processes import wait_until

HOW_TO_GET_IT = "no PostgreSQL server on this machine: apt-get install --no-install-recommends postgresql"
PATIENCE_S = 30
_LIKE_PEOPLE = ("--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en")
_SETTINGS = ("listen_addresses=", "timezone=Asia/Kolkata", "max_connections=200")
_FORGETFUL = ("fsync=off", "full_page_writes=off")
"""What a power cut would lose is no loss to a test."""
_SHAPE = """
SELECT string_agg(concat_ws(' ', table_name, column_name, data_type), ', ' ORDER BY table_name, column_name)
FROM information_schema.columns WHERE table_schema = 'public'
"""
_HANG_UP = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def binaries() -> Path | None:
    """The folder of the newest `postgres` that is installed; Debian keeps it off the PATH."""
    on_path = shutil.which("postgres")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return Path(on_path).parent if on_path else found[-1].parent if found else None


class PostgresServer:
    """A server on an empty folder; it may be stopped and started as often as a test likes."""

    def __init__(self, binaries: Path, folder: Path, *, durable: bool = False) -> None:
        self._settings = _SETTINGS if durable else (*_SETTINGS, *_FORGETFUL)
        self._binaries = binaries
        self._folder = folder
        self._user = None if os.geteuid() else pwd.getpwnam("postgres").pw_name  # it refuses to run as root
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._shape: object = None  # of the template's tables
        self._free: list[str] = []  # databases that were used and emptied: to make one takes ten times as long
        if self._user:
            shutil.chown(folder, self._user)
        initdb = [binaries / "initdb", "--auth=trust", "--username=emascale", "--no-sync", *_LIKE_PEOPLE]
        self._run([*initdb, folder / "data"]).wait(PATIENCE_S)

    def start(self) -> None:
        """Start it; returns once it answers."""
        settings = [f"-c{setting}" for setting in (*self._settings, f"unix_socket_directories={self._folder}")]
        ending_with_us = ["setpriv", "--pdeathsig=QUIT"]
        self._process = self._run(
            [*ending_with_us, self._binaries / "postgres", "-D", self._folder / "data", *settings]
        )
        assert wait_until(self._answers, PATIENCE_S), self.log()

    def stop(self) -> None:
        """Stop it, whoever is connected; what was committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(PATIENCE_S)
            self._process = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """An outage for the length of the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def url(self, name: str) -> str:
        """Of a database, as a user would write it."""
        return f"postgresql://emascale@/{name}?host={self._folder}"

    def make_template(self) -> None:
        """The database `template`, migrated, to copy."""
        self.execute("CREATE DATABASE template")
        engine = connect(self.url("template"))
        migrate(engine)
        engine.dispose()
        with psycopg.connect(self.url("template")) as connection:
            self._shape = connection.execute(_SHAPE).fetchone()

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a database that is migrated, empty, and nobody else's for the length of the block."""
        name = self._free.pop() if self._free else self._create("template")
        yield self.url(name)
        if self._is_emptied(name):
            self._free.append(name)
        else:
            self._drop(name)

    @contextmanager
    def bare_database(self) -> Iterator[str]:
        """The same, without a table."""
        name = self._create("template0")
        yield self.url(name)
        self._drop(name)

    def execute(self, statement: str) -> None:
        """Outside of every database of a test."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _create(self, template: str) -> str:
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def _drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _is_emptied(self, name: str) -> bool:
        """Empty its tables and hang up on whoever is still there. Not so where a test has changed the tables."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute(_HANG_UP)
            if connection.execute(_SHAPE).fetchone() != self._shape:
                return False
            names = ", ".join(f'"{name}"' for name in tables.Job.metadata.tables)
            connection.execute(f"TRUNCATE {names} RESTART IDENTITY".encode())
        return True

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, command: list[str | Path]) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                command, user=self._user, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )


@contextmanager
def postgres_server(binaries: Path, *, durable: bool = False) -> Iterator[PostgresServer]:
    """One that runs, with its template; `durable`: as in earnest, on the disk before it answers."""
    with tempfile.TemporaryDirectory(prefix="ema-pg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(binaries, Path(folder), durable=durable)
        try:
            server.start()
            server.make_template()
            yield server
        finally:
            server.stop()
