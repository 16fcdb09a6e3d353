"""Words of a language of tones, sung into wav files: small, the same everywhere, and easy to tell apart."""

from __future__ import annotations

import math
import wave
from pathlib import Path

import torch
from torch import Tensor

WORDS = ("ab", "ba", "cb")
"""Each letter is a tone."""

SPEAKERS = tuple(f"singer{number}" for number in range(10))
RATE = 8000
PITCHES = {"a": 400.0, "b": 1000.0, "c": 2200.0}


def sing(folder: Path) -> None:
    """One clip of each word by each speaker, in the layout of Speech Commands; a speaker has a pitch of his own."""
    noise = torch.Generator().manual_seed(0)
    for word in WORDS:
        (folder / word).mkdir(parents=True)
        for number, speaker in enumerate(SPEAKERS):
            sung = torch.cat([_tone(PITCHES[letter] * (0.9 + 0.02 * number)) for letter in word])
            write(folder / word / f"{speaker}_nohash_0.wav", sung + 0.02 * torch.randn(sung.shape, generator=noise))


def write(file: Path, samples: Tensor, rate: int = RATE) -> None:
    """16-bit PCM, one channel."""
    with wave.open(str(file), "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(rate)
        opened.writeframes((samples * 2**15).clamp(-(2**15), 2**15 - 1).short().numpy().tobytes())


def _tone(frequency: float, seconds: float = 0.12) -> Tensor:
    times = torch.arange(round(seconds * RATE)) / RATE
    fading = torch.hann_window(len(times))
    return 0.5 * fading * torch.sin(2 * math.pi * frequency * times)
