"""`python -m service serve`, and the processes that it consists of, each of which may also run alone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from api_schemas.complaints import phrase
from api_schemas.errors import NotFound, Unavailable
from api_schemas.tokens import Scope, TokenRequest
from service import tokens
from service.actionlog import log_to_stderr
from service.db import Database, UnusableDatabase, connect, migrate, missing
from service.head import HeadFailed
from service.parking import Parking
from service.processes import end_with, share_heaps
from service.settings import Settings, default, variable
from service.storage import Folder
from service.supervisor import AlreadyServed, serve

KEEP_ALIVE_S = 75
"""Of a connection without a request: longer than clients and proxies keep theirs, so that they close it. Where the
service does first, the next request of a client that does not know it yet is lost."""
logger = logging.getLogger("service")
app = typer.Typer(no_args_is_help=True, add_completion=False, help="The server side of emascale.")


def _option(flag: str, field: str, help: str) -> Any:
    """An option that sets a field of `Settings`; --help shows its variable and its default too."""
    return typer.Option(flag, help=f"{help} Default: {default(field)}.", envvar=variable(field))


DataFolder = Annotated[Path | None, _option("--data", "data_folder", "Folder for what must not be lost.")]
New = Annotated[bool, typer.Option("--new", help="Make the database where there is none, as the first `serve` does.")]
Parent = Annotated[int | None, typer.Option(hidden=True, help="End with this process.")]
WITHOUT_OPTION = (
    "database_url",
    "allowed_hosts",
    "log_format",
    "max_body_bytes",
    "read_recipes",
    "event_poll_s",
    "log_poll_s",
)
BY_VARIABLE = "\n\n".join(
    ["Without an option:"]
    + [
        f"{variable(name)}: {Settings.model_fields[name].description} Default: {default(name)}."
        for name in WITHOUT_OPTION
    ]
)
MISNAMED = {"EMASCALE_DATA": variable("data_folder"), "EMASCALE_STORAGE": variable("storage_url")}
"""What one takes for the variables of --data and --storage."""


@app.command("serve", epilog=BY_VARIABLE)
def serve_command(
    host: Annotated[str | None, _option("--host", "host", "Address to listen on.")] = None,
    port: Annotated[int | None, _option("--port", "port", "Port to listen on; 0: any free one.")] = None,
    auth: Annotated[
        str | None, _option("--auth", "auth", "none, on the loopback alone; token: every request needs one.")
    ] = None,
    data: DataFolder = None,
    storage: Annotated[
        str | None,
        _option("--storage", "storage_url", "Folder or URL for what the jobs write, such as s3://bucket/jobs."),
    ] = None,
    slots: Annotated[
        int | None, _option("--slots", "local_slots", "CPUs that the own Ray head offers; none: all of the machine's.")
    ] = None,
    grace: Annotated[
        float | None,
        _option("--grace", "grace_s", "Seconds for jobs to leave a checkpoint when the own Ray head stops."),
    ] = None,
    ray_address: Annotated[
        str | None, _option("--ray-address", "ray_address", "Use this Ray cluster; none: start an own one.")
    ] = None,
) -> None:
    """Run API, reconciler and, unless an address is given, a Ray head. An option goes before its variable."""
    given = {
        "host": host,
        "port": port,
        "auth": auth,
        "data_folder": data,
        "storage_url": storage,
        "local_slots": slots,
        "grace_s": grace,
        "ray_address": ray_address,
    }
    settings = _settings(**given)
    log_to_stderr(settings.log_format)
    try:
        Folder(settings.storage_url).probe()
        serve(
            settings,
            os.environ,
            lambda url: print(f"emascale is ready: {url} (dashboard; API reference: {url}/docs)", flush=True),
        )
    except Unavailable as error:
        _fail(f"storage_url: {error}")
    except UnusableDatabase as error:
        _fail(f"database_url: {error}")
    except (AlreadyServed, HeadFailed, OSError) as error:
        _fail(str(error))


@app.command()
def api(
    fd: Annotated[int | None, typer.Option(hidden=True, help="A socket that listens already.")] = None,
    parent: Parent = None,
) -> None:
    """Answer HTTP requests, nothing else. The database must have been migrated."""
    import uvicorn  # a process loads what it needs: the reconciler needs no HTTP, the API no Ray

    from service.app import create_app
    from service.own_recipes import Reader

    share_heaps(2)  # its handlers run in 40 threads
    settings = _begin(parent)
    config = uvicorn.Config(
        create_app(settings, _database(settings), read_recipe=Reader() if settings.read_recipes else None),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=2,  # live streams have no end of their own
    )
    uvicorn.Server(config).run(sockets=None if fd is None else [socket.socket(fileno=fd)])


@app.command()
def reconcile(
    holder: Annotated[str | None, typer.Option(hidden=True, help="Name in the lease; of no other that lives.")] = None,
    grace: Annotated[float, typer.Option(hidden=True, help="Seconds for jobs to leave a checkpoint at the end.")] = 0.0,
    parent: Parent = None,
) -> None:
    """Bring about on the Ray cluster at EMASCALE_RAY_ADDRESS what the database asks for.

    Of several on one database one works; the others wait until it is gone.
    """
    from service.cluster import ClusterUnreachable, RayCluster, stand_alone
    from service.lease import Lease, new_holder, reign
    from service.reconciler import Reconciler
    from service.roster import Roster

    settings = _begin(parent)
    if settings.ray_address is None:
        _fail("EMASCALE_RAY_ADDRESS must name a Ray cluster.")
    stand_alone()
    database = _database(settings)
    lease = Lease(database, holder or new_holder(), time.monotonic)
    parking = Parking()

    async def work(cluster: RayCluster) -> None:
        try:
            reconciling = reign(lease, lambda: Reconciler(Roster(database), cluster, parking=parking).run())
            await _until_terminated(reconciling, parking, grace)
        except ClusterUnreachable as error:
            _give_up(error)  # at once: the threads that wait for Ray's answer would keep the process for a minute

    try:
        cluster = RayCluster(settings.ray_address)
    except ClusterUnreachable as error:
        _give_up(error)
    asyncio.run(work(cluster))
    cluster.detach()


@app.command("migrate")
def migrate_command(data: DataFolder = None, new: New = False) -> None:
    """Bring the database's tables up to date; `serve` does it by itself."""
    log_to_stderr()
    with _opened(data, new):
        pass


