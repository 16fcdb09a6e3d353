"""`serve`: the Ray head, the API and the reconciler as processes, started again when they die.

The API and the reconciler end with this process, however it ends. The Ray head does not: after a crash
the next `serve` on the same data folder finds it, and the jobs that train on it. Only a clean stop ends it.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from api_schemas.errors import Unavailable
from api_schemas.views import ClusterView
from service.child import Child
from service.db import Database, connect, migrate
from service.head import CLIENT_ENVIRONMENT, EmbeddedRay, HeadFailed
from service.lease import new_holder
from service.settings import Settings
from service.tables import ClusterRow

logger = logging.getLogger(__name__)

LOOK_S = 0.2
HEAD_DELAY_S = 5.0
"""After a Ray head that could not be started anew, until that is tried again."""
BACKLOG = 2048
STOPPING = (signal.SIGTERM, signal.SIGINT)
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""All addresses, which are none to ask at; and the one of them that this machine is sure to have."""
_NOT_FOR_NODES = ("EMASCALE_DATABASE_URL", "EMASCALE_TOKEN")


class AlreadyServed(Exception):
    """Another `serve` runs on this data folder."""


class _Stopped(BaseException):
    """SIGTERM or SIGINT arrived."""


def serve(settings: Settings, environment: Mapping[str, str], ready: Callable[[str], None]) -> None:
    """Run the service until SIGTERM or SIGINT; `ready` is told its address once it answers.

    Call it in the main thread. Raises AlreadyServed, HeadFailed, UnusableDatabase, OSError where the port is
    taken.
    """
    run_folder = settings.data_folder / "run"
    run_folder.mkdir(parents=True, exist_ok=True)
    with _alone(run_folder), _stop_on_signals(), contextlib.ExitStack() as cleanup:
        listener = cleanup.enter_context(_listen(settings))
        environment = {**environment, **_importable(environment), **as_environment(settings)}
        database = Database(connect(settings.database_url), lambda: datetime.now(UTC))
        cleanup.callback(database.engine.dispose)
        migrate(database.engine)
        head = None if settings.ray_address else EmbeddedRay(settings.data_folder, for_nodes(environment))
        if head is not None:
            cleanup.callback(head.stop)
        supervisor = Supervisor(settings, environment, run_folder, listener, head)
        cleanup.callback(supervisor.stop)
        supervisor.run(database, ready)


