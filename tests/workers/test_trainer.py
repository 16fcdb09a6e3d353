"""The trainer alone, a world of one over a real process group: what it trains, and what it takes back."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from api_schemas import scaling
from api_schemas.jobs import JobSpec
from workers import checkpoint
from workers.archive import Archive
from workers.data import SampleOrder
from workers.journal import Journal
from workers.membership import Plan
from workers.mesh import Mesh, MeshBroken, Rendezvous, TCPStore
from workers.recipes import StepContext
from workers.storage import Storage, StorageError
from workers.trainer import Trainer

HOST = "127.0.0.1"
SIZE, BATCH, STEPS = 100, 16, 40


def net(dropout: float) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(dropout), nn.Linear(8, 1))


class Regress:
    """Fit a plane; `strikes` names the calls of `loss` in which a peer is lost."""

    def __init__(self, dropout: float) -> None:
        self.dropout = dropout
        self.calls = 0
        self.strikes: set[int] = set()
        self.mesh: Mesh | None = None

    def model(self) -> nn.Module:
        return net(self.dropout)

    def train_data(self) -> TensorDataset:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(SIZE, 4, generator=generator)
        return TensorDataset(x, x.sum(dim=1, keepdim=True))

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:  # noqa: ARG002
        self.calls += 1
        x, y = batch
        loss = nn.functional.mse_loss(model(x), y)
        if self.calls in self.strikes and self.mesh:
            self.mesh.sever()
        return loss

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"weights": sum(float(p.detach().sum()) for p in model.parameters())}


def spec(**changes: Any) -> JobSpec:
    made: dict[str, Any] = {
        "name": "plane",
        "recipe": {"name": "any"},
        "optimizer": {"name": "adamw", "lr": 1e-2},
        "schedule": {"budget": f"{STEPS * BATCH} samples", "warmup": "5 base_steps", "lr": "cosine"},
        "ema": {"momentum": 0.9},
        "batch": {"base": BATCH, "per_worker": BATCH},
        "seed": 3,
    }
    return JobSpec.model_validate(made | changes)


class Desk:
    """A trainer, and the generations that it goes through."""

    def __init__(
        self,
        folder: Path,
        store: TCPStore,
        job: JobSpec,
        dropout: float = 0.2,
        kind: Callable[[str], Storage] = Storage,
    ) -> None:
        self.recipe, self.journal = Regress(dropout), Journal()
        self.storage = kind(str(folder))
        archive = Archive(self.storage, self.journal, incarnation=1, keep=3, about={})
        self.trainer = Trainer(job, self.recipe, self.journal, archive)  # type: ignore[arg-type]
        self._port = store.port
        self.generation = 0

    def train(self, *, leave_at: int | None = None, kappa: tuple[float, float] = (1e-3, 1e4)) -> bool:
        """One generation; False: it was left at that sample, or broke."""
        self.generation += 1
        where = Rendezvous(generation=self.generation, host=HOST, port=self._port, rank=0, world=1)
        self.recipe.mesh = mesh = Mesh(where)
        try:
            mesh.join()
            self.trainer.enter(mesh, self._plan(kappa))
            return self.trainer.run(mesh, lambda samples: leave_at is not None and samples >= leave_at)
        except MeshBroken:
            self.trainer.undo()
            return False
        finally:
            self.trainer.leave()
            mesh.leave()

    def _plan(self, kappa: tuple[float, float]) -> Plan:
        return Plan(
            generation=self.generation,
            members=("w0",),
            host=HOST,
            port=self._port,
            not_before=0,
            kappa=kappa,
            cause="api",
            reason="asked for",
            decide_s=0,
        )

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [record for _, record in self.journal.records(0) if record["type"] == kind]

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint would hold."""
        groups = self.trainer.replica.state().groups
        return {f"{group}.{name}": t.clone() for group, named in groups.items() for name, t in named.items()}


