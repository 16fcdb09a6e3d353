"""Learning from few labels with an EMA teacher: what `pseudo_label` and `pseudo_label_speech` share.

A sample is a pair, one unlabelled input and one labelled one. So every batch, and every micro-batch of any worker, has
both in the same proportion, and its loss is a mean over samples: where the batch is cut does not matter. For the same
reason the unlabelled loss is divided by all samples, not by those that the teacher is sure of (FixMatch does so too).

The start by the teacher's score is this project's own: papers start after so many steps, or at once.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from api_schemas.durations import Duration, Length, length_schema
from workers.recipes import StepContext, images

SPLIT_SEED = 0
"""Which samples keep their label is the same for every job, so that scores compare."""

PROBED = 256
"""Labelled samples on which the teacher's score is taken, at most."""

_NEVER = -1.0


def _not_in_steps(length: Length) -> Length:
    if length.unit == "base_steps":
        raise ValueError("must be in samples or epochs")
    return length


Span = Annotated[Duration, AfterValidator(_not_in_steps), length_schema("epochs", "samples")]


class Settings(BaseModel):
    """Of the teacher, and of the samples that have no label."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(1.0, ge=0, le=1000, description="Of the unlabelled loss; 0: only labels are learned from.")
    threshold: float = Field(
        0.95, ge=0, le=1, description="A pseudo-label of which the teacher is less sure counts nothing."
    )
    start: Span = Field(
        "0 samples", validate_default=True, description="No unlabelled loss before so many samples or epochs."
    )
    start_accuracy: float | None = Field(
        0.9,
        ge=0,
        le=1,
        description="Nor before the teacher is that good on the labelled samples that it is trained with (256 of them "
        "at most): the share that it gets right, or 1 - error rate of characters; null: however good it is.",
    )
    ramp: Span = Field(
        "2 epochs", validate_default=True, description="Once it has started, the weight grows linearly for so long."
    )


class Pairs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Samples (unlabelled input, labelled input, its label): each input once, the labelled ones in turn."""

    def __init__(self, unlabelled: Tensor, labelled: Tensor, labels: Tensor) -> None:
        self._unlabelled = unlabelled
        self._labelled = labelled
        self._labels = labels

    def __len__(self) -> int:
        return len(self._unlabelled)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        turn = index % len(self._labels)
        return self._unlabelled[index], self._labelled[turn], self._labels[turn]


def balanced(labels: Tensor, per_class: int) -> Tensor:
    """Indices of as many samples of each class, drawn once for all jobs, class after class in turn.

    Raises ValueError where a class has fewer.
    """
    drawn = torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(len(labels)))
    found = [drawn[labels[drawn] == label][:per_class] for label in sorted(set(labels.tolist()))]
    fewest = min(len(each) for each in found)
    if fewest < per_class:
        raise ValueError(f"labelled: {per_class} samples of each class were asked for, and one class has only {fewest}")
    return torch.stack(found, dim=1).flatten()


class Pupil(nn.Module):
    """A network with a buffer, `begun`: the sample at which the unlabelled loss began, below 0 before that.

    The engine hands a buffer on to joiners, saves it, takes it back with a step that failed, and copies it to the
    teacher, where it is read. All workers write the same value at the same sample; would they ever not, the mean that
    the engine makes of it counts as begun.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.begun: Tensor
        self.register_buffer("begun", torch.tensor(_NEVER))

    def forward(self, inputs: Tensor, begun: Tensor | None = None) -> Tensor:
        """Logits; `begun`, if given, is kept."""
        if begun is not None:
            self.begun.copy_(begun)
        logits: Tensor = self.network(inputs)
        return logits


class Criterion(Protocol):
    """What a label is, and how far logits are from it."""

    def supervised(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of labelled samples."""

    def unlabelled(self, logits: Tensor, taught: Tensor) -> Tensor:
        """Mean loss of unlabelled samples, of which the teacher says `taught` (logits)."""

    def score(self, logits: Tensor, labels: Tensor) -> float:
        """How good they are; 1: no mistake."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """One of so many classes.

    pseudo_label: cross entropy with the teacher's choice, where it is sure (FixMatch: Sohn et al. 2020, arXiv
    2001.07685). mean_teacher: squared distance of the probabilities, summed over classes, whether it is sure or not
    (Tarvainen and Valpola 2017, arXiv 1703.01780).
    """

    method: Literal["pseudo_label", "mean_teacher"]
    threshold: float

    def supervised(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy."""
        return functional.cross_entropy(logits, labels)

    def unlabelled(self, logits: Tensor, taught: Tensor) -> Tensor:
        """That of the method."""
        probabilities = taught.float().softmax(dim=1)
        if self.method == "mean_teacher":
            return (logits.float().softmax(dim=1) - probabilities).square().sum(dim=1).mean()
        confidence, choice = probabilities.max(dim=1)
        losses = functional.cross_entropy(logits, choice, reduction="none")
        return (losses * (confidence >= self.threshold)).mean()

    def score(self, logits: Tensor, labels: Tensor) -> float:
        """Accuracy."""
        return (logits.argmax(dim=1) == labels).double().mean().item()


class Lessons:
    """The loss of a pupil whose teacher is its own EMA. `probe` are labelled inputs and labels."""

    def __init__(self, settings: Settings, criterion: Criterion, probe: tuple[Tensor, Tensor], epoch_size: int) -> None:
        self._settings = settings
        self._criterion = criterion
        self._probe = probe[0][:PROBED], probe[1][:PROBED]
        self._start = settings.start.samples(epoch_size=epoch_size, base_batch=1)
        self._ramp = settings.ramp.samples(epoch_size=epoch_size, base_batch=1)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor, Tensor], step: StepContext) -> Tensor:
        """Supervised loss, and the weighted unlabelled one, of (weak view, strong view, labelled input, label).

        The teacher sees the weak view, the pupil the strong one. Raises ValueError where there is no EMA.
        """
        weak, strong, labelled, labels = batch
        teacher = step.teacher
        assert isinstance(teacher, Pupil)
        begun = self._begun(teacher, step.samples)
        weight = self._weight(begun, step.samples)
        shown = torch.cat([labelled, strong]) if weight else labelled
        logits = model(images.like(shown, teacher), torch.tensor(begun))  # in one pass, as DDP wants it
        supervised = self._criterion.supervised(logits[: len(labels)], labels)
        if not weight:
            return supervised
        with torch.no_grad():
            taught = teacher(images.like(weak, teacher))
        return supervised + weight * self._criterion.unlabelled(logits[len(labels) :], taught)

    def _begun(self, teacher: Pupil, samples: int) -> float:
        """The sample at which the unlabelled loss began. A function of what all workers share alone."""
        wanted, begun = self._settings.start_accuracy, float(teacher.begun)
        if begun >= 0 or samples < self._start:
            return begun
        if wanted is None:
            return float(self._start)
        return float(samples) if self._score(teacher) >= wanted else _NEVER

    def _weight(self, begun: float, samples: int) -> float:
        if begun < 0:
            return 0.0
        grown = min(1.0, (samples - begun) / self._ramp) if self._ramp else 1.0
        return self._settings.weight * grown

    @torch.no_grad()
    def _score(self, teacher: Pupil) -> float:
        """Of the teacher's weights. BatchNorm takes the probe's own statistics: the running ones differ by worker."""
        inputs, labels = self._probe
        logits = copy.deepcopy(teacher).train()(images.like(inputs, teacher))
        return self._criterion.score(logits.cpu(), labels)
