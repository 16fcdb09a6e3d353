"""The estimate of the gradient's noise: unbiased, smoothed apart, silent about what it does not know."""

from __future__ import annotations

import math

import pytest
import torch

from workers.noise import WINDOW, NoiseEstimate

BASE = 32


def measure(estimate: NoiseEstimate, sizes: list[int], mean: torch.Tensor, sigma: float, seed: int) -> None:
    """One step on synthetic gradients: shard i has the mean of sizes[i] samples of N(mean, sigma^2)."""
    generator = torch.Generator().manual_seed(seed)
    batch = sum(sizes)
    noise = torch.randn(len(sizes), *mean.shape, generator=generator, dtype=torch.float64)
    shards = mean + sigma * noise / torch.tensor(sizes, dtype=torch.float64).sqrt()[:, None]
    weights = torch.tensor(sizes, dtype=torch.float64)[:, None] / batch
    mean_sqnorm = float((weights * shards.square()).sum())
    sqnorm_mean = float((weights * shards).sum(0).square().sum())
    estimate.add(mean_sqnorm, sqnorm_mean, shards=len(sizes), batch=batch, base_batch=BASE)


@pytest.mark.parametrize("sizes", [[16, 16], [64, 8, 56], [1] * 8, [3, 100]], ids=str)
def test_it_is_unbiased_for_any_shards(sizes: list[int]) -> None:
    """Over many short windows, since one long average is smoothed over its end alone."""
    mean, sigma, width = torch.full((50,), 0.2, dtype=torch.float64), 1.5, 50
    traces, squares = [], []
    for seed in range(2000):
        estimate = NoiseEstimate()
        measure(estimate, sizes, mean, sigma, seed)
        traces.append(estimate.trace_sigma / estimate.filled)
        squares.append(estimate.grad_sqnorm / estimate.filled)
    assert sum(traces) / len(traces) == pytest.approx(sigma**2 * width, rel=0.03)
    error = 4 * torch.tensor(squares).std().item() / math.sqrt(len(squares))
    assert sum(squares) / len(squares) == pytest.approx(float(mean.square().sum()), abs=error)


def test_the_average_settles_on_f_and_the_noise_scale() -> None:
    estimate, mean = NoiseEstimate(), torch.full((50,), 0.2, dtype=torch.float64)
    for seed in range(400):
        measure(estimate, [40, 24], mean, 1.0, seed)
    found = estimate.scale(BASE)
    assert found is not None
    trace, square = 50.0, 2.0
    assert found.noise_batch == pytest.approx(trace / square, rel=0.1)
    assert found.noise_fraction == pytest.approx(trace / BASE / (square + trace / BASE), rel=0.1)


def test_a_quotient_of_averages_is_not_an_average_of_quotients() -> None:
    """Two steps of equal size: (1 + 3) / (4 + 0) differs from the mean of 1/4 and 3/0."""
    estimate = NoiseEstimate()
    for trace, square in ((1.0, 4.0), (3.0, 0.0)):
        batch = 2
        estimate.add(square + trace / batch * 2, square + trace / batch, shards=2, batch=batch, base_batch=10_000)
    found = estimate.scale(10_000)
    assert found is not None
    assert found.noise_batch == pytest.approx(1.0, rel=1e-3)


def test_a_negative_square_is_averaged_and_only_the_average_is_clamped() -> None:
    estimate = NoiseEstimate()
    estimate.add(10.0, 1.0, shards=2, batch=64, base_batch=BASE)
    assert estimate.grad_sqnorm < 0
    found = estimate.scale(BASE)
    assert found is not None
    assert (found.noise_fraction, found.noise_batch) == (1.0, math.inf)
    for _ in range(200):
        estimate.add(30.0, 29.0, shards=2, batch=64, base_batch=BASE)
    assert estimate.scale(BASE).grad_sqnorm == pytest.approx(28.0, rel=0.05)  # type: ignore[union-attr]


def test_the_first_step_counts_in_full_and_a_window_forgets() -> None:
    estimate = NoiseEstimate()
    estimate.add(3.0, 2.0, shards=2, batch=BASE, base_batch=BASE)
    assert estimate.scale(BASE).trace_sigma == pytest.approx(BASE)  # type: ignore[union-attr]
    for _ in range(8 * WINDOW):
        estimate.add(2.5, 2.0, shards=2, batch=BASE, base_batch=BASE)
    assert estimate.scale(BASE).trace_sigma == pytest.approx(BASE / 2, rel=1e-2)  # type: ignore[union-attr]


def test_it_forgets_by_samples_not_by_steps() -> None:
    """Two halves of a batch that measured the same weigh what the whole does."""
    whole, halves = NoiseEstimate(), NoiseEstimate()
    whole.add(3.0, 2.0, shards=2, batch=BASE, base_batch=BASE)
    for _ in range(2):
        halves.add(4.0, 2.0, shards=2, batch=BASE // 2, base_batch=BASE)
    assert halves.filled == pytest.approx(whole.filled)
    assert halves.trace_sigma == pytest.approx(whole.trace_sigma)


def test_nothing_measured_is_nothing_known() -> None:
    assert NoiseEstimate().scale(BASE) is None


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_says_nothing(wrong: float) -> None:
    estimate = NoiseEstimate()
    estimate.add(wrong, 1.0, shards=2, batch=BASE, base_batch=BASE)
    estimate.add(1.0, wrong, shards=2, batch=BASE, base_batch=BASE)
    assert estimate.scale(BASE) is None
    estimate.add(3.0, 2.0, shards=2, batch=BASE, base_batch=BASE)
    before = estimate.to_dict()
    estimate.add(wrong, wrong, shards=2, batch=BASE, base_batch=BASE)
    assert estimate.to_dict() == before


def test_a_copy_elsewhere_goes_on_alike() -> None:
    estimate = NoiseEstimate()
    estimate.add(3.0, 2.0, shards=2, batch=BASE, base_batch=BASE)
    copy = NoiseEstimate(**estimate.to_dict())
    for each in (estimate, copy):
        each.add(5.0, 2.0, shards=3, batch=2 * BASE, base_batch=BASE)
    assert copy == estimate
