"""A cluster of several machines: the roles of the containers, as real processes, and what they keep their data in."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from api_schemas.client import Client
from api_schemas.errors import ServiceUnreachable
from api_schemas.views import ClusterView
from service.processes import wait_until
from tests.postgres import PostgresServer, postgres_server
from tests.topology.hosts import Net, Running, network
from tests.topology.images import Image
from tests.topology.objects import object_store

PATIENCE_S = 120
RAY_PORT = 6379


class Cluster:
    """Head, services and workers, each on a machine of its own."""

    def __init__(
        self,
        net: Net,
        folder: Path,
        images: Mapping[str, Image],
        storage: Mapping[str, str],
        postgres: PostgresServer,
        database_url: str,
    ) -> None:
        """`storage`: the variables by which the store of objects is used. The database and the bucket are empty."""
        self.folder = folder
        self.postgres = postgres
        self._database_url = database_url
        self.objects = storage["AWS_ENDPOINT_URL"]
        self._net = net
        self._images = images
        token = folder / "token"
        with open(os.open(token, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        self._shared = {
            **storage,
            "EMASCALE_STORAGE_URL": "s3://emascale/jobs",
            "EMASCALE_RAY_ADDRESS": f"{net.machine('head').ip}:{RAY_PORT}",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }
        self._running: dict[str, Running] = {}
        self._checks: dict[str, list[str]] = {}  # of health
        self._token = ""  # of the service, once somebody needs it
        self._client: Client | None = None

    @property
    def has_namespaces(self) -> bool:
        """Whether its machines are namespaces, and not addresses of one loopback."""
        return self._net.has_namespaces

    @property
    def client(self) -> Client:
        assert self._client is not None, "the service was started"
        return self._client

    def start(self, role: str, name: str, **settings: str) -> Running:
        """A role on the machine of this name; on one that has run it before, as a container that is started again."""
        image = self._images["worker" if role == "worker" else "service"]
        sessions = self.folder / name
        sessions.mkdir(exist_ok=True)
        environment = {
            **image.environment(),
            **self._shared,
            **settings,
            "HOME": str(sessions),
            "RAY_TMPDIR": str(sessions),
        }
        machine = self._net.machine(name)
        self._running[name] = Running(machine, image.role(role), environment, self.folder / f"{name}.log")
        self._checks[name] = [*image.role("healthy"), role]
        return self._running[name]

    def check(self, name: str) -> int:
        """The exit status of the health check that the container on the machine of this name has."""
        return self._running[name].beside(self._checks[name])

    def serve(self, name: str = "service") -> None:
        """A service, for others than its own machine, and the one that `client` asks from now on."""
        machine = self._net.machine(name)
        ip = machine.ip
        settings = {
            "EMASCALE_HOST": machine.listens_on,
            "EMASCALE_AUTH": "token",
            "EMASCALE_ALLOWED_HOSTS": ip,
            "EMASCALE_DATABASE_URL": self._database_url,
            "EMASCALE_DATA_FOLDER": str(self.folder / "data" / name),
        }
        self.start("service", name, **settings)
        self._token = self._token or self._make_token(settings)
        if self._client is not None:
            self._client.close()
        self._client = Client(f"http://{ip}:8000", token=self._token)
        self.until(lambda cluster: cluster.connected)

    def role(self, name: str) -> Running:
        """What runs on the machine of this name."""
        return self._running[name]

    def worker(self, name: str) -> Running:
        return self.start("worker", name, EMASCALE_SLOTS="1", EMASCALE_GRACE_S="60")

    def until(self, condition: Callable[[ClusterView], bool]) -> None:
        """Wait for the service to see the cluster so."""

        def met() -> bool:
            with suppress(ServiceUnreachable):
                return condition(self.client.cluster())
            return False

        assert wait_until(met, PATIENCE_S), self.story()

    def has_workers(self, *names: str) -> None:
        """Wait until these are the nodes with slots."""
        ips = sorted(self._net.machine(name).ip for name in names)
        self.until(lambda view: sorted(node.address for node in view.nodes if node.cpu) == ips)

    def story(self) -> str:
        """What every role said, for the report of a failed test."""
        return "\n".join(f"--- {name}\n{running.log()}" for name, running in self._running.items())

    def end(self) -> None:
        if self._client is not None:
            self._client.close()
        for running in self._running.values():
            running.kill()

    def _make_token(self, settings: Mapping[str, str]) -> str:
        """By the command that an administrator uses, with what the service's container has."""
        image = self._images["service"]
        command = [image.python / "python", "-m", "service", "token", "create", "--name=test", "--scope=admin"]
        environment = {**image.environment(), **settings}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def cluster(images: Mapping[str, Image], postgres: Path, *, namespaces: bool) -> Iterator[Cluster]:
    """A cluster without roles yet."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory(prefix="emt-", dir="/tmp", ignore_cleanup_errors=True)))
        net = opened.enter_context(network(namespaces=namespaces))
        server = opened.enter_context(postgres_server(postgres))
        database_url = opened.enter_context(server.database())
        storage = opened.enter_context(object_store(net.here, folder / "objects"))
        made = Cluster(net, folder, images, storage, server, database_url)
        opened.callback(made.end)
        yield made