token_app = typer.Typer(no_args_is_help=True, help="Who may use the API. No service needs to run.")
app.add_typer(token_app, name="token")


@token_app.command("create")
def create_token(
    name: Annotated[str, typer.Option(help="Whose it is, or what for.")],
    scope: Annotated[Scope, typer.Option(help="read: look; submit: jobs too; admin: tokens too.")],
    expires: Annotated[str | None, typer.Option(help="After how long: 90d, 12h or 30m; without it never.")] = None,
    data: DataFolder = None,
    new: New = False,
) -> None:
    """Make a token and print it, this once."""
    try:
        asked = TokenRequest.model_validate({"name": name, "scope": scope, "expires": expires})
    except ValidationError as error:
        _refuse(error)
    with _opened(data, new) as database:
        made = tokens.create(database, asked)
    until = f"until {made.expires_at:%Y-%m-%d %H:%M} UTC" if made.expires_at else "for ever"
    typer.echo(f"Token {made.id} of scope {made.scope}, valid {until}. It is shown this once:", err=True)
    typer.echo(made.secret)


@token_app.command("list")
def list_tokens(data: DataFolder = None) -> None:
    """Show all tokens, without their secrets."""
    with _opened(data) as database:
        for token in tokens.everyone(database):
            typer.echo(f"{token.id}  {token.scope:<6}  {tokens.condition(token, database.now()):<28}  {token.name}")


@token_app.command("revoke")
def revoke_token(
    token: Annotated[str, typer.Argument(metavar="ID", help="As `token list` shows it.")], data: DataFolder = None
) -> None:
    """Have a token refused; a service that runs does so within 5 s."""
    with _opened(data) as database:
        try:
            revoked = tokens.revoke(database, token)
        except NotFound as error:
            _fail(error.detail)
    typer.echo(f"Token {revoked.id} ({revoked.name}) is revoked.")


async def _until_terminated(work: Any, parking: Parking, grace_s: float) -> None:
    """Until SIGTERM comes. Where there is grace, jobs have so long to leave a checkpoint, or until it comes again."""
    task = asyncio.ensure_future(work)
    leaving: list[asyncio.Future[None]] = []

    async def leave() -> None:
        told = "jobs leave a checkpoint first, within %g s; another signal does not wait for that"
        logger.info(told, grace_s, extra={"action": "parking"})
        try:
            async with asyncio.timeout(grace_s):
                await parking.ask()
        except TimeoutError:
            logger.warning("not all jobs have left a checkpoint", extra={"action": "parking_failed"})
        task.cancel()

    def terminate() -> None:
        if grace_s and not leaving:
            leaving.append(asyncio.ensure_future(leave()))
        else:
            task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        await task
    except asyncio.CancelledError:
        logger.info("stopped", extra={"action": "reconciler_stopped"})


def _give_up(error: Exception) -> NoReturn:
    logger.error("%s", error, extra={"action": "cluster_lost"})
    logging.shutdown()
    os._exit(1)


def _begin(parent: int | None) -> Settings:
    if parent is not None:
        end_with(parent)
    settings = _settings()
    log_to_stderr(settings.log_format)
    return settings


def _database(settings: Settings) -> Database:
    try:
        return Database(connect(settings.database_url), lambda: datetime.now(UTC))
    except UnusableDatabase as error:
        _fail(f"database_url: {error}")


@contextmanager
def _opened(data: Path | None, new: bool = False) -> Iterator[Database]:
    """The database with its tables up to date, as long as the block lasts; only with `new` one is made."""
    settings = _settings(data_folder=data)
    file = missing(settings.database_url)
    if file is not None and not new:
        _fail(
            f"There is no database {file}. Name the service's folder with --data or {variable('data_folder')}; "
            "before its first `serve`, `token create --new` makes it."
        )
    database = _database(settings)
    try:
        migrate(database.engine)
        yield database
    except UnusableDatabase as error:
        _fail(f"database_url: {error}")
    finally:
        database.engine.dispose()


def _settings(**given: Any) -> Settings:
    """With the options that were given."""
    for wrong, right in MISNAMED.items():
        if wrong in os.environ:
            typer.echo(f"{wrong}: is no setting, {right} is; unset it.", err=True)
            raise typer.Exit(2)
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        _refuse(error)


def _refuse(error: ValidationError) -> NoReturn:
    for each in error.errors():
        if each["type"] != "default_factory_not_called":  # follows from another one
            typer.echo(f"{'.'.join(map(str, each['loc']))}: {phrase(each)}", err=True)
    raise typer.Exit(2)


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(1)


if __name__ == "__main__":
    app()
