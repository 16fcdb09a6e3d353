"""Counters of updates, in steps: rescaled so that they stand for the same samples."""

from __future__ import annotations

from api_schemas.scaling.scale import check_kappa


def rescale_counter(count: float, kappa_old: float, kappa_new: float, *, integer: bool) -> float:
    """count * kappa_old / kappa_new; with `integer` rounded half to even, to an int.

    For EMA update counters, and with `integer` for BatchNorm's num_batches_tracked and AveragedModel's n_averaged.
    Those stay at least 1 once they count: 0 tells their owner to start its average anew. Raises `kappa_invalid`.
    Derived for this project.
    """
    kappa_old, kappa_new = check_kappa(kappa_old), check_kappa(kappa_new)
    rescaled = count * kappa_old / kappa_new
    if not integer:
        return rescaled
    return max(1, round(rescaled)) if count > 0 else 0
