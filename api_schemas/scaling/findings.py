"""What the rules refuse, warn of and note: one table of codes, each with its level and the sentence a user sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from api_schemas.errors import ScalingError

Level = Literal["error", "warning", "note"]

# The codes are stable: the API, the events and the dashboard show them. An error refuses, the rest go with a result.
CODES: dict[str, tuple[Level, str]] = {
    "kappa_invalid": ("error", "{name} is {value}; it has to be a finite number above 0."),
    "decay_out_of_range": ("error", "{name} is {value}; it has to lie in {allowed}."),
    "rule_undefined": ("error", "{reason}"),
    "rectification_lost": (
        "error",
        "At kappa = {kappa:g} RAdam's beta2 becomes {value:.4g}; at 2/3 and below it never rectifies and runs as plain "
        "SGD. Lower kappa, or choose Adam.",
    ),
    "shards_invalid": ("error", "{shards} gradient shard(s); at least {least} with samples in them are needed."),
    "step_unstable": (
        "error",
        "The step of {x:.4g} reaches the stability bound of {bound:.4g}: the run diverges in the steepest direction.",
    ),
    "step_coarse": (
        "warning",
        "The step of {x:.4g} is above a quarter of the stability bound of {bound:.4g}: it may leave the base run.",
    ),
    "past_noise_scale": (
        "warning",
        "The batch exceeds the gradient noise scale (kappa = {kappa:g} against {limit:.4g}): a larger batch saves few "
        "steps from here on, and the match with the base run loosens.",
    ),
    "v_few_samples": (
        "warning",
        "At kappa = {kappa:g} the second moment averages over very few steps (decay {decay:g} at the base batch): "
        "its estimate becomes noisy.",
    ),
    "momentum_lost": (
        "note",
        "At kappa = {kappa:g} little momentum is left ({decay:g} becomes {left:.2g}): one step spans the memory of the "
        "base run.",
    ),
    "ema_coarse": (
        "note",
        "At kappa = {kappa:g} an EMA momentum of {decay:g} forgets within one step: the EMA hugs the weights.",
    ),
    "bn_coarse": (
        "note",
        "At kappa = {kappa:g} a BatchNorm momentum of {momentum:g} forgets within one step: the running statistics are "
        "those of the last batches.",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth telling beside a result. `code` is stable, for programs; `message` is a sentence, for people."""

    code: str
    level: Level
    message: str


def finding(code: str, **numbers: Any) -> Finding:
    """The finding of that code, its sentence filled in with `numbers`."""
    level, sentence = CODES[code]
    return Finding(code=code, level=level, message=sentence.format(**numbers))


def refusal(code: str, **numbers: Any) -> ScalingError:
    """The exception of that code, its sentence filled in with `numbers`; for the caller to raise."""
    return ScalingError(code, CODES[code][1].format(**numbers))
