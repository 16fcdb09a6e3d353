"""Spoken words: folders and their clips, wav files, log-mel spectra, transcripts, and the recipe over them."""

from __future__ import annotations

import math
import shutil
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.workers.tones import SPEAKERS, WORDS, sing, write
from workers.data import SampleOrder, fetch
from workers.ema import Ema
from workers.recipes import StepContext, speech, transcripts
from workers.recipes.pseudo_label_speech import PseudoLabelSpeech, strong, weak
from workers.recipes.semi_supervised import Pupil


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    sing(folder)
    return folder


def recipe_of(folder: Path, seed: int = 0, **config: Any) -> PseudoLabelSpeech:
    settings: dict[str, Any] = {"folder": folder, "seconds": 0.4, "bands": 16, "width": 16, "depth": 2, "labelled": 6}
    return PseudoLabelSpeech(PseudoLabelSpeech.Config(**(settings | config)), seed)


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_folder_for_each_word_is_read_and_whole_speakers_are_held_out(tones: Path) -> None:
    train, test = speech.manifest(tones)
    assert len(train) + len(test) == len(WORDS) * len(SPEAKERS)
    assert {clip.text for clip in test} == set(WORDS)
    assert {clip.speaker for clip in train} | {clip.speaker for clip in test} == set(SPEAKERS)
    assert not {clip.speaker for clip in train} & {clip.speaker for clip in test}
    assert all(clip.file.parent.name == clip.text for clip in train)


def test_a_list_says_what_is_held_out_and_noise_is_no_word(tones: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tones, tmp_path / "copy")
    (folder / "_background_noise_").mkdir()
    write(folder / "_background_noise_" / "rain.wav", torch.zeros(800))
    names = [f"{word}/{SPEAKERS[0]}_nohash_0.wav" for word in WORDS]
    (folder / "testing_list.txt").write_text("\n".join(names) + "\n")
    train, test = speech.manifest(folder)
    assert [str(clip.file.relative_to(folder)) for clip in test] == sorted(names)
    assert {clip.text for clip in train} == set(WORDS)
    (folder / names[1]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"testing_list.txt names .*{names[1]}"):
        speech.manifest(folder)


def librispeech(folder: Path) -> None:
    for speaker in ("19", "26", "27"):
        chapter = folder / speaker / "198"
        chapter.mkdir(parents=True)
        lines = []
        for number, text in enumerate(["THE CAT", "IT'S A HAT"]):
            write(chapter / f"{speaker}-198-{number:04}.wav", torch.zeros(1600))
            lines.append(f"{speaker}-198-{number:04} {text}")
        (chapter / f"{speaker}-198.trans.txt").write_text("\n".join(lines) + "\n")


def test_transcripts_beside_the_clips_are_read(tmp_path: Path) -> None:
    librispeech(tmp_path)
    train, test = speech.manifest(tmp_path)
    assert (len(train), len(test)) == (4, 2)
    assert {clip.text for clip in train} == {"the cat", "it's a hat"}
    assert {clip.speaker for clip in train + test} == {"19", "26", "27"}
    missing = tmp_path / "26" / "198" / "26-198-0001.wav"
    missing.unlink()
    with pytest.raises(FileNotFoundError, match=r"26-198.trans.txt names .*26-198-0001.wav"):
        speech.manifest(tmp_path)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        speech.manifest(tmp_path)
    (tmp_path / "yes").mkdir()
    write(tmp_path / "yes" / "ann_nohash_0.wav", torch.zeros(800))
    with pytest.raises(ValueError, match="several speakers"):
        speech.manifest(tmp_path)


# -- files -------------------------------------------------------------------------------------------------------------


def test_samples_come_back_as_they_were_written(tmp_path: Path) -> None:
    samples = torch.tensor([0.0, 0.5, -1.0, 0.25])
    write(tmp_path / "a.wav", samples, rate=16000)
    read, rate = speech.read(tmp_path / "a.wav")
    assert rate == 16000
    torch.testing.assert_close(read, samples, atol=1e-4, rtol=0)


def eight_bits(file: Path) -> None:
    with wave.open(str(file), "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(1)
        opened.setframerate(8000)
        opened.writeframes(bytes(100))


def floating_point(file: Path) -> None:
    write(file, torch.zeros(100))
    content = bytearray(file.read_bytes())
    content[20] = 3  # the format's code
    file.write_bytes(content)


@pytest.mark.parametrize(
    "make",
    [
        eight_bits,
        floating_point,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"fLaC" + bytes(100)),
        lambda file: write(file, torch.zeros(0)),
    ],
)
def test_what_is_no_wav_of_16_bit_pcm_is_named(make: Callable[[Path], object], tmp_path: Path) -> None:
    file = tmp_path / "odd.wav"
    make(file)
    with pytest.raises(ValueError, match=r"odd\.wav"):
        speech.read(file)


