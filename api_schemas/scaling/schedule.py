"""Schedules over samples seen. None counts steps, so a change of batch size cannot move one."""

from __future__ import annotations

import math


def progress(samples: float, total_samples: float) -> float:
    """How much of a run lies behind, from 0 to 1; 1 beyond its end."""
    return 1.0 if samples >= total_samples else samples / total_samples


def lr_multiplier(samples: float, warmup_samples: float, total_samples: float) -> float:
    """The factor on the learning rate after `samples`: linear from 0 to 1 over the warm-up, then a half cosine to 0.

    0 from `total_samples` on. The factor of kappa comes on top. Source: warm-up as in arXiv 1706.02677, cosine as in
    arXiv 1608.03983.
    """
    if samples >= total_samples:
        return 0.0
    if samples < warmup_samples:
        return samples / warmup_samples
    return math.cos(math.pi / 2 * progress(samples - warmup_samples, total_samples - warmup_samples)) ** 2
