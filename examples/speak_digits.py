"""Make a folder of spoken digits with espeak-ng: python examples/speak_digits.py FOLDER

In the layout of Speech Commands: a folder for each word, and the speaker at the beginning of a clip's name. A speaker
is a voice with a pitch of its own, and says each digit at two speeds: 640 clips, 4 MB, the same each time.
"""

from __future__ import annotations

import argparse
import io
import itertools
import subprocess
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-029")
VARIANTS = ("m1", "m3", "m4", "m7", "f1", "f2", "f3", "f5")
SPEEDS = (140, 190)
RATE, LONGEST_S = 8000, 1.0
LOUDEST = 0.7


def speak(
    folder: Path,
    *,
    digits: Sequence[str] = DIGITS,
    accents: Sequence[str] = ACCENTS,
    variants: Sequence[str] = VARIANTS,
    speeds: Sequence[int] = SPEEDS,
) -> int:
    """Write digit/speaker_nohash_number.wav for each of them, 16-bit PCM of 8 kHz; returns how many."""
    speakers = list(itertools.product(accents, variants))
    for digit in digits:
        (folder / digit).mkdir(parents=True, exist_ok=True)
        for (number, (accent, variant)), (turn, speed) in itertools.product(enumerate(speakers), enumerate(speeds)):
            pitch = 25 + 7 * number % 50
            samples = _said(digit, f"{accent}+{variant}", speed, pitch)
            _write(folder / digit / f"{accent}-{variant}_nohash_{turn}.wav", samples)
    return len(digits) * len(speakers) * len(speeds)


def _said(word: str, voice: str, speed: int, pitch: int) -> NDArray[np.float64]:
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    said = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(said)) as opened:
        rate, frames = opened.getframerate(), opened.readframes(10 * opened.getframerate())
    samples = _resampled(np.frombuffer(frames, dtype=np.int16).astype(np.float64), rate)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[loud[0] : loud[-1] + 1][: int(LONGEST_S * RATE)]
    return LOUDEST / float(np.abs(samples).max()) * samples


def _resampled(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """At RATE, which is lower: the frequencies above its half are left out."""
    length = round(len(samples) * RATE / rate)
    return np.fft.irfft(np.fft.rfft(samples)[: length // 2 + 1], length)


def _write(file: Path, samples: NDArray[np.float64]) -> None:
    with wave.open(str(file), "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(RATE)
        opened.writeframes((samples * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a folder of spoken digits with espeak-ng.")
    parser.add_argument("folder", type=Path)
    target = parser.parse_args().folder
    print(f"{speak(target)} clips in {target}")