def test_clips_of_another_rate_or_too_long_are_named(tmp_path: Path) -> None:
    for name, length, rate in [("a", 800, 8000), ("b", 800, 16000), ("c", 9000, 8000)]:
        write(tmp_path / f"{name}.wav", torch.zeros(length), rate=rate)
    a, b, c = (speech.Clip(tmp_path / f"{name}.wav", "x", "y") for name in "abc")
    assert speech.spectra([a], 16, 1.0).shape == (1, 16, 101)
    with pytest.raises(ValueError, match=r"b\.wav has 16000"):
        speech.spectra([a, b], 16, 1.0)
    with pytest.raises(ValueError, match=r"c\.wav lasts 1\.12 s, more than `seconds`: 1"):
        speech.spectra([a, c], 16, 1.0)


# -- spectra -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "bands"), [(8000, 32), (16000, 40)])
def test_a_pure_tone_is_loudest_in_its_band(rate: int, bands: int) -> None:
    log_mel, centres = speech.LogMel(rate, bands), speech.centres(rate, bands)
    assert (centres.diff() > 0).all()
    for band in range(3, bands, 7):
        tone = torch.sin(2 * math.pi * float(centres[band]) * torch.arange(rate) / rate)
        spectrum = log_mel(tone)
        assert spectrum.shape == (bands, 101)
        assert (spectrum[:, 5:-5].argmax(dim=0) == band).all()


def test_the_scale_is_even_in_mel_and_too_many_bands_are_refused() -> None:
    assert speech.centres(2 * 1000, 1).item() == pytest.approx(700 * (math.sqrt(1 + 10 / 7) - 1), rel=1e-4)
    with pytest.raises(ValueError, match="128 mel bands are too many for 8000"):
        speech.LogMel(8000, 128)


def test_loudness_does_not_matter(tmp_path: Path) -> None:
    noise = torch.randn(3200, generator=torch.Generator().manual_seed(0)).clamp(-3, 3) / 4
    for name, factor in [("loud", 1.0), ("low", 0.25)]:
        write(tmp_path / f"{name}.wav", factor * noise)
    loud, low = (speech.spectra([speech.Clip(tmp_path / f"{name}.wav", "x", "y")], 16, 0.4) for name in ("loud", "low"))
    torch.testing.assert_close(loud, low, atol=0.02, rtol=0)
    assert loud.mean().item() == pytest.approx(0, abs=1e-5)
    assert loud.std().item() == pytest.approx(1, abs=1e-4)


