"""Recorded speech that recipes train on: folders of wav files with what is said in them, and its log-mel spectra.

folder  --manifest-->  clips, by word or transcript  --read-->  samples  --LogMel-->  spectra
"""

from __future__ import annotations

import hashlib
import math
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

TEST_SPEAKERS = 5
"""One in so many speakers is held out, where the folder does not say itself what is."""

WINDOW_S, HOP_S = 0.025, 0.01
FLOOR = 1e-6
"""Of the power in a band, before the logarithm; of digital silence it is 0."""


class Clip(NamedTuple):
    """A recording, and what is said in it, in lower case."""

    file: Path
    text: str
    speaker: str


class Manifest(NamedTuple):
    """The clips of a folder: to train on, and held out."""

    train: list[Clip]
    test: list[Clip]


def manifest(folder: Path) -> Manifest:
    """The clips below a folder, by name.

    Two layouts are known. LibriSpeech (Panayotov et al. 2015), with its audio as wav: files `*.trans.txt`; each line is
    the name of a clip beside it and its transcript, and the name begins with the speaker and a hyphen. Speech Commands
    (Warden 2018, arXiv 1804.03209): a folder for each word; a clip's name begins with the speaker and an underscore,
    and `testing_list.txt`, if there is one, names what is held out. Folders that begin with an underscore, such as its
    background noise, are no words.

    Raises FileNotFoundError, which names what is missing, and ValueError where nothing could be held out.
    """
    transcripts = sorted(folder.rglob("*.trans.txt"))
    clips = _transcribed(transcripts) if transcripts else _words(folder)
    if not clips:
        raise FileNotFoundError(f"{folder.absolute()} holds neither *.trans.txt files nor folders of wav files.")
    listed = folder / "testing_list.txt"
    tested = _listed(folder, listed) if listed.exists() and not transcripts else _by_speaker(clips)
    made = Manifest(
        [clip for clip in clips if clip.file not in tested], [clip for clip in clips if clip.file in tested]
    )
    if not (made.train and made.test):
        raise ValueError(f"The clips of {folder} cannot be split for tests: give it several speakers.")
    return made


def read(file: Path) -> tuple[Tensor, int]:
    """Its samples, float32 in [-1, 1) of shape (n,), channels averaged, and their rate a second.

    Raises ValueError, which names the file, where it is no wav of 16-bit PCM.
    """
    try:
        with wave.open(str(file)) as opened:
            width, channels, rate = opened.getsampwidth(), opened.getnchannels(), opened.getframerate()
            frames = bytearray(opened.readframes(opened.getnframes()))
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{file} is no wav file of 16-bit PCM: {error or 'it ends too early'}.") from error
    if width != 2:
        raise ValueError(f"{file} is no wav file of 16-bit PCM: its samples have {8 * width} bits.")
    if not frames:
        raise ValueError(f"{file} holds no samples.")
    samples = torch.frombuffer(frames, dtype=torch.int16).float() / 2**15
    return samples.view(-1, channels).mean(dim=1), rate


def spectra(clips: Sequence[Clip], bands: int, seconds: float) -> Tensor:
    """Log-mel spectra of shape (n, bands, frames), each with mean 0 and variance 1, of clips filled up with silence.

    Raises ValueError, which names the file, where a clip is longer, or its rate is not that of the first one.
    """
    made: list[Tensor] = []
    log_mel: LogMel | None = None
    for clip in clips:
        samples, rate = read(clip.file)
        log_mel = log_mel or LogMel(rate, bands)
        if rate != log_mel.rate:
            raise ValueError(f"{clip.file} has {rate} samples a second, and {clips[0].file} {log_mel.rate}.")
        length = round(seconds * rate)
        if len(samples) > length:
            raise ValueError(f"{clip.file} lasts {len(samples) / rate:.2f} s, more than `seconds`: {seconds:g}.")
        spectrum = log_mel(torch.nn.functional.pad(samples, (0, length - len(samples))))
        made.append((spectrum - spectrum.mean()) / spectrum.std().clamp(min=1e-3))
    return torch.stack(made)


class LogMel:
    """Logarithm of the power in bands of equal width on the mel scale, 100 times a second.

    The scale: 2595 log10(1 + f / 700), O'Shaughnessy 1987. Bands are triangles that overlap by half (Davis and
    Mermelstein 1980). Raises ValueError where a band would hold no frequency.
    """

    def __init__(self, rate: int, bands: int) -> None:
        self.rate = rate
        self._hop = round(HOP_S * rate)
        self._window = torch.hann_window(round(WINDOW_S * rate))
        self._size = 2 ** math.ceil(math.log2(len(self._window)))
        self._filters = _triangles(rate, self._size, bands)
        if not self._filters.any(dim=1).all():
            raise ValueError(f"{bands} mel bands are too many for {rate} samples a second.")

    def __call__(self, samples: Tensor) -> Tensor:
        """Samples of shape (..., n) to (..., bands, frames)."""
        fourier = torch.stft(
            samples,
            self._size,
            hop_length=self._hop,
            win_length=len(self._window),
            window=self._window,
            pad_mode="constant",
            return_complex=True,
        )
        return (self._filters @ fourier.abs().square() + FLOOR).log()


def centres(rate: int, bands: int) -> Tensor:
    """Frequency, in Hz, in the middle of each band, between the ends at 0 and half the rate."""
    return _edges(rate, bands)[1:-1]


def _triangles(rate: int, size: int, bands: int) -> Tensor:
    """Of shape (bands, size // 2 + 1): each rises from the centre of the band before and falls to that of the next."""
    frequencies, edges = torch.linspace(0, rate / 2, size // 2 + 1), _edges(rate, bands)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0)


def _edges(rate: int, bands: int) -> Tensor:
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    return 700 * (10 ** (torch.linspace(0, highest, bands + 2) / 2595) - 1)


def _transcribed(transcripts: list[Path]) -> list[Clip]:
    clips = []
    for transcript in transcripts:
        for line in transcript.read_text().splitlines():
            name, _, text = line.strip().partition(" ")
            file = transcript.parent / f"{name}.wav"
            if name:
                clips.append(Clip(_existing(file, transcript), text.strip().lower(), name.partition("-")[0]))
    return clips


def _words(folder: Path) -> list[Clip]:
    files = sorted(file for file in folder.glob("*/*.wav") if not file.parent.name.startswith(("_", ".")))
    return [Clip(file, file.parent.name.lower(), file.stem.partition("_")[0]) for file in files]


def _listed(folder: Path, listed: Path) -> set[Path]:
    names = (line.strip() for line in listed.read_text().splitlines())
    return {_existing(folder / name, listed) for name in names if name}


def _existing(file: Path, named_by: Path) -> Path:
    if not file.exists():
        raise FileNotFoundError(f"{named_by} names {file}, which is missing.")
    return file


def _by_speaker(clips: list[Clip]) -> set[Path]:
    """The clips of one in TEST_SPEAKERS, chosen by their names: the same on every node."""
    speakers = sorted({clip.speaker for clip in clips}, key=lambda name: hashlib.blake2b(name.encode()).digest())
    tested = set(speakers[: max(1, len(speakers) // TEST_SPEAKERS)])
    return {clip.file for clip in clips if clip.speaker in tested}
