"""A crew of real processes without Ray: each holds a `Member`, and can be prepared to go wrong at a certain moment.

Processes are forked from a server that has imported everything, so a new worker costs hardly more than its model.
"""

from __future__ import annotations

import asyncio
import faulthandler
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # every optimizer imports it, which takes seconds: here it is once for all workers
import torch.distributed as dist
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from api_schemas.exchange import Launch
from api_schemas.jobs import JobSpec
from tests.workers.stage import KAPPA, Stage
from workers.member import Member
from workers.membership import Plan
from workers.recipes import StepContext
from workers.roll import WorkerGone
from workers.status import Phase, Status
from workers.trainer import Trainer

HOST = "127.0.0.1"
BATCH = 12
"""Samples of a step, whatever the number of workers."""

Preparation = Callable[[], None]
"""Runs in the process of a worker before it warms up; can be pickled."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__])


class Plane:
    """Fit a plane: nothing in it depends on who computes what, but for the rounding of sums."""

    class Config(BaseModel):
        pass

    def __init__(self, _: BaseModel, seed: int) -> None:
        self._seed = seed

    def model(self) -> nn.Module:
        torch.manual_seed(self._seed)
        return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))

    def train_data(self) -> TensorDataset:
        x = torch.randn(240, 4, generator=torch.Generator().manual_seed(1))
        return TensorDataset(x, x.sum(dim=1, keepdim=True))

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:  # noqa: ARG002
        x, y = batch
        return nn.functional.mse_loss(model(x), y)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"loss": sum(float(p.detach().sum()) for p in model.parameters())}


def plane(**changes: Any) -> JobSpec:
    """A job that trains it until it is stopped."""
    made: dict[str, Any] = {
        "name": "plane",
        "recipe": {"name": f"{__name__}:Plane"},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "schedule": {"budget": "1000000 epochs"},
        "ema": {"momentum": 0.9},
        "batch": {"base": BATCH, "per_worker": BATCH},
        "elasticity": {"mode": "hold", "workers": (1, 8), "kappa": KAPPA},
    }
    return JobSpec.model_validate(made | changes)


class Company:
    """The crew; with `witnesses`, every worker writes down there what its replica is after each step."""

    def __init__(self, launch: Launch, witnesses: Path | None = None) -> None:
        self._launch = launch
        self._witnesses = witnesses
        self._players: dict[str, _Player] = {}
        self._spares: list[_Player] = []
        self.prepared: dict[str, Preparation] = {}  # by worker

    # -- as a Crew -----------------------------------------------------------------------------------------------------

    async def adopt(self) -> dict[str, bool]:
        return dict.fromkeys(self._players, True)

    async def start(self, worker: str) -> None:
        player = self._spares.pop() if self._spares else await asyncio.to_thread(_Player)
        player.attach()
        self._players[worker] = player
        preparation = self.prepared.get(worker)
        player.send("cast", (self._launch.model_dump_json(), worker, self._witnesses, preparation))

    async def poll(self, worker: str, *, version: int, heard: int, seen: int, wait_s: float) -> Status:
        cursors = {"version": version, "heard": heard, "seen": seen, "wait_s": wait_s}
        status: Status = await self._player(worker).call("poll", cursors)
        return status

    async def announce(self, worker: str, plan: Plan) -> None:
        await self._player(worker).call("announce", {"plan": plan})

    async def sever(self, worker: str, generation: int) -> None:
        await self._player(worker).call("sever", {"generation": generation})

    async def retire(self, worker: str, generation: int | None) -> None:
        await self._player(worker).call("retire", {"generation": generation})

    async def kill(self, worker: str) -> None:
        player = self._players.pop(worker, None)
        if player is not None:
            await player.end()

    def _player(self, worker: str) -> _Player:
        if worker not in self._players:
            raise WorkerGone("It was dismissed.")
        return self._players[worker]

    # -- the test's hand in it -----------------------------------------------------------------------------------------

    def step(self) -> None:
        """They train by themselves."""

    async def stand_by(self, count: int) -> None:
        """Have so many processes ready for those who are started next."""
        while len(self._spares) < count:
            self._spares.append(await asyncio.to_thread(_Player))

    def strike(self, worker: str, number: signal.Signals = signal.SIGKILL) -> None:
        """From outside; the roll has to find out."""
        os.kill(self.pid(worker), number)

    def pid(self, worker: str) -> int:
        return self._players[worker].pid

    @property
    def living(self) -> list[str]:
        return [worker for worker, player in self._players.items() if player.is_alive]

    async def disband(self) -> None:
        """Everybody is gone."""
        for player in [*self._players.values(), *self._spares]:
            await player.end()
        self._players, self._spares = {}, []


class _Player:
    """A process, which may be called by several at once."""

    def __init__(self) -> None:
        self._connection, theirs = _forks.Pipe()
        self._process = _forks.Process(target=_live, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._gone = False
        self._attached = False

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def attach(self) -> None:
        """Hear its answers in the running loop."""
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._hear)
        self._attached = True

    def send(self, method: str, payload: Any) -> int:
        number = next(self._numbers)
        try:
            self._connection.send((number, method, payload))
        except OSError:
            self._lose()
        return number

    async def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """Raises WorkerGone."""
        number = self.send(method, arguments)
        if self._gone:
            raise WorkerGone("Its process ended.")
        self._calls[number] = asyncio.get_running_loop().create_future()
        return await self._calls[number]

    async def end(self) -> None:
        self._lose()
        self._process.kill()
        await asyncio.to_thread(self._process.join)
        self._connection.close()

    def _hear(self) -> None:
        try:
            number, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(1.0)
            return self._lose(f"Its process ended, with {self._process.exitcode}.")
        call = self._calls.pop(number, None)
        if call is not None and not call.done():
            if isinstance(answer, Exception):
                call.set_exception(answer)
            else:
                call.set_result(answer)
        return None

    def _lose(self, reason: str = "Its process ended.") -> None:
        self._gone = True
        if self._attached:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._attached = False
        for call in self._calls.values():
            if not call.done():
                call.set_exception(WorkerGone(reason))
        self._calls = {}


# -- in the process of a worker ----------------------------------------------------------------------------------------


def _live(connection: Connection) -> None:
    faulthandler.enable()  # a process that crashes says where
    torch.set_num_threads(1)
    lock = threading.Lock()
    member: Member | None = None

    def answer(number: int, method: str, arguments: dict[str, Any]) -> None:
        try:
            result = getattr(member, method)(**arguments)
        except Exception as error:
            result = error
        with lock, suppress(OSError):
            connection.send((number, result))

    with suppress(EOFError):
        while True:
            number, method, payload = connection.recv()
            if method == "cast":
                member = _cast(*payload)
            else:
                threading.Thread(target=answer, args=(number, method, payload), daemon=True).start()
    os._exit(0)


def _cast(launch_json: str, worker: str, witnesses: Path | None, preparation: Preparation | None) -> Member:
    if witnesses:
        _witness(witnesses / f"{worker}.jsonl")
    if preparation:
        preparation()
    member = Member(Launch.model_validate_json(launch_json), worker)
    member.start()
    return member


def _witness(place: Path) -> None:
    """Write down every committed step of this process."""
    step = Trainer.step

    def witnessed(self: Trainer, *args: Any) -> bool:
        ended = step(self, *args)
        with place.open("a") as file:
            print(json.dumps([self.replica.samples, digest(self)]), file=file)
        return ended

    Trainer.step = witnessed  # type: ignore[method-assign]


def digest(trainer: Trainer) -> str:
    """Of everything that a checkpoint would hold."""
    found = hashlib.blake2b(digest_size=12)
    for named in trainer.replica.state().groups.values():
        for name, tensor in named.items():
            found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    found.update(json.dumps(trainer.replica.noise.to_dict()).encode())
    return found.hexdigest()


# -- a job -------------------------------------------------------------------------------------------------------------


class Theatre(Stage):
    """A conductor with a company, asked as the service asks it."""

    patience_s = 60.0
    crew: Company

    def __init__(self, folder: Path, spec: JobSpec | None = None, *, watched: bool = True) -> None:
        """`watched`: every worker writes down what its replica is after each step."""
        launch = Launch(job="j", incarnation=1, spec=spec or plane(), storage=str(folder / "storage"))
        self.witnesses = folder / "witnesses"
        self.witnesses.mkdir(parents=True)
        self.store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
        super().__init__(launch=launch, crew=Company(launch, self.witnesses if watched else None))

    def _meet(self) -> tuple[str, int]:
        return HOST, self.store.port

    async def until(self, condition: Callable[[], object], *, training: bool = True, ask: bool = True) -> None:
        """As on any stage, but without patience for a job that has come to an end."""
        await super().until(lambda: condition() or (self.report and self.report.done), training=training, ask=ask)
        assert condition(), self.events[-1]

    async def end(self) -> None:
        """Nobody is left."""
        await self.die()
        await self.crew.disband()

    def training(self) -> tuple[str, ...]:
        """Who trains, as the roll saw it last."""
        workers = self.conductor._roll.workers
        return tuple(name for name, status in workers.items() if status.phase is Phase.TRAINING)

    def awake(self) -> int:
        """How many are warm, or train."""
        return sum(status.phase in (Phase.READY, Phase.TRAINING) for status in self.conductor._roll.workers.values())

    async def trains(self, *workers: str, samples: int = 5 * BATCH) -> None:
        """Until these and nobody else do, and have done so for a while."""
        await self.until(lambda: self.training() == workers)
        reached = self.heard_of + samples
        await self.until(lambda: self.training() == workers and self.heard_of >= reached)

    def steps(self) -> dict[int, dict[str, str]]:
        """Samples -> worker -> digest of its replica, where a worker took that step last."""
        found: dict[int, dict[str, str]] = {}
        for place in sorted(self.witnesses.iterdir()):
            for line in place.read_text().splitlines(keepends=True):
                if line.endswith("\n"):  # else it died while it wrote
                    samples, seen = json.loads(line)
                    found.setdefault(samples, {})[place.stem] = seen
        return found

    def check_replicas(self, killed: Sequence[str] = ()) -> None:
        """Whoever took a step had the same replica after it, and no step is missing.

        Those `killed` in one moment may have taken a last step that nobody else heard confirmed; the others did it
        again, by fewer of them, whose sums are rounded otherwise.
        """
        steps = self.steps()
        for worker in killed:
            del steps[max(samples for samples, seen in steps.items() if worker in seen)][worker]
        assert sorted(steps) == list(range(BATCH, BATCH * len(steps) + 1, BATCH))
        differing = {samples: seen for samples, seen in steps.items() if len(set(seen.values())) > 1}
        assert not differing


def perform(script: Callable[[Theatre], Any], folder: Path, spec: JobSpec | None = None) -> Theatre:
    """The script in a theatre of its own, to its end; nobody is left then."""

    async def run() -> Theatre:
        theatre = Theatre(folder, spec)
        try:
            await script(theatre)
        finally:
            await theatre.end()
        theatre.check_line()
        return theatre

    return asyncio.run(run())
