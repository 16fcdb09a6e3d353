"""Features of images learned without labels, by agreeing with a teacher that sees more of the same image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from api_schemas.scaling.decay import complement
from workers.batchnorm import batch_statistics
from workers.recipes import StepContext, images, networks, probes, self_supervised
from workers.recipes.views import Area

GLOBALS = 2
"""Global crops of an image: all that the teacher sees."""
ANY_SIDE: frozenset[networks.Name] = frozenset({"resnet", "vit"})
"""Encoders that take images of other sizes; the others get local crops enlarged to the size of the image."""


class Dino:
    """Learn image features without labels: from small crops, agree with the EMA, as teacher, on large ones (DINO).

    Caron et al. 2021, arXiv 2104.14294. Student and teacher (the job's EMA) sort each crop into prototypes, softly. The
    teacher's choice is sharpened by a low temperature, which rises over the first epochs, and centred, so that no
    prototype takes all. As published, the teacher's BatchNorm normalizes by the batch.

    The centre is an average of the teacher's logits, and a buffer of the student: whatever keeps, averages or takes
    back BatchNorm's running statistics does so with the centre. The student's copy is read and updated, since it
    follows every micro-batch; the EMA's is only a copy. Its momentum m follows the batch as the EMA's does, m^kappa:
    the rule of arXiv 2307.13813, applied to the centre by derivation for this project. Each worker centres by its own
    samples between two averagings, where the paper's code averages over all workers in every step.
    """

    needs_ema: ClassVar[bool] = True

    class Config(self_supervised.Settings):
        """Settings of `dino`."""

        head_hidden: int = Field(256, ge=1, le=8192, description="Width of the projection head inside.")
        bottleneck: int = Field(32, ge=1, le=4096, description="Dimensions before the last layer.")
        prototypes: int = Field(128, ge=2, le=65_536, description="Outputs of the last layer.")
        student_temperature: float = Field(0.1, ge=0.01, le=1, description="Of the student's softmax.")
        teacher_temperature: float = Field(0.05, ge=0.01, le=1, description="Of the teacher's, after its warm-up.")
        teacher_temperature_start: float = Field(0.04, ge=0.01, le=1, description="Of the teacher's, at the start.")
        teacher_warmup: float = Field(10, ge=0, le=1e6, description="Epochs in which it changes from one to the other.")
        centre_momentum: float = Field(0.9, ge=0, le=1, description="Of the centre at the base batch.")
        freeze_last_layer: float = Field(1, ge=0, le=1e6, description="Epochs in which the last layer does not learn.")
        local_crops: int = Field(4, ge=0, le=32, description="Local crops, beside the two global ones.")
        global_area: Area = Field((0.5, 1.0), description="Least and largest one, as shares of the image's area.")
        local_area: Area = Field((0.25, 0.5), description="The same of a local crop.")

    def __init__(self, config: Config, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._images = images.load(config.dataset, config.train_size)
        side = self._images.side
        self._global = config.views(side, config.global_area)
        self._local = config.views(local_side(config.model, side), config.local_area)

    def model(self) -> nn.Module:
        """The student: crops in, `Seen` out."""
        config = self._config
        with networks.initialized(self._seed):
            encoder = self._images.encoder(config.model, hidden=config.hidden, depth=config.depth)
            return _Student(encoder, config.head_hidden, config.bottleneck, config.prototypes, config.centre_momentum)

    def train_data(self) -> TensorDataset:
        """Images alone."""
        return TensorDataset(self._images.train[0])

    def augment(self, sample: tuple[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Global crops of an image, stacked, and local ones if there are any."""
        crops = [self._global.of(sample[0], GLOBALS, generator)]
        if self._config.local_crops:
            crops.append(self._local.of(sample[0], self._config.local_crops, generator))
        return crops

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:
        """Mean cross entropy of student and teacher over images and pairs of different crops."""
        crops = [images.like(part, model) for part in batch]
        with torch.no_grad(), batch_statistics(step.teacher):
            taught = step.teacher(crops[:1]).logits
        frozen = step.epoch < self._config.freeze_last_layer
        seen = model(crops, taught=taught, base_steps=step.base_steps, frozen=frozen)
        targets = functional.softmax((taught - seen.centre) / self.teacher_temperature(step.epoch), dim=2)
        guesses = functional.log_softmax(seen.logits / self._config.student_temperature, dim=2)
        return cross_entropy(targets, guesses)

    def teacher_temperature(self, epoch: float) -> float:
        """At an epoch, which may be a fraction: linear over the warm-up."""
        config = self._config
        done = min(1.0, epoch / config.teacher_warmup) if config.teacher_warmup else 1.0
        return config.teacher_temperature_start * (1 - done) + config.teacher_temperature * done

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy on test images of labels read from the encoder's features: by kNN, and by a linear classifier."""
        config = self._config
        return probes.scores(
            model,
            lambda shown: model([images.like(shown, model).unsqueeze(1)]).features,
            self._images,
            neighbours=config.neighbours,
            limit=config.probed,
        )


def local_side(model: networks.Name, side: int) -> int:
    """Pixels of a local crop: whole patches, a little more than half; all where the encoder takes nothing else."""
    patch = networks.patch_side(side)
    return patch * (side // patch // 2 + 1) if model in ANY_SIDE else side


def cross_entropy(targets: Tensor, guesses: Tensor) -> Tensor:
    """Of the teacher's probabilities for each global crop and the student's log probabilities for every other crop.

    Shapes (n, GLOBALS, k) and (n, crops, k), global crops first. The mean over images and pairs.
    """
    pairs = GLOBALS * (guesses.shape[1] - 1)
    every = (targets.sum(dim=1) * guesses.sum(dim=1)).sum(dim=1)
    same = (targets * guesses[:, :GLOBALS]).sum(dim=(1, 2))
    return (same - every).mean() / pairs


class Seen(NamedTuple):
    """What a network makes of n images with c crops each."""

    features: Tensor  # of every crop, of shape (n * c, dimensions)
    logits: Tensor  # of shape (n, c, prototypes), in fp32 at least
    centre: Tensor  # of shape (prototypes,), before this forward pass moved it


class _Student(nn.Module):
    """Encoder, projection head, and a last layer of unit weights; the teacher's centre beside them."""

    centre: Tensor

    def __init__(
        self, encoder: networks.Encoder, width: int, bottleneck: int, prototypes: int, centre_momentum: float
    ) -> None:
        super().__init__()
        self.encoder = encoder
        # The published code's BatchNorm for heads is off there. Here it is on: without it a net as small as these ends
        # with the same prototypes for every image.
        self.head = nn.Sequential(
            nn.Linear(encoder.features, width),
            nn.BatchNorm1d(width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.GELU(),
            nn.Linear(width, bottleneck),
        )
        self.directions = nn.Parameter(torch.randn(prototypes, bottleneck))
        self.register_buffer("centre", torch.zeros(prototypes))
        self._momentum = centre_momentum

    def forward(
        self,
        crops: Sequence[Tensor],
        *,
        taught: Tensor | None = None,
        base_steps: float = 1.0,
        frozen: bool = False,
    ) -> Seen:
        """Sort crops, each part of shape (n, crops, channels, side, side).

        In training the centre moves towards the mean of `taught`, the teacher's logits, as in so many base steps. With
        `frozen` the last layer's gradient is 0, not missing: DDP waits for each.
        """
        features = torch.cat([self.encoder(part.flatten(0, 1)) for part in crops])
        parts = torch.split(self._sort(features, frozen), [part.shape[0] * part.shape[1] for part in crops])
        logits = [some.reshape(*part.shape[:2], -1) for some, part in zip(parts, crops, strict=True)]
        centre = self.centre.clone()
        if self.training and taught is not None:
            self._move_centre(taught, base_steps)
        return Seen(features, torch.cat(logits, dim=1), centre)

    def _sort(self, features: Tensor, frozen: bool) -> Tensor:
        directions = self.directions.detach() + 0 * self.directions if frozen else self.directions
        inner = functional.normalize(self.head(features), dim=1)
        logits = functional.linear(inner, functional.normalize(directions, dim=1))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @torch.no_grad()
    def _move_centre(self, taught: Tensor, base_steps: float) -> None:
        self.centre.lerp_(taught.mean(dim=(0, 1)).to(self.centre.dtype), complement(self._momentum, base_steps))