class SlowStorage(Storage):
    """Stores no tensors before it is `released`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.released = threading.Event()

    def write(self, key: str, data: bytes) -> None:
        if key.endswith(".safetensors") and not self.released.wait(10):
            raise StorageError("write", key, "it took too long")
        super().write(key, data)


@pytest.fixture
def store() -> TCPStore:
    return TCPStore(HOST, 0, is_master=True, wait_for_workers=False)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_trains_as_a_plain_loop_does(tmp_path: Path, store: TCPStore) -> None:
    desk = Desk(tmp_path, store, spec(), dropout=0.0)
    assert desk.train()
    model = net(0.0).train()
    shadow = copy.deepcopy(list(model.parameters()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    x, y = desk.recipe.train_data().tensors
    order = SampleOrder(SIZE, 3)
    for start in range(0, STEPS * BATCH, BATCH):
        optimizer.param_groups[0]["lr"] = 1e-2 * scaling.lr_multiplier(start, 5 * BATCH, STEPS * BATCH)
        _, indices = order.keys(start, start + BATCH)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[indices]), y[indices]).backward()
        optimizer.step()
        with torch.no_grad():
            for average, weight in zip(shadow, model.parameters(), strict=True):
                average.lerp_(weight, 0.1)
    trained = desk.trainer.replica
    assert trained.ema is not None
    for mine, plain in zip(trained.model.state_dict().values(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-6, atol=1e-7)
    for mine, average in zip(trained.ema.module.parameters(), shadow, strict=True):
        torch.testing.assert_close(mine, average, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("strikes", [{1}, {7}, {8, 9, 30}])
def test_a_step_that_was_not_confirmed_is_done_again_bit_for_bit(
    tmp_path: Path, store: TCPStore, strikes: set[int]
) -> None:
    """Weights, BatchNorm, dropout, optimizer, EMA: as if nobody had been lost."""
    calm, struck = Desk(tmp_path / "a", store, spec()), Desk(tmp_path / "b", store, spec())
    assert calm.train()
    struck.generation = 100
    struck.recipe.strikes = strikes
    ends = [struck.train() for _ in range(len(strikes) + 1)]
    assert ends == [False] * len(strikes) + [True]
    assert struck.recipe.calls == STEPS + len(strikes)
    assert same(struck.state(), calm.state())


def test_a_backward_pass_that_is_in_vain_ends_at_the_next_bucket(
    tmp_path: Path, store: TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after all layers: who is still in it holds up all others."""
    layers = [nn.Linear(1024, 1024) for _ in range(24)]  # four times what a bucket holds
    monkeypatch.setattr(Regress, "model", lambda _: nn.Sequential(nn.Linear(4, 1024), *layers, nn.Linear(1024, 1)))
    desk = Desk(tmp_path, store, spec())
    passed: list[int] = []

    def severing(number: int) -> None:
        if desk.recipe.calls == 2 and desk.recipe.mesh:  # in the first step all lies in one bucket
            passed.append(number)
            desk.recipe.mesh.sever()

    for number, layer in enumerate(layers):
        layer.register_full_backward_hook(lambda *_, number=number: severing(number))
    assert not desk.train()
    assert passed[0] == len(layers) - 1
    assert len(passed) < len(layers) / 2


def test_a_boundary_in_between_changes_nothing(tmp_path: Path, store: TCPStore) -> None:
    calm, moved = Desk(tmp_path / "a", store, spec()), Desk(tmp_path / "b", store, spec())
    assert calm.train()
    moved.generation = 100
    assert not moved.train(leave_at=5 * BATCH)
    assert moved.trainer.replica.samples == 5 * BATCH
    assert moved.train()
    assert same(moved.state(), calm.state())


def test_another_kappa_takes_effect_at_the_boundary_and_is_reported(tmp_path: Path, store: TCPStore) -> None:
    desk = Desk(tmp_path, store, spec(batch={"base": BATCH, "per_worker": 2 * BATCH}))
    desk.train(leave_at=4 * BATCH, kappa=(1, 1))
    assert desk.train(kappa=(1, 2))
    first, second = desk.said("entered")
    assert (first["kappa"], second["kappa"]) == ((1.0, 1.0), (1.0, 2.0))
    assert second["samples"] == 4 * BATCH
    assert second["after"]["ema_momentum"] == pytest.approx(0.81)
    assert second["state_factors"]["step"] == 0.5
    assert desk.trainer.done


def test_what_is_due_is_done_once_and_the_end_leaves_everything(
    tmp_path: Path, store: TCPStore, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path, store, spec(evaluation={"every": "1 epochs"}, checkpoint={"every": "2 epochs", "keep": 9}))
    assert desk.train()
    total = STEPS * BATCH
    assert [each["samples"] for each in desk.said("evaluated")] == [112, 208, 304, 400, 512, 608, total]
    assert len(re.findall(r"sample \d+: evaluation: weights -?[\d.]+ \(EMA -?[\d.]+\)\n", capsys.readouterr().out)) == 7
    assert desk.said("checkpoint_saved")[-1]["samples"] == total
    (exported,) = desk.said("exported")
    assert set(exported["artifacts"]) == {"model.safetensors", "ema.safetensors"}
    assert [samples for samples, _ in desk.journal.points(0)][-1] == total


