"""Language modelling: the text, its windows, a transformer that sees nothing ahead, and scores of held-out bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from workers.data import SampleOrder, fetch
from workers.recipes import StepContext, text
from workers.recipes.language import CausalTransformer, Language

STEP = StepContext(ema=None, samples=0, epoch=0.0, kappa=1.0)
SMALL = {"size": 20_000, "context": 16, "width": 16, "depth": 2, "heads": 2}


def language(seed: int = 0, **config: Any) -> Language:
    return Language(Language.Config(**(SMALL | config)), seed)


@pytest.mark.parametrize(("length", "stride"), [(100, 16), (97, 16), (50, 5), (17, 16)])
def test_windows_cover_the_text_and_every_byte_but_the_first_is_a_target(length: int, stride: int) -> None:
    whole = torch.arange(length, dtype=torch.uint8)
    windows = text.Windows(whole, 16, stride)
    shown = [windows[index] for index in range(len(windows))]
    assert all(len(window) == 17 for window in shown)
    assert {int(byte) for window in shown for byte in window[:-1]} == set(range(length - 1))
    assert {int(byte) for window in shown for byte in window[1:]} == set(range(1, length))
    assert len({int(window[0]) for window in shown}) == len(windows), "none twice"


def test_a_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes holds no window of 16"):
        text.Windows(torch.zeros(16, dtype=torch.uint8), 16, 16)


def test_pythons_own_modules_are_read_in_the_same_order_each_time() -> None:
    one, two = text.load(None, 50_000, 0.1), text.load(None, 50_000, 0.1)
    assert torch.equal(one.train, two.train)
    assert (len(one.train), len(one.test)) == (45_000, 5_000)
    shorter = text.load(None, 20_000, 0.1)
    assert torch.equal(shorter.train, one.train[:18_000])
    assert b"import" in bytes(one.train.tolist())


def test_a_folder_is_read_by_name_up_to_the_size(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, content in [("c.txt", "5678"), ("a.txt", "0123"), ("b/x.txt", "4"), (".hidden", "no"), ("d", "9")]:
        (tmp_path / name).write_text(content)
    assert bytes(text.load(tmp_path, 100, 0.2).train.tolist()) == b"01234567"
    assert bytes(text.load(tmp_path, 6, 0.4).test.tolist()) == b"45"
    assert bytes(text.load(tmp_path / "c.txt", 100, 0.5).test.tolist()) == b"78"


def test_a_text_that_is_missing_or_too_short_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        text.load(tmp_path / "nowhere", 100, 0.1)
    with pytest.raises(FileNotFoundError, match=str(Path.cwd() / "nowhere")):  # a worker's folder may be another one
        text.load(Path("nowhere"), 100, 0.1)
    (tmp_path / "short.txt").write_text("ten bytes.")
    with pytest.raises(ValueError, match=r"10 bytes of text at .*short.txt"):
        text.load(tmp_path / "short.txt", 100, 0.1)


def test_a_file_of_ones_own_is_what_is_learned(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("the quick brown fox jumps. " * 500)
    data = language(text=str(tmp_path / "mine.txt")).train_data()
    assert bytes(data[0].tolist()) == b"the quick brown f"


def test_no_logit_depends_on_a_later_byte() -> None:
    model = language().model().eval()
    shown = torch.randint(256, (1, 16), generator=torch.Generator().manual_seed(0))
    logits = model(shown)
    for changed in range(16):
        other = shown.clone()
        other[0, changed] = (other[0, changed] + 1) % 256
        moved = (model(other) - logits).abs().amax(dim=2)[0]
        assert not moved[:changed].any()
        assert moved[changed] > 0


def test_it_begins_as_ignorant_as_chance_and_takes_shorter_windows() -> None:
    model = language().model()
    assert isinstance(model, CausalTransformer)
    assert model(torch.zeros(3, 5, dtype=torch.uint8)).shape == (3, 5, 256)
    assert language().evaluate(model)["loss"] == pytest.approx(math.log(256), abs=0.1)


@pytest.mark.parametrize("size", [10_000, 10_007, 25_000])
def test_every_held_out_byte_is_predicted_once(size: int) -> None:
    recipe = language(size=size)
    held_out = text.load(None, size, 0.05).test
    seen: list[int] = []

    class Uniform(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, shown: torch.Tensor) -> torch.Tensor:
            seen.extend(shown.flatten().tolist())
            return torch.zeros(*shown.shape, 256)

    scores = recipe.evaluate(Uniform())
    assert seen == held_out[:-1].tolist()
    assert scores["loss"] == pytest.approx(math.log(256))
    assert scores["bits_per_byte"] == pytest.approx(8.0)


def test_evaluation_leaves_the_mode_as_it_was() -> None:
    recipe = language()
    for training in (True, False):
        model = recipe.model().train(training)
        recipe.evaluate(model)
        assert model.training is training


@pytest.mark.usefixtures("one_thread")
def test_the_loss_falls_well_below_what_single_bytes_tell() -> None:
    recipe = language(size=30_000, context=32, width=64)
    model, data = recipe.model().train(), recipe.train_data()
    counts = text.load(None, 30_000, 0.05).train.bincount().double()
    shares = counts[counts > 0] / counts.sum()
    order, optimizer = SampleOrder(len(data), 0), torch.optim.AdamW(model.parameters(), lr=3e-3)
    for start in range(0, 3 * len(data), 16):
        optimizer.zero_grad()
        loss = recipe.loss(model, fetch(data, None, *order.keys(start, start + 16), 0), STEP)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert recipe.evaluate(model)["loss"] < 0.9 * float(-(shares * shares.log()).sum())


@pytest.mark.parametrize(
    ("config", "message"),
    [({"width": 18, "heads": 4}, "multiple of heads"), ({"stride": 17}, "left out"), ({"vocabulary": 3}, "vocabulary")],
)
def test_config_refuses_what_cannot_be(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        language(**config)
