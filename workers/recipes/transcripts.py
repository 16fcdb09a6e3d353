"""Speech to characters: connectionist temporal classification (CTC), with and without a given transcript.

Graves et al. 2006. A network says for every frame a character, or nothing (the blank); repeats without a blank between
them count once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ALPHABET = "abcdefghijklmnopqrstuvwxyz' "
SYMBOLS = len(ALPHABET) + 1
BLANK, PADDING = 0, -1


def encoded(texts: Sequence[str]) -> Tensor:
    """Numbers of their characters, from 1 on, int64 of shape (n, longest), filled up with PADDING.

    Raises ValueError, which names the text, where a character is not in the alphabet.
    """
    for text in texts:
        unknown = sorted(set(text) - set(ALPHABET))
        if unknown or not text:
            raise ValueError(f"The transcript {text!r} is empty, or has other characters than {ALPHABET!r}: {unknown}.")
    return _padded([torch.tensor([ALPHABET.index(character) + 1 for character in text]) for text in texts])


def decoded(labels: Tensor) -> list[str]:
    """The texts that `encoded` gives these labels."""
    return ["".join(ALPHABET[number - 1] for number in row if number > BLANK) for row in labels.tolist()]


def heard(logits: Tensor) -> Tensor:
    """The labels that logits of shape (n, frames, SYMBOLS) say: the likeliest symbol of each frame, collapsed."""
    rows = []
    for path in logits.argmax(dim=2):
        distinct = torch.unique_consecutive(path)
        rows.append(distinct[distinct != BLANK])
    return _padded(rows)


def distance(one: Sequence[str], other: Sequence[str]) -> int:
    """How many insertions, deletions and replacements make one of the other (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def error_rates(said: Sequence[str], meant: Sequence[str]) -> tuple[float, float]:
    """Of characters and of words: mistakes over how many there should be."""
    pairs = list(zip(said, meant, strict=True))
    characters = sum(distance(a, b) for a, b in pairs) / sum(len(b) for b in meant)
    words = sum(distance(a.split(), b.split()) for a, b in pairs) / sum(len(b.split()) for b in meant)
    return characters, words


@dataclass(frozen=True)
class Characters:
    """Transcripts. A pseudo-label is what the teacher hears; it is as sure as it is of a frame, on average.

    As in Likhomanenko et al. 2020, arXiv 2010.11524 (slimIPL), the teacher's likeliest path, without a language model.
    The threshold is this project's own, after FixMatch; a pseudo-label without a character counts nothing.
    """

    threshold: float

    def supervised(self, logits: Tensor, labels: Tensor) -> Tensor:
        """CTC's loss a character."""
        return _ctc(logits, labels).mean()

    def unlabelled(self, logits: Tensor, taught: Tensor) -> Tensor:
        """The same with what the teacher hears."""
        labels = heard(taught)
        confidence = taught.float().softmax(dim=2).amax(dim=2).mean(dim=1)
        counts = (confidence >= self.threshold) & (labels > BLANK).any(dim=1)
        return torch.where(counts, _ctc(logits, labels), 0).mean()

    def score(self, logits: Tensor, labels: Tensor) -> float:
        """1 - error rate of characters, 0 at least."""
        return max(0.0, 1 - error_rates(decoded(heard(logits)), decoded(labels))[0])


def _ctc(logits: Tensor, labels: Tensor) -> Tensor:
    """Of each sample, over its length; 0 where there are too few frames for the labels."""
    lengths = (labels > BLANK).sum(dim=1)
    log_probabilities = logits.float().log_softmax(dim=2).transpose(0, 1)
    frames = torch.full_like(lengths, logits.shape[1])
    losses = functional.ctc_loss(
        log_probabilities, labels.clamp(min=1), frames, lengths, blank=BLANK, reduction="none", zero_infinity=True
    )
    return losses / lengths.clamp(min=1)


def _padded(rows: list[Tensor]) -> Tensor:
    """At least one wide."""
    longest = max(1, *(len(row) for row in rows))
    return torch.stack([functional.pad(row, (0, longest - len(row)), value=PADDING) for row in rows])
