"""Gradient noise from the shards of one step: what to feed Adam's v, and how large a batch pays.

A shard is one micro-batch: n_i samples, weight w_i = n_i / B, mean gradient g_i. Their mean is gbar = sum w_i g_i,
their spread Q = sum w_i g_i^2 - gbar^2 per coordinate. All of it assumes independent samples: BatchNorm, and losses
that couple the samples of a batch, break it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from api_schemas.scaling.findings import refusal
from api_schemas.scaling.scale import check_kappa, check_positive, noise_gain


class SecondMomentWeights(NamedTuple):
    """v_input = square * gbar^2 + spread * Q, in every coordinate."""

    square: float
    spread: float


def second_moment_weights(shards: int, kappa: float, f: float = 1.0) -> SecondMomentWeights:
    """What makes gbar^2 and Q an estimate of the gradient's mean square at the base batch.

    From two shards on, at kappa >= 1, it is unbiased, for unequal shards too, and exactly gbar^2 at kappa = 1.
    Otherwise the last known noise fraction `f` has to do: below kappa = 1 the correction by Q would be negative half of
    the time, and Adam diverges. `f` is 1 at the start of a run. `shards` counts those with samples in them. Raises
    `kappa_invalid`, `shards_invalid` for none. Derived for this project.
    """
    kappa = check_kappa(kappa)
    _check_shards(shards, least=1)
    if kappa >= 1 and shards >= 2:
        return SecondMomentWeights(square=1.0, spread=(kappa - 1) / (shards - 1))
    return SecondMomentWeights(square=1 / noise_gain(kappa, f), spread=0.0)


def second_moment_input(mean_sq: float, sq_mean: float, shards: int, kappa: float, f: float = 1.0) -> float:
    """One coordinate of what Adam's v is fed instead of the squared gradient.

    `mean_sq` = sum w_i g_i^2, `sq_mean` = gbar^2, in the gradient's unit squared, as the result. The rest and the
    errors as for `second_moment_weights`, which holds the arithmetic for tensors. Derived for this project.
    """
    weights = second_moment_weights(shards, kappa, f)
    return weights.square * sq_mean + weights.spread * max(mean_sq - sq_mean, 0.0)


class NoiseScale(NamedTuple):
    """How noisy a gradient is, against its size."""

    trace_sigma: float  # trace of the gradient's covariance over single samples
    grad_sqnorm: float  # squared norm of the noise-free gradient
    noise_fraction: float  # f: share of noise in the gradient's mean square at the base batch; 1 if nothing is known
    noise_batch: float  # B_noise in samples, the batch whose mean gradient is half noise; infinite if all is noise


def noise_scale(mean_sqnorm: float, sqnorm_mean: float, shards: int, batch: float, base_batch: float) -> NoiseScale:
    """The noise of one step, from its shards: `mean_sqnorm` = sum w_i |g_i|^2, `sqnorm_mean` = |gbar|^2.

    `batch` is the step's size in samples, `base_batch` the one that f is for. Raises `shards_invalid` below two shards,
    and `kappa_invalid` for batch sizes that are not above 0. To smooth over steps, average `trace_sigma` and
    `grad_sqnorm` apart and put them through `noise_scale_of`. Derived for this project; B_noise is the simple noise
    scale of arXiv 1812.06162.
    """
    _check_shards(shards, least=2)
    batch = check_positive("The batch size", batch)
    trace_sigma = batch * max(mean_sqnorm - sqnorm_mean, 0.0) / (shards - 1)
    return noise_scale_of(trace_sigma, max(sqnorm_mean - trace_sigma / batch, 0.0), base_batch)


def noise_scale_of(trace_sigma: float, grad_sqnorm: float, base_batch: float) -> NoiseScale:
    """The two quotients, from trace and squared norm, smoothed or not; `base_batch` in samples (`kappa_invalid`).

    Without noise and gradient nothing is known: f = 1, as at the start of a run. Derived for this project.
    """
    noise = trace_sigma / check_positive("The base batch size", base_batch)
    mean_square = grad_sqnorm + noise
    return NoiseScale(
        trace_sigma=trace_sigma,
        grad_sqnorm=grad_sqnorm,
        noise_fraction=noise / mean_square if mean_square else 1.0,
        noise_batch=trace_sigma / grad_sqnorm if grad_sqnorm else math.inf,
    )


def _check_shards(shards: int, *, least: int) -> None:
    if not shards >= least:
        raise refusal("shards_invalid", shards=shards, least=least)
