"""BYOL with ViT-B/16 on one GPU: `./run bench gpu [--json FILE]`.

The time of a step beside a loop by hand with the same model, data, bf16 autocast, fused AdamW and EMA, in turns; and
the EMA's update beside the time that its memory traffic takes at the bandwidth of a plain copy, measured in the same
run. Without a GPU it says so and ends with exit code 2; `--tiny` tries the program itself on a CPU.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer
from torch import nn

from api_schemas.exchange import Launch
from api_schemas.jobs import JobSpec
from tests.benchmarks import finish, spread
from tests.benchmarks.peers.ddp import follow
from tests.benchmarks.peers.vit import Byol, byol_loss, two_views
from workers.archive import Archive
from workers.data import SampleOrder
from workers.device import Device
from workers.ema import Ema
from workers.journal import Journal
from workers.membership import Plan
from workers.mesh import Mesh, Rendezvous
from workers.trainer import Trainer

RHO = 0.996
TINY = {"image": 32, "patch": 16, "width": 32, "depth": 2, "heads": 2, "images": 64}
COPY_BYTES = 2**30


def main(
    batch: int = 64,
    steps: Annotated[int, typer.Option(help="Of a block.")] = 10,
    blocks: Annotated[int, typer.Option(help="Of each loop.")] = 7,
    tiny: Annotated[bool, typer.Option(help="A small model, on the CPU.")] = False,
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Measure both loops in turns, then the EMA alone."""
    if not (tiny or torch.cuda.is_available()):
        typer.echo("This needs a GPU, and PyTorch sees none here; --tiny tries the program on the CPU.", err=True)
        raise typer.Exit(2)
    device = Device("cpu" if tiny else "cuda", bf16=True)
    config = TINY if tiny else {}
    with tempfile.TemporaryDirectory() as folder:
        ours = _Ours(_spec(config, batch, gpu=not tiny), folder)
        plain = _Plain(Byol(Byol.Config.model_validate(config), 0), batch, device)
        for loop in (plain, ours):
            loop.run(3)
        times = [(_timed(device, plain.run, steps), _timed(device, ours.run, steps)) for _ in range(blocks)]
        ours.leave()
    result = {
        "device": "CPU" if tiny else torch.cuda.get_device_name(),
        "parameters": sum(p.numel() for p in plain.model.parameters()),
        "batch": batch,
        "plain_step_s": spread([p for p, _ in times]),
        "emascale_step_s": spread([o for _, o in times]),
        "ratio": round(statistics.median(p / o for p, o in times), 4),
        "ema": _ema(plain.model, device, blocks),
    }
    finish(result, output)


def _timed(device: Device, run: Callable[[int], None], steps: int) -> float:
    """Seconds of a step."""
    device.settle()
    began = time.monotonic()
    run(steps)
    device.settle()
    return (time.monotonic() - began) / steps


def _ema(model: nn.Module, device: Device, repeats: int) -> dict[str, Any]:
    """An update reads weights and shadow and writes the shadow: 12 bytes a parameter in fp32."""
    ema, size = Ema(model), sum(p.numel() for p in model.parameters())
    source = torch.ones(COPY_BYTES // 4 if device.is_gpu else COPY_BYTES // 64, device=device.torch)
    target = torch.empty_like(source)

    def update(times: int) -> None:
        for _ in range(times):
            ema.after_step(model, RHO, 1.0)

    def clone(times: int) -> None:
        for _ in range(times):
            target.copy_(source)

    update(3)
    clone(3)
    update_s = [_timed(device, update, 20) for _ in range(repeats)]
    bandwidth = 2 * source.nbytes / statistics.median(_timed(device, clone, 20) for _ in range(repeats))
    limit_s = 12 * size / bandwidth
    return {
        "update_s": spread(update_s, 6),
        "limit_s": round(limit_s, 6),
        "of_limit": round(limit_s / statistics.median(update_s), 3),
        "bandwidth_bytes_per_s": round(bandwidth),
    }


def _spec(config: dict[str, Any], batch: int, *, gpu: bool) -> JobSpec:
    made = {
        "name": "byol",
        "recipe": {"name": "tests.benchmarks.peers.vit:Byol", "config": config},
        "optimizer": {"name": "adamw", "lr": 1e-4},
        "schedule": {"budget": "1000000 epochs"},
        "ema": {"momentum": RHO},
        "batch": {"base": batch, "per_worker": batch},
        "resources": {"gpu": int(gpu)},
        "precision": "bf16",
    }
    return JobSpec.model_validate(made)


class _Ours:
    """The loop that a job runs, with a world of one."""

    def __init__(self, spec: JobSpec, folder: str) -> None:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
        launch, journal = Launch(job="j", incarnation=1, spec=spec, storage=folder), Journal()
        self._trainer = Trainer.of(launch, journal, Archive.of(launch, journal))
        at = Rendezvous(generation=1, host="127.0.0.1", port=store.port, rank=0, world=1)
        self._mesh = Mesh(at, gpu=self._trainer.device.is_gpu)
        self._mesh.join()
        plan = Plan(generation=1, members=("w0",), host=at.host, port=at.port, kappa=spec.elasticity.kappa)
        self._trainer.enter(self._mesh, plan)

    def run(self, steps: int) -> None:
        goal = self._trainer.replica.samples + steps * self._trainer.replica.size.batch
        self._trainer.run(self._mesh, lambda samples: samples >= goal)

    def leave(self) -> None:
        self._trainer.leave()
        self._mesh.leave()


class _Plain:
    """The same by hand, without DDP: there is nobody to reduce with."""

    def __init__(self, recipe: Byol, batch: int, device: Device) -> None:
        self.model = recipe.model().to(device.torch)
        self._shadow = copy.deepcopy(self.model).eval().requires_grad_(False)
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self._data = recipe.train_data()
        self._order = SampleOrder(len(self._data), seed=0)
        self._batch = batch
        self._device = device
        self._seen = 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
        _, indices = self._order.keys(self._seen, self._seen + self._batch)
        self._seen += self._batch
        images = self._device.put(self._device.pin(self._data.tensors[0][indices]))
        with self._device.autocast():
            loss = byol_loss(self.model, self._shadow, two_views(images))
        loss.float().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        follow(self._shadow, self.model, 1 - RHO)


if __name__ == "__main__":
    typer.run(main)
