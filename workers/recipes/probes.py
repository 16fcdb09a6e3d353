"""How much features tell of labels that training never saw: k nearest neighbours, and a linear classifier.

Both have a closed form, so a score depends on the features alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.recipes import images
from workers.recipes.inference import answers, evaluating

SHARPNESS = 1 / 0.07
"""Of a neighbour's vote: exp(SHARPNESS * cosine)."""
RIDGE = 0.01
"""Penalty of the linear classifier, over the number of images."""

Encode = Callable[[Tensor], Tensor]
"""Images of shape (n, channels, side, side) in, features of shape (n, d) out."""


def scores(model: nn.Module, encode: Encode, data: images.Images, *, neighbours: int, limit: int) -> dict[str, float]:
    """`accuracy` of the neighbours and `linear_accuracy` on test images; leaves the model in the mode that it was in.

    Of either part the first `limit` images count. `encode` uses the model. NaN where a feature is not finite.
    """
    (train, labels), (test, expected) = ((part[0][:limit], part[1][:limit]) for part in data)
    with evaluating(model):
        train, test = answers(encode, train), answers(encode, test)
    if not (train.isfinite().all() and test.isfinite().all()):
        return {"accuracy": math.nan, "linear_accuracy": math.nan}
    guesses = nearest(train, labels, test, neighbours), linear(train, labels, test)
    accuracies = [(guess == expected).double().mean().item() for guess in guesses]
    return dict(zip(("accuracy", "linear_accuracy"), accuracies, strict=True))


def nearest(train: Tensor, labels: Tensor, test: Tensor, neighbours: int) -> Tensor:
    """Labels by vote of the nearest training features: the weighted kNN of Wu et al. 2018, arXiv 1805.01978."""
    cosines = functional.normalize(test, dim=1) @ functional.normalize(train, dim=1).T
    closest = cosines.topk(min(neighbours, len(train)), dim=1)
    votes = torch.zeros(len(test), images.CLASSES, dtype=cosines.dtype)
    votes.scatter_add_(1, labels[closest.indices], (SHARPNESS * closest.values).exp())
    return votes.argmax(dim=1)


def linear(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """Labels by ridge regression of one-hot labels on standardized features.

    Solved in float64, in the space of features or of images, whichever is smaller. This stands in for the logistic
    regression of the papers: it needs no learning rate.
    """
    mean, deviation = train.double().mean(dim=0), train.double().std(dim=0, correction=0)
    train, test = ((part.double() - mean) / deviation.clamp_min(1e-6) for part in (train, test))
    targets = functional.one_hot(labels, images.CLASSES).double()
    offset = targets.mean(dim=0)
    return (test @ _ridge(train, targets - offset, RIDGE * len(train)) + offset).argmax(dim=1)


def _ridge(inputs: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """(X'X + penalty)^-1 X'Y, which is X'(XX' + penalty)^-1 Y."""
    wide = inputs.shape[1] > inputs.shape[0]
    gram = inputs @ inputs.T if wide else inputs.T @ inputs
    gram.diagonal().add_(penalty)
    weights: Tensor = (
        inputs.T @ torch.linalg.solve(gram, targets) if wide else torch.linalg.solve(gram, inputs.T @ targets)
    )
    return weights