def test_another_life_goes_on_from_the_checkpoint_bit_for_bit(tmp_path: Path, store: TCPStore) -> None:
    job = spec(checkpoint={"every": "10 base_steps"})
    calm, cut = Desk(tmp_path / "a", store, job), Desk(tmp_path / "b", store, job)
    assert calm.train()
    cut.generation = 100
    assert not cut.train(leave_at=20 * BATCH)
    cut.trainer._archive.save(cut.trainer.replica.state(), last=True)
    heir = Desk(tmp_path / "b", store, job)
    heir.generation = 200
    assert heir.train()
    assert heir.said("entered")[0]["samples"] == 20 * BATCH
    assert heir.said("entered")[0]["restored"]
    assert same(heir.state(), calm.state())


def test_training_waits_for_the_copy_of_a_checkpoint_and_not_for_its_writing(tmp_path: Path, store: TCPStore) -> None:
    """Many steps are done while nothing can be stored; what is stored then is the state of long ago."""
    job = spec(checkpoint={"every": "10 base_steps"})
    calm = Desk(tmp_path / "a", store, job)
    assert not calm.train(leave_at=10 * BATCH)
    then = calm.state()
    slow = Desk(tmp_path / "b", store, job, kind=SlowStorage)
    slow.generation = 100
    assert not slow.train(leave_at=35 * BATCH)
    assert slow.trainer.replica.samples == 35 * BATCH
    assert not slow.said("checkpoint_saved")
    assert not slow.said("checkpoint_failed")
    assert isinstance(slow.storage, SlowStorage)
    slow.storage.released.set()
    assert slow.train()
    saved = [each["samples"] for each in slow.said("checkpoint_saved")]
    waited = [samples for samples in saved if samples not in (10 * BATCH, STEPS * BATCH)]
    assert (saved[0], saved[-1]) == (10 * BATCH, STEPS * BATCH)
    assert waited in ([30 * BATCH], []), "a newer one takes the place of the one that waits"
    kept = checkpoint.load(slow.storage, checkpoint.checkpoint_name(10 * BATCH))
    assert same({f"{group}.{name}": t for group, named in kept.tensors.items() for name, t in named.items()}, then)


def test_a_loss_that_is_not_finite_is_told_once(tmp_path: Path, store: TCPStore) -> None:
    desk = Desk(tmp_path, store, spec(optimizer={"name": "sgd", "lr": 1e12}, schedule={"budget": "20 base_steps"}))
    assert desk.train()
    (warning,) = desk.said("warning")
    assert warning["code"] == "loss_not_finite"


def test_in_bf16_weights_and_their_average_stay_in_fp32_and_go_the_same_way(tmp_path: Path, store: TCPStore) -> None:
    wide, narrow = (
        Desk(tmp_path / name, store, spec(precision=name, ema={"momentum": 0.999}), dropout=0.0)
        for name in ("fp32", "bf16")
    )
    assert wide.train()
    narrow.generation = wide.generation
    assert narrow.train()
    ours, theirs = narrow.state(), wide.state()
    assert {t.dtype for t in ours.values() if t.is_floating_point()} == {torch.float32}
    a, b = (torch.cat([t.flatten() for name, t in each.items() if "ema." in name]) for each in (ours, theirs))
    assert 0 < (a - b).norm() < 0.1 * b.norm()


def test_who_begins_after_a_broken_exchange_begins_with_the_initial_weights(tmp_path: Path, store: TCPStore) -> None:
    """A joiner receives into its own tensors. If nobody with a state is left then, it is the first of all."""
    desk, other = (Desk(tmp_path / name, store, spec()) for name in ("one", "other"))
    replica = desk.trainer.replica
    landing = replica.landing()
    assert landing is not None
    assert landing["model"]["0.weight"].data_ptr() == replica.model.state_dict()["0.weight"].data_ptr()
    assert landing["optimizer"]["0.exp_avg"].shape == (8, 4)
    for tensors in landing.values():
        for tensor in tensors.values():
            tensor.fill_(7)
    assert desk.train()
    assert other.train()
    assert replica.landing() is None
    ours, theirs = replica.state(), other.trainer.replica.state()
    assert ours.groups.keys() == theirs.groups.keys()
    for group, tensors in ours.groups.items():
        assert all(torch.equal(tensor, theirs.groups[group][name]) for name, tensor in tensors.items())
