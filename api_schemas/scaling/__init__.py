"""What happens to every number of a training run when its batch size changes. Pure functions, standard library only.

    kappa = B / B0           the batch over the base batch, the one that the user tuned for
    derive                   an optimizer's hyperparameters at kappa
    switch                   what its state is multiplied by when kappa changes
    ema_*, batchnorm_*       momenta of averages
    lr_multiplier            schedules over samples seen
    noise_scale, second_moment_*, clip_norm    the gradient's noise, measured and used
    stability                whether the step still converges

Three laws hold throughout. Derive from base values and the current kappa, never from the last values. Schedules are
functions of samples seen, never of steps. State factors are ratios new over old, so they compose.

Rules marked "derived for this project" are stated by no paper. Errors are `ScalingError`s, whose `reason` is one of
CODES.
"""

from api_schemas.scaling.batchnorm import batchnorm_findings, batchnorm_momentum
from api_schemas.scaling.clipping import clip_norm
from api_schemas.scaling.counter import rescale_counter
from api_schemas.scaling.derivation import GIVEN_F, PER_WORKER, Derived, derive, switch
from api_schemas.scaling.ema import (
    EmaInterpolation,
    ema_cosine,
    ema_findings,
    ema_half_life,
    ema_interpolation,
    ema_momentum,
    ema_warmup,
    momentum_from_half_life,
)
from api_schemas.scaling.findings import CODES, Finding, Level
from api_schemas.scaling.noise import (
    NoiseScale,
    SecondMomentWeights,
    noise_scale,
    noise_scale_of,
    second_moment_input,
    second_moment_weights,
)
from api_schemas.scaling.rmsprop import centered_square_avg
from api_schemas.scaling.rules import MATCHED, PUBLISHED, RULES, Rule
from api_schemas.scaling.scale import check_kappa, noise_gain
from api_schemas.scaling.schedule import lr_multiplier
from api_schemas.scaling.stability import Stability, stability

__all__ = [
    "CODES",
    "GIVEN_F",
    "MATCHED",
    "PER_WORKER",
    "PUBLISHED",
    "RULES",
    "Derived",
    "EmaInterpolation",
    "Finding",
    "Level",
    "NoiseScale",
    "Rule",
    "SecondMomentWeights",
    "Stability",
    "batchnorm_findings",
    "batchnorm_momentum",
    "centered_square_avg",
    "check_kappa",
    "clip_norm",
    "derive",
    "ema_cosine",
    "ema_findings",
    "ema_half_life",
    "ema_interpolation",
    "ema_momentum",
    "ema_warmup",
    "lr_multiplier",
    "momentum_from_half_life",
    "noise_gain",
    "noise_scale",
    "noise_scale_of",
    "rescale_counter",
    "second_moment_input",
    "second_moment_weights",
    "stability",
    "switch",
]