class Supervisor:
    """Keeps the head and the children running."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        run_folder: Path,
        listener: socket.socket,
        head: EmbeddedRay | None,
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._head = head
        self._listener = listener
        fd = listener.fileno()
        self._api = Child("api", ["api", f"--fd={fd}"], run_folder / "api.pid", (fd,))
        self._grace_s = settings.grace_s if head else 0.0  # jobs on a cluster that stays need none
        holding = f"--holder={new_holder()}"  # of one child after the other, so that the next need not wait
        arguments = ["reconcile", holding, f"--grace={self._grace_s}"]
        self._reconciler = Child("reconciler", arguments, run_folder / "reconciler.pid")
        self._ray_environment: Mapping[str, str] | None = None
        self._head_again_at = 0.0  # by the monotonic clock

    def run(self, database: Database, ready: Callable[[str], None]) -> None:
        """Until a signal stops it."""
        since = database.now()
        announced = False
        while True:
            self._api.keep(self._environment, time.monotonic())
            if environment := self._keep_head():
                self._reconciler.keep(environment, time.monotonic())
            if not announced and _attached(database, since) and _healthy(self._listener):
                announced = True
                ready(url_of(self._listener))
            time.sleep(LOOK_S)

    def stop(self) -> None:
        """End the children. With an embedded head jobs leave a checkpoint first; another signal, and nobody waits."""
        with _on_signals(lambda *_: self._reconciler.hurry()):
            code = self._reconciler.stop(self._grace_s)
        if code and self._grace_s:
            told = "the reconciler did not end in order: jobs may have to go back to an earlier checkpoint"
            logger.warning(told, extra={"action": "not_parked", "exit_code": code})
        self._api.stop()

    def _keep_head(self) -> Mapping[str, str] | None:
        """What the reconciler attaches with; None: there is no cluster, for now.

        One that is lost is started anew, as often as it takes. Raises HeadFailed where none has ever run.
        """
        if self._head is None:
            self._ray_environment = {**self._environment, **CLIENT_ENVIRONMENT}
        elif not self._head.alive() or self._ray_environment is None:
            self._reconciler.kill()  # to tell it to end would be to have it wait for jobs that are not there
            return self._start_head(self._head) if time.monotonic() >= self._head_again_at else None
        return self._ray_environment

    def _start_head(self, head: EmbeddedRay) -> Mapping[str, str] | None:
        try:
            address = head.start(self._settings.local_slots)
        except HeadFailed as error:
            if self._ray_environment is None:
                raise
            logger.error("the Ray head does not start anew: %s", error, extra={"action": "head_failed"})
            self._head_again_at = time.monotonic() + HEAD_DELAY_S
            return None
        logger.info("the Ray head answers at %s", address, extra={"action": "head_up", "address": address})
        access = {**head.access(), "EMASCALE_RAY_ADDRESS": address}
        self._ray_environment = {**self._environment, **access}
        return self._ray_environment


@contextlib.contextmanager
def _alone(run_folder: Path) -> Iterator[None]:
    """Hold the data folder's lock, which the kernel gives back however this process ends. Raises AlreadyServed."""
    pid_file = run_folder / "supervisor.pid"
    with (run_folder / "supervisor.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = pid_file.read_text().strip() if pid_file.exists() else "unknown"
            where = f"Another `serve` (process {pid}) runs on {run_folder.parent}"
            raise AlreadyServed(f"{where}: stop it, or give this one another --data.") from error
        pid_file.write_text(f"{os.getpid()}\n")
        yield
        pid_file.unlink(missing_ok=True)


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Leave the block at the first SIGTERM or SIGINT; what cleans up behind it is not disturbed by another."""

    def stop(_number: int, _frame: object) -> None:
        for each in STOPPING:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped

    with _on_signals(stop):
        try:
            yield
        except _Stopped:
            logger.info("stopped", extra={"action": "stopped"})


@contextlib.contextmanager
def _on_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """What SIGTERM and SIGINT do within the block."""
    before = {each: signal.signal(each, handler) for each in STOPPING}
    try:
        yield
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)


def _listen(settings: Settings) -> socket.socket:
    """The API's socket is held here: while the API starts again, requests wait instead of being refused."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    listener.listen(BACKLOG)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where it can be reached from this machine."""
    host, port = listener.getsockname()[:2]
    host = ANY.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def as_environment(settings: Settings) -> dict[str, str]:
    """The settings for a child, as it reads them."""
    prefix = settings.model_config.get("env_prefix", "")
    return {f"{prefix}{name}".upper(): _spelled(value) for name, value in settings if value is not None}


def _spelled(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def for_nodes(environment: Mapping[str, str]) -> dict[str, str]:
    """Without the URL of the database, which may hold a password, and without a token: users' code runs there."""
    return {name: value for name, value in environment.items() if name not in _NOT_FOR_NODES}


def _importable(environment: Mapping[str, str]) -> dict[str, str]:
    """PYTHONPATH with this checkout first: children and nodes shall run this code, not another's `workers`."""
    root = str(Path(__file__).parents[1])
    others = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path != root]
    return {"PYTHONPATH": os.pathsep.join([root, *others])}


def _attached(database: Database, since: datetime) -> bool:
    """Whether a reconciler has seen the cluster."""
    try:
        with database.reading() as session:
            row = session.get(ClusterRow, 1)
    except Unavailable:
        return False
    return row is not None and row.seen_at >= since and ClusterView.model_validate(row.picture).connected


def _healthy(listener: socket.socket) -> bool:
    host, port = listener.getsockname()[:2]
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/healthz", headers={"Host": "localhost"})  # a name that is always allowed
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
