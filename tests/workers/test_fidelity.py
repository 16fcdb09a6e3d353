"""The fidelity benchmark measures what it says: its schedules, its runs through the engine, its gap, its shelf."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.benchmarks.fidelity import refusal, score
from tests.benchmarks.runs import settings
from tests.benchmarks.runs.gap import gap
from tests.benchmarks.runs.settings import BASE, BATCH, EVERY, METHODS, SCHEDULES, SETTINGS, STEPS, job
from tests.benchmarks.runs.shelf import Shelf
from tests.benchmarks.runs.training import Trained, train


@pytest.mark.parametrize("parts", [BASE, *SCHEDULES.values()], ids=["base", *SCHEDULES])
def test_every_part_ends_on_a_whole_step_and_every_look_falls_on_one(parts: list[settings.Part]) -> None:
    ends = [*(part.start for part in parts[1:]), STEPS]
    for part, end in zip(parts, ends, strict=True):
        looks = [at for at in range(0, STEPS + 1, EVERY) if part.start <= at <= end]
        assert all((at - part.start) % part.kappa == 0 for at in [*looks, end])


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_job(setting: str, method: str) -> None:
    made = job(setting, method, seed=1, data_seed=2)
    assert made.scaling.rule == METHODS[method].get("rule", "matched")


def test_a_gap_is_0_at_the_base_and_1_as_far_as_another_order() -> None:
    base, other = ({at: torch.randn(5) for at in (1, 2, 3)} for _ in range(2))
    assert gap(base, base, other) == 0
    assert gap(other, base, other) == 1
    half = {at: (base[at] + other[at]) / 2 for at in (1, 3)}  # one look is missing
    assert gap(half, base, other) == pytest.approx(0.5)


def test_a_run_goes_through_its_schedule_in_the_engine() -> None:
    parts = [settings.Part(0, 1, 1), settings.Part(480, 6, 2), settings.Part(960, 2, 1)]
    spec = job("classify-adamw", "matched", seed=0, data_seed=0)
    run = train(spec, parts)
    changes = [(row["samples"], row["workers"], row["kappa"], row["steps_lost"]) for row in run.resizes]
    assert changes == [(480 * BATCH, (1, 2), (1, 6), 0), (960 * BATCH, (2, 1), (6, 2), 0)]
    assert run.path.keys() <= {at * BATCH for at in range(EVERY, STEPS + 1, EVERY)}
    assert max(run.path) == STEPS * BATCH
    assert run.scores["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("scores", "expected"), [({"accuracy": 0.5}, 0.5), ({"accuracy": 0.5, "loss": 2.0}, 0.5), ({"loss": 2.0}, 2.0)]
)
def test_a_run_is_scored_by_its_accuracy_or_else_by_its_loss(scores: dict[str, float], expected: float) -> None:
    assert score(Trained({}, {16: {"loss": 9.0}, 32: scores}, [])) == expected


def test_a_run_that_is_on_the_shelf_is_not_made_again_unless_it_is_another_one(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> Trained:
        made.append(1)
        return Trained({16: torch.arange(3.0).double()}, {16: {"accuracy": 0.5}}, [{"samples": 16}])

    spec = job("classify-sgd", "matched", seed=0, data_seed=0)
    first = Shelf(tmp_path).take("a", spec, BASE, make)
    again = Shelf(tmp_path).take("a", spec, BASE, make)
    assert len(made) == 1
    assert (again.scores, again.resizes) == (first.scores, first.resizes)
    assert torch.equal(again.path[16], first.path[16])
    Shelf(tmp_path).take("a", job("classify-sgd", "matched", seed=1, data_seed=0), BASE, make)
    assert len(made) == 2


def test_what_a_rule_refuses_is_left_out_with_its_reason() -> None:
    """The published rule of Adam has no beta1 beyond kappa = 10 where that is 0.9."""
    assert "beta1" in str(refusal("byol-adamw", "published", "k16"))
    assert refusal("byol-sgd", "published", "k16") is None
    assert not any(refusal(setting, method, "switch") for setting in SETTINGS for method in METHODS)
