"""The paper's toy, against its recursion worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from api_schemas.exchange import Launch
from api_schemas.jobs import JobSpec
from tests.workers.peers import HOST
from workers.archive import Archive
from workers.journal import Journal
from workers.membership import Plan
from workers.mesh import Mesh, Rendezvous
from workers.recipes.parabola import Parabola
from workers.trainer import Trainer

ETA, RHO = 1e-3, 0.999
STEPS = 2048


def trained(folder: Path, kappa: int, **config: Any) -> Trainer:
    """With SGD, one sample a base step."""
    spec = JobSpec.model_validate(
        {
            "name": "parabola",
            "recipe": {"name": "parabola", "config": config},
            "optimizer": {"name": "sgd", "lr": ETA},
            "schedule": {"budget": f"{STEPS} samples"},
            "ema": {"momentum": RHO, "order": "before"},
            "batch": {"base": 1, "per_worker": kappa},
        }
    )
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    launch, journal = Launch(job="j", incarnation=1, spec=spec, storage=str(folder)), Journal()
    trainer = Trainer.of(launch, journal, Archive.of(launch, journal))
    mesh = Mesh(Rendezvous(generation=1, host=HOST, port=store.port, rank=0, world=1))
    mesh.join()
    trainer.enter(mesh, Plan(generation=1, members=("w0",), kappa=(1e-3, 1e4)))
    assert trainer.run(mesh, lambda _: False)
    trainer.leave()
    mesh.leave()
    return trainer


def recursion(kappa: int) -> tuple[float, float]:
    """Weight and average after all steps without noise."""
    theta = ema = 1.0
    for _ in range(STEPS // kappa):
        ema = RHO**kappa * ema + (1 - RHO**kappa) * theta
        theta -= kappa * ETA * theta
    return theta, ema


@pytest.mark.parametrize("kappa", [1, 16])
def test_without_noise_weight_and_average_are_those_of_the_recursion(tmp_path: Path, kappa: int) -> None:
    replica = trained(tmp_path, kappa, b=0.0).replica
    assert replica.ema is not None
    found = [next(module.parameters()).item() for module in (replica.model, replica.ema.module)]
    assert found == pytest.approx(recursion(kappa), rel=1e-12)


def test_the_gradient_of_a_batch_has_the_noise_that_it_should() -> None:
    recipe = Parabola(Parabola.Config(a=2.0, b=0.5, c=3.0, theta0=1.5, size=2**16), seed=1)
    model, (noise,) = recipe.model(), recipe.train_data().tensors
    (gradient,) = torch.autograd.grad(model(noise).sum(), model.parameters())
    assert float(gradient) / len(noise) == pytest.approx(2.0 * 1.5, abs=0.05)
    parameter = next(model.parameters())
    each = torch.stack([torch.autograd.grad(model(z[None]).sum(), parameter)[0] for z in noise[:4000]])
    assert float(each.var()) == pytest.approx(0.5 * (2.0 * 1.5) ** 2 + 3.0, rel=0.1)


def test_it_says_where_it_is() -> None:
    recipe = Parabola(Parabola.Config(a=2.0, theta0=3.0), seed=0)
    assert recipe.evaluate(recipe.model()) == {"loss": 9.0, "theta": 3.0}
