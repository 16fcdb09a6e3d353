"""Speech recognition from a few transcribed clips and many others, which an EMA teacher transcribes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from workers.recipes import StepContext, classify, images, networks, semi_supervised, speech, transcripts
from workers.recipes.inference import answers, evaluating

Target = Literal["word", "characters"]
KERNEL = 5
"""Frames that a convolution sees."""

STRIDE = 2
"""Of the first one: 50 frames a second are left."""


class PseudoLabelSpeech:
    """Recognize spoken words or characters; few clips have a label, the EMA is the teacher that labels the others.

    Pseudo-labelling of speech with an EMA teacher: Busbridge et al. 2023, arXiv 2307.13813, and before them Higuchi et
    al. 2021, arXiv 2106.08922; with a threshold as in FixMatch (Sohn et al. 2020, arXiv 2001.07685). The strong view is
    SpecAugment (Park et al. 2019, arXiv 1904.08779) and noise. Data: `workers.recipes.speech`.
    """

    needs_ema: ClassVar[bool] = True

    class Config(semi_supervised.Settings):
        """Settings of `pseudo_label_speech`."""

        folder: Path = Field(
            description="16-bit PCM wav files, the same on all nodes: a folder for each word (Speech Commands), or "
            "clips beside files *.trans.txt (LibriSpeech). Held out is what testing_list.txt names, or a fifth."
        )
        target: Target = Field(
            "word", description="word: which of the words; characters: the transcript, a to z, apostrophe and space."
        )
        labelled: int = Field(
            40,
            ge=1,
            le=1_000_000,
            description="Clips that keep their label: as many of each word, rounded up (word), or any (characters).",
        )
        seconds: float = Field(1.0, ge=0.1, le=60, description="Length of a sample; no clip may be longer.")
        bands: int = Field(32, ge=8, le=128, description="Of the mel scale.")
        width: int = Field(48, ge=4, le=2048, description="Features of each frame.")
        depth: int = Field(3, ge=1, le=32, description="Blocks of the network.")

    def __init__(self, config: Config, seed: int) -> None:
        self._config = config
        self._seed = seed
        clips = speech.manifest(config.folder)
        self._words = sorted({clip.text for clip in clips.train})
        train, self._test = self._spectra(clips.train), self._spectra(clips.test)
        kept = self._kept(train[1])
        labelled = train[0][kept], train[1][kept]
        self._data = semi_supervised.Pairs(train[0], *labelled)
        self._lessons = semi_supervised.Lessons(config, self._criterion(), labelled, len(train[0]))

    def augment(
        self, sample: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weak and strong view of the unlabelled clip, weak view of the labelled one, and its label."""
        unlabelled, labelled, label = sample
        views = weak(unlabelled, generator), strong(unlabelled, generator), weak(labelled, generator)
        return *views, label

    def model(self) -> nn.Module:
        """The network: spectra of shape (n, bands, frames) in, logits of words, or of symbols at each frame, out."""
        config = self._config
        words = config.target == "word"
        answers = len(self._words) if words else transcripts.SYMBOLS
        with networks.initialized(self._seed):
            network = Recognizer(config.bands, config.width, config.depth, answers, pooled=words)
            return semi_supervised.Pupil(network)

    def train_data(self) -> semi_supervised.Pairs:
        """All clips to train on without their labels, each beside one of the few that keep it."""
        return self._data

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:
        """Cross entropy, or CTC's loss, of the labelled clips and of those that the teacher labels, strongly changed.

        Raises ValueError without EMA.
        """
        return self._lessons.loss(model, batch, step)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Of the held-out clips: loss, and accuracy of words, or error rates of characters and of words."""
        if self._config.target == "word":
            return classify.scores(model, self._test)
        return _heard(model, self._test)

    def _spectra(self, clips: list[speech.Clip]) -> tuple[Tensor, Tensor]:
        """And labels. Raises ValueError where a word is held out alone."""
        texts = [clip.text for clip in clips]
        if self._config.target == "characters":
            labels = transcripts.encoded(texts)
        else:
            unknown = sorted(set(texts) - set(self._words))
            if unknown:
                raise ValueError(f"No clip to train on says what held-out ones say: {', '.join(unknown)}.")
            labels = torch.tensor([self._words.index(text) for text in texts])
        return speech.spectra(clips, self._config.bands, self._config.seconds), labels

    def _kept(self, labels: Tensor) -> Tensor:
        """Which clips keep their label. Raises ValueError where there are fewer."""
        count = self._config.labelled
        if count > len(labels):
            raise ValueError(f"labelled: {count} clips were asked for, and there are only {len(labels)} to train on")
        if self._config.target == "word":
            return semi_supervised.balanced(labels, -(-count // len(self._words)))
        return semi_supervised.balanced(torch.zeros(len(labels), dtype=torch.long), count)

    def _criterion(self) -> semi_supervised.Criterion:
        if self._config.target == "word":
            return semi_supervised.Classes(method="pseudo_label", threshold=self._config.threshold)
        return transcripts.Characters(self._config.threshold)


class Recognizer(nn.Module):
    """Residual convolutions over time, in which mel bands are channels (Choi et al. 2019, arXiv 1904.03814).

    Norms are of one frame's features, so they couple no samples. `pooled`: one answer a clip, else one a frame.
    """

    def __init__(self, bands: int, width: int, depth: int, answers: int, *, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled
        self.first = nn.Conv1d(bands, width, KERNEL, stride=STRIDE, padding=KERNEL // 2)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth + 1))
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2) for _ in range(depth))
        self.head = nn.Linear(width, answers)

    def forward(self, spectra: Tensor) -> Tensor:
        """Logits of shape (n, answers), or (n, frames / 2, answers)."""
        features = self.first(spectra).transpose(1, 2)
        for norm, convolution in zip(self.norms, self.convolutions, strict=False):
            inner = functional.relu(norm(features)).transpose(1, 2)
            features = features + convolution(inner).transpose(1, 2)
        features = functional.relu(self.norms[-1](features))
        logits: Tensor = self.head(features.mean(dim=1) if self.pooled else features)
        return logits


def weak(spectrum: Tensor, generator: torch.Generator) -> Tensor:
    """Earlier or later by up to a twentieth; what is at the ends goes on."""
    reach = max(1, spectrum.shape[1] // 20)
    return _moved(spectrum, reach, _up_to(2 * reach, generator))


def strong(spectrum: Tensor, generator: torch.Generator) -> Tensor:
    """Moved in time, and by a band or two in pitch; then with noise, and a stripe of bands and one of frames masked."""
    moved = _moved(weak(spectrum, generator).T, 2, _up_to(4, generator)).T.contiguous()
    moved += 0.3 * torch.randn(moved.shape, generator=generator)
    for dim, share in ((0, 5), (1, 8)):
        size = moved.shape[dim]
        length = _up_to(size // share, generator)
        moved.narrow(dim, _up_to(size - length, generator), length).zero_()
    return moved


def _moved(spectrum: Tensor, reach: int, by: int) -> Tensor:
    """In its second dimension by `by` - `reach`."""
    padded = functional.pad(spectrum[None], (reach, reach), mode="replicate")[0]
    return padded[:, by : by + spectrum.shape[1]]


def _up_to(most: int, generator: torch.Generator) -> int:
    return int(torch.randint(most + 1, (), generator=generator))


def _heard(model: nn.Module, test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Leaves the model in the mode that it was in."""
    with evaluating(model):
        logits = answers(lambda part: model(images.like(part, model)), test[0])
        loss = transcripts.Characters(0).supervised(logits, test[1]).item()
    said, meant = transcripts.decoded(transcripts.heard(logits)), transcripts.decoded(test[1])
    characters, words = transcripts.error_rates(said, meant)
    return {"loss": loss, "character_error_rate": characters, "word_error_rate": words}