def test_views_come_from_the_generator_alone() -> None:
    spectrum = torch.randn(16, 41, generator=torch.Generator().manual_seed(0))
    kept = spectrum.clone()
    for view in (weak, strong):
        one, two, three = (view(spectrum, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
        assert one.shape == spectrum.shape
    assert torch.equal(spectrum, kept)


# -- transcripts -------------------------------------------------------------------------------------------------------


def test_texts_are_encoded_and_decoded() -> None:
    texts = ["it's", "a zebra"]
    labels = transcripts.encoded(texts)
    assert labels.shape == (2, 7)
    assert transcripts.decoded(labels) == texts
    for text in ("caf\u00e9", ""):
        with pytest.raises(ValueError, match=repr(text)):
            transcripts.encoded([text])


def saying(*paths: str) -> Tensor:
    """Logits of frames that say these symbols; a dot is the blank."""
    numbers = [[0 if symbol == "." else transcripts.ALPHABET.index(symbol) + 1 for symbol in path] for path in paths]
    return 20.0 * torch.nn.functional.one_hot(torch.tensor(numbers), transcripts.SYMBOLS)


def test_repeats_count_once_unless_a_blank_is_between_them() -> None:
    assert transcripts.decoded(transcripts.heard(saying("..hheel.lo", "a........."))) == ["hello", "a"]
    assert transcripts.decoded(transcripts.heard(saying("....", "...."))) == ["", ""]


@pytest.mark.parametrize(
    ("one", "other", "mistakes"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("ab", "", 2)]
)
def test_distance_counts_mistakes(one: str, other: str, mistakes: int) -> None:
    assert transcripts.distance(one, other) == mistakes


def test_error_rates_are_over_what_should_be_said() -> None:
    assert transcripts.error_rates(["one too", "six"], ["one two", "six"]) == (1 / 10, 1 / 3)


def test_the_loss_of_transcripts_is_a_mean_over_samples_and_knows_right_from_wrong() -> None:
    criterion, labels = transcripts.Characters(0.9), transcripts.encoded(["hello", "a"])
    right, wrong = saying("..hheel.lo", "a........."), saying("...nnoo...", "....b.....")
    assert criterion.supervised(right, labels).item() < 1e-3
    assert criterion.score(right, labels) == 1
    each = [criterion.supervised(wrong[i : i + 1], labels[i : i + 1]).item() for i in range(2)]
    assert criterion.supervised(wrong, labels).item() == pytest.approx(sum(each) / 2)
    assert criterion.score(wrong, labels) < 0.2


def test_only_what_the_teacher_hears_surely_is_learned() -> None:
    criterion = transcripts.Characters(0.9)
    taught = torch.stack([saying("hi..")[0], saying("ho..")[0] / 20, saying("....")[0]])  # sure, unsure, nothing heard
    logits = torch.zeros(3, 4, transcripts.SYMBOLS, requires_grad=True)
    criterion.unlabelled(logits, taught).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert [bool(gradient.any()) for gradient in logits.grad] == [True, False, False]


# -- the recipe --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["word", "characters"])
def test_shapes_seeds_and_scores(target: str, tones: Path) -> None:
    recipe, other = recipe_of(tones, target=target), recipe_of(tones, seed=5, target=target)
    assert all(torch.equal(a, b) for a, b in zip(recipe.train_data()[3], other.train_data()[3], strict=True))
    model = recipe.model().train()
    logits = model(torch.zeros(2, 16, 41))
    assert logits.shape == ((2, len(WORDS)) if target == "word" else (2, 21, transcripts.SYMBOLS))
    scores = recipe.evaluate(model)
    expected = {"word": {"loss", "accuracy"}, "characters": {"loss", "character_error_rate", "word_error_rate"}}
    assert scores.keys() == expected[target]
    assert model.training


def test_frames_of_one_clip_do_not_depend_on_another(tones: Path) -> None:
    model = recipe_of(tones).model().train()
    clips = torch.randn(3, 16, 41, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(clips)[:1], model(clips[:1]))


def trained(recipe: PseudoLabelSpeech, epochs: int) -> dict[str, float]:
    """Scores of the EMA."""
    model, data = recipe.model().train(), recipe.train_data()
    order, ema = SampleOrder(len(data), 0), Ema(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for start in range(0, epochs * len(data), 8):
        optimizer.zero_grad()
        context = StepContext(ema=ema.module, samples=start, epoch=start / len(data), kappa=1.0)
        shown = fetch(data, recipe.augment, *order.keys(start, start + 8), 0)
        recipe.loss(model, shown, context).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        ema.after_step(model, 0.9, 1.0)
    assert isinstance(model, Pupil)
    assert model.begun >= 0
    return recipe.evaluate(ema.module)


@pytest.mark.usefixtures("one_thread")
def test_words_are_learned_from_two_clips_each(tones: Path) -> None:
    assert trained(recipe_of(tones, width=32, depth=1), 40)["accuracy"] > 0.9


@pytest.mark.usefixtures("one_thread")
def test_characters_are_learned(tones: Path) -> None:
    config: dict[str, Any] = {
        "target": "characters",
        "labelled": 24,
        "start_accuracy": 0.6,
        "threshold": 0.5,
        "width": 32,
    }
    assert trained(recipe_of(tones, **config), 100)["character_error_rate"] < 0.4


def test_a_word_that_nobody_says_in_training_is_named(tones: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tones, tmp_path / "copy")
    (folder / "testing_list.txt").write_text("".join(f"{WORDS[0]}/{speaker}_nohash_0.wav\n" for speaker in SPEAKERS))
    with pytest.raises(ValueError, match=WORDS[0]):
        recipe_of(folder)


def test_librispeechs_layout_is_trained_on_and_scored(tmp_path: Path) -> None:
    librispeech(tmp_path)
    recipe = recipe_of(tmp_path, target="characters", labelled=2, start_accuracy=None)
    model, data = recipe.model().train(), recipe.train_data()
    context = StepContext(ema=Ema(model).module, samples=99, epoch=24.0, kappa=1.0)
    loss = recipe.loss(model, fetch(data, recipe.augment, *SampleOrder(len(data), 0).keys(0, 4), 0), context)
    assert loss.isfinite()
    assert recipe.evaluate(model).keys() == {"loss", "character_error_rate", "word_error_rate"}


def test_more_labels_than_there_are_clips_are_refused(tmp_path: Path) -> None:
    librispeech(tmp_path)
    with pytest.raises(ValueError, match="labelled: 5 clips were asked for, and there are only 4 to train on"):
        recipe_of(tmp_path, target="characters", labelled=5)


def test_the_folder_has_to_be_given() -> None:
    with pytest.raises(ValidationError, match="folder"):
        PseudoLabelSpeech.Config()  # type: ignore[call-arg]


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="needs espeak-ng: apt-get install espeak-ng")
def test_the_example_speaks_digits_that_can_be_told_apart(tmp_path: Path) -> None:
    from examples.speak_digits import speak

    digits = ("two", "six", "nine")
    assert speak(tmp_path, digits=digits, accents=["en-us"], variants=["m1", "m3", "f2", "f5"], speeds=[150]) == 12
    train, test = speech.manifest(tmp_path)
    assert (len(train), len(test)) == (9, 3)
    assert sum(clip.file.stat().st_size for clip in train + test) < 200_000
    heard = speech.spectra(train + test, 32, 1.0).mean(dim=2)
    nearest = [train[int((heard[:9] - each).square().sum(dim=1).argmin())].text for each in heard[9:]]
    assert sum(text == clip.text for text, clip in zip(nearest, test, strict=True)) >= 2
