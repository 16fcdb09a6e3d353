"""BatchNorm's momenta and counters at another kappa, and its statistics across workers."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from workers.batchnorm import BatchNorms, BufferSnapshot, average_buffers, batch_statistics


def net() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3, momentum=0.1),
        nn.Flatten(),
        nn.BatchNorm1d(108, momentum=None),
        nn.BatchNorm1d(108, momentum=0.3, track_running_stats=False),
    )


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5), st.integers(1, 8), st.integers(1, 3))
def test_momenta_come_from_base_values_and_never_compound(kappas: list[float], forwards: int, base: int) -> None:
    model = net()
    norms = BatchNorms(model)
    for kappa in kappas:
        norms.scale(kappa, forwards, base)
    wanted = 1 - (1 - 0.1) ** (kappas[-1] * base / forwards)
    assert math.isclose(model[1].momentum, wanted, rel_tol=1e-9, abs_tol=1e-12)
    assert model[3].momentum is None
    norms.scale(1.0)
    assert math.isclose(model[1].momentum, 0.1, rel_tol=1e-12)
    assert len(norms) == 3
    assert norms.base_momentum == 0.1


def test_counters_are_rescaled_and_never_reset() -> None:
    model = net()
    norms = BatchNorms(model)
    norms.rescale_counters(1, 4)
    assert model[1].num_batches_tracked.item() == 0
    model[1].num_batches_tracked.fill_(100)
    model[3].num_batches_tracked.fill_(1)
    norms.rescale_counters(1, 4)
    assert model[1].num_batches_tracked.item() == 25
    assert model[3].num_batches_tracked.item() == 1
    assert model[1].num_batches_tracked.dtype == torch.int64


def test_a_model_without_batchnorm_is_left_alone() -> None:
    norms = BatchNorms(nn.Linear(2, 2))
    norms.scale(4.0)
    norms.rescale_counters(1, 2)
    assert len(norms) == 0
    assert norms.base_momentum is None


def averaged(models: list[Any], weights: list[float]) -> None:
    """`average_buffers` on every model, with an all-reduce over recorded contributions."""
    parts: list[Tensor] = []
    for model, weight in zip(models, weights, strict=True):
        average_buffers(copy.deepcopy(model), weight, lambda flat: parts.append(flat.clone()))
    total = torch.stack(parts).sum(0)
    for model, weight in zip(models, weights, strict=True):
        average_buffers(model, weight, lambda flat: flat.copy_(total))


def test_statistics_become_the_weighted_mean() -> None:
    models: list[Any] = [net() for _ in range(3)]
    for i, model in enumerate(models):
        for buffer in model.buffers():
            buffer.fill_(i + 1)
    averaged(models, [0.5, 0.25, 0.25])
    for i, model in enumerate(models):
        for buffer in model.buffers():
            assert torch.unique(buffer.double()).tolist() == [i + 1 if buffer.dtype == torch.int64 else 1.75]


def test_equal_buffers_come_back_bit_for_bit() -> None:
    models: list[Any] = [net() for _ in range(3)]
    values = torch.randn(3)
    for model in models:
        model[1].running_mean.copy_(values)
    for _ in range(100):
        averaged(models, [1 / 3, 1 / 3, 1 / 3])
    assert torch.equal(models[0][1].running_mean, values)


def test_a_worker_without_samples_contributes_nothing_not_even_nan() -> None:
    models: list[Any] = [net(), net()]
    models[0][1].running_mean.fill_(math.nan)
    models[1][1].running_mean.fill_(2.0)
    averaged(models, [0.0, 1.0])
    assert models[0][1].running_mean.tolist() == [2.0] * 3


def test_nothing_is_reduced_without_float_buffers() -> None:
    average_buffers(nn.Linear(2, 2), 1.0, lambda _: pytest.fail("there is nothing to reduce"))


def test_a_model_in_eval_mode_can_normalize_by_the_batch_and_keeps_its_statistics() -> None:
    model, images = net().eval(), torch.randn(4, 1, 8, 8)
    expected, usual = copy.deepcopy(model).train()(images), model(images)
    before = copy.deepcopy(model.state_dict())
    with batch_statistics(model):
        torch.testing.assert_close(model(images), expected)
    assert not torch.allclose(usual, expected)
    assert torch.equal(model(images), usual)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.track_running_stats for module in (model[1], model[3], model[4])] == [True, True, False]


def test_snapshot_undoes_a_forward() -> None:
    model = net().train()
    snapshot = BufferSnapshot(model)
    fresh = copy.deepcopy(model.state_dict())
    model(torch.randn(4, 1, 8, 8))
    snapshot.restore()
    assert all(torch.equal(value, fresh[name]) for name, value in model.state_dict().items())
    model(torch.randn(4, 1, 8, 8))
    snapshot.take()
    kept = copy.deepcopy(model.state_dict())
    model(torch.randn(4, 1, 8, 8))
    assert model[1].num_batches_tracked.item() == 2
    snapshot.restore()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_snapshot_of_a_model_without_buffers() -> None:
    snapshot = BufferSnapshot(nn.Linear(2, 2))
    snapshot.take()
    snapshot.restore()
