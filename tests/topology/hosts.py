"""Machines to run roles on, as far as one machine can be several.

Each is a network namespace with an address of its own on a bridge, and what runs on it has a process namespace of its
own, as a container has. Where namespaces are not permitted, a machine is a loopback address.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from service.processes import Process, end_session

PATIENCE_S = 60
ENDING_WITH_US = ("setpriv", "--pdeathsig=KILL")
"""Whoever kills the tests ends what they run."""
_WITHIN = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


class Machine(Protocol):
    """Where a role runs."""

    ip: str
    listens_on: str
    """The address that a service there listens on, for all others to reach it."""

    def command(self, role: list[str]) -> list[str]:
        """What starts it there."""

    def environment(self) -> dict[str, str]:
        """What it has to know of where it is."""

    def first(self, started: Process) -> int:
        """The process of the role itself, which signals are for."""


class Namespace:
    """A network namespace, with a leg on a bridge."""

    listens_on = "0.0.0.0"  # as docker-compose.yml says

    def __init__(self, bridge: str, name: str, ip: str, gateway: str) -> None:
        self.ip = ip
        self._name = f"{bridge}-{name}"
        leg = f"{bridge}{name}"
        _ip("netns", "add", self._name)
        _ip("link", "add", leg, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _ip("link", "set", leg, "master", bridge, "up")
        for words in (
            ["addr", "add", f"{ip}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            _ip("-n", self._name, *words)
        _ip("-n", self._name, "route", "add", "default", "via", gateway)  # by which Ray finds its own address

    def command(self, role: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self._name, *_WITHIN, *role]

    def environment(self) -> dict[str, str]:
        return {}

    def first(self, started: Process) -> int:
        """The child of `unshare`, number 1 in there."""
        return int(Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()[0])

    def remove(self) -> None:
        _ip("netns", "delete", self._name)


class Loopback:
    """A loopback address."""

    def __init__(self, ip: str) -> None:
        self.ip = ip
        self.listens_on = ip  # all machines share the loopback

    def command(self, role: list[str]) -> list[str]:
        return role

    def environment(self) -> dict[str, str]:
        return {"EMASCALE_NODE_IP": self.ip}

    def first(self, started: Process) -> int:
        return started.pid


class Running:
    """A role that was started."""

    def __init__(self, machine: Machine, role: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.ip = machine.ip
        self._machine = machine
        self._environment = {**environment, **machine.environment()}
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*ENDING_WITH_US, *machine.command(role)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        leader = Process.of(self._process.pid)
        assert leader is not None  # not waited for yet, so it keeps its number
        self._leader = leader

    def beside(self, command: list[str]) -> int:
        """The exit status of another command there, as `docker exec` runs one."""
        return subprocess.run(self._machine.command(command), env=self._environment, timeout=PATIENCE_S).returncode

    def log(self) -> str:
        """Everything that it said."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """Tell it to stop, as `docker stop` does; returns once it has ended."""
        os.kill(self._machine.first(self._leader), signal.SIGTERM)
        self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        """A power cut; nothing where it has ended."""
        end_session(self._leader)
        self._process.wait(PATIENCE_S)


class Net:
    """The machines, and the address at which this process can be reached from all of them."""

    def __init__(self, bridge: str | None) -> None:
        self._bridge = bridge
        self._machines: dict[str, Machine] = {}
        self.here = _address(bridge, 1)

    @property
    def has_namespaces(self) -> bool:
        return self._bridge is not None

    def machine(self, name: str) -> Machine:
        """The one of this name; it is made where there is none yet."""
        if name not in self._machines:
            ip = _address(self._bridge, len(self._machines) + 2)
            made = Namespace(self._bridge, name, ip, self.here) if self._bridge else Loopback(ip)
            self._machines[name] = made
        return self._machines[name]

    def remove(self) -> None:
        for machine in self._machines.values():
            if isinstance(machine, Namespace):
                machine.remove()


@contextmanager
def network(*, namespaces: bool) -> Iterator[Net]:
    """For as long as the block; what runs on it must have ended by then."""
    with ExitStack() as cleanup:
        bridge = f"ema{os.getpid() % 100_000}" if namespaces else None
        if bridge:
            _ip("link", "add", bridge, "type", "bridge")
            cleanup.callback(_ip, "link", "delete", bridge)
            _ip("addr", "add", f"{_address(bridge, 1)}/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
        net = Net(bridge)
        cleanup.callback(net.remove)
        yield net


def namespaces_permitted() -> bool:
    """Whether this process may make network and process namespaces."""
    if os.geteuid() or not (shutil.which("ip") and shutil.which("unshare")):
        return False
    a_bridge = ["ip", "link", "add", "ema", "type", "bridge"]
    tried = subprocess.run([*_WITHIN, "--net", *a_bridge], capture_output=True)
    return tried.returncode == 0


def _address(bridge: str | None, number: int) -> str:
    """Of a range for tests between networks (RFC 2544), or of the loopback's."""
    return f"198.18.{os.getpid() % 250}.{number}" if bridge else f"127.0.4.{number}"


def _ip(*words: str) -> None:
    """What iproute2 does; its own words where it does not."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
