"""What is shown fits a terminal of 80 columns whole, and leaves nothing behind in a file."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from api_schemas import display
from api_schemas.jobs import JobSpec
from api_schemas.previews import ScalingRow, SizePreview
from api_schemas.scaling.findings import CODES
from api_schemas.views import ClusterView, Evaluation, Phase, Progress
from api_schemas.wording import MEANING, age, duration, scores, size_of
from tests.api_schemas.answers import NOW, SPEC, job_row, job_view, resize_row

ADAMW = {
    "lr": 0.0014142135,
    "betas": [0.729, 0.997003],
    "eps": 5.773502691896258e-09,
    "weight_decay": 0.01732,
    "amsgrad": False,
    "ema_momentum": 0.985075,
}


def on_terminal(shown: RenderableType, width: int = 80) -> list[str]:
    """Its lines, none of which is too long."""
    console = Console(file=StringIO(), force_terminal=True, color_system=None, width=width, markup=False, emoji=False)
    display.show(console, shown)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in lines)
    assert "\u2026" not in "".join(lines), "something was cut"
    return [line.rstrip() for line in lines]


def in_file(shown: RenderableType) -> list[str]:
    console = Console(file=StringIO(), width=display.PLAIN_WIDTH, markup=False, emoji=False)
    display.show(console, shown)
    lines: list[str] = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == [line.rstrip() for line in lines]
    return lines


def test_sizes_show_what_differs_in_columns_and_the_rest_once() -> None:
    sizes = [
        SizePreview(
            workers=n,
            batch=64 * n,
            kappa=n,
            values=ADAMW | {"lr": 0.001234567 * n, "betas": [0.9**n, 0.999]},
            warnings=[],
        )
        for n in (1, 2, 3)
    ]
    sizes[2].warnings.append("momentum_lost")
    lines = on_terminal(display.size_list(sizes))

    assert lines[0].split() == ["workers", "batch", "kappa", "lr", "betas"]
    assert lines[2].split() == ["1", "64", "1", "0.001235", "0.9,", "0.999"]
    assert lines[5] == ""
    assert " ".join(lines[6:]) == (
        "At every size: eps 5.774e-09, weight_decay 0.01732, amsgrad False, rho 0.9851. "
        f"workers 3: momentum_lost ({MEANING['momentum_lost']})"
    )


def test_every_value_of_adamw_fits() -> None:
    moving = ("lr", "betas", "eps", "weight_decay", "ema_momentum")
    sizes = []
    for n in (1, 2):
        values = {name: [value[0] / n, value[1]] if name == "betas" else value / n for name, value in ADAMW.items()}
        sizes.append(SizePreview(workers=n, batch=1024, kappa=16.5, values=values | {"amsgrad": False}, warnings=[]))

    header = on_terminal(display.size_list(sizes))[0].split()

    assert header == ["workers", "batch", "kappa", *("rho" if name == "ema_momentum" else name for name in moving)]


def test_a_kappa_that_is_refused_says_why() -> None:
    rows = [
        ScalingRow(kappa=2, values={"lr": 0.2}, warnings=[]),
        ScalingRow(kappa=20, values={}, warnings=[], error="decay_out_of_range"),
    ]

    assert on_terminal(display.scaling_list(rows))[-1] == (
        "kappa 20 is refused: decay_out_of_range (a decay would leave its range)"
    )


def test_the_meaning_of_every_code_that_can_be_shown() -> None:
    raised_elsewhere = {"kappa_invalid", "shards_invalid", "step_unstable"}
    assert MEANING.keys() == CODES.keys() - raised_elsewhere


def test_resizes_take_two_lines_where_one_has_no_room() -> None:
    values = {
        "before": {"lr": 0.0019540123, "ema_momentum": 0.98014950},
        "after": {"lr": 0.001382, "ema_momentum": 0.99},
    }
    rows = [resize_row(samples=1234567, cause="allocator", **values)]

    narrow, wide = on_terminal(display.resize_list(rows)), in_file(display.resize_list(rows))

    assert [line.split()[:3] for line in narrow[2:]] == [["1234567", "allocator", "4"], ["->", "2", "->"]]
    assert "4 -> 2" in wide[2]
    assert "0.001954 -> 0.001382" in wide[2]
    assert in_file(display.resize_list([])) == ["It has not changed its size."]


@pytest.mark.parametrize("width", [80, 100])
def test_the_live_table_fits_and_does_not_jump(width: int) -> None:
    def shown(loss: float, lr: float) -> list[str]:
        job = job_view(phase=Phase.RUNNING, values={"lr": lr, "ema_momentum": 0.98014950})
        return on_terminal(display.live([(job, loss)]), width)

    first, second = shown(0.000012345, 0.00012345), shown(2.5, 0.1)

    assert first[0] == second[0]
    assert first[2].endswith("running")
    assert "\u2501" in first[2]
    job = job_view(name="of-some-length", phase=Phase.RECOVERING)
    assert ("\u2501" in on_terminal(display.live([(job, 2.5)]), width)[2]) == (width > 80), "the bar goes first"


def test_the_list_says_why_only_of_those_that_need_it() -> None:
    queued, running = job_row("1k112yg6hd4hhy1x", "big"), job_row("1k112yg6hd4hhy1y")
    message = "Needs 9 workers of 1 CPU; the cluster has 4 slots."
    queued.status = queued.status.model_copy(update={"phase": Phase.QUEUED, "message": message})

    lines = on_terminal(display.job_list([queued, running], NOW + timedelta(hours=3)))

    assert lines[2].startswith("1k112yg6hd4hhy1x  big     queued")
    assert "3h" in lines[2]
    assert lines[-1].split() == ["1k112yg6hd4hhy1y", "digits", "running", "2", "25%", "3h"]
    assert message in in_file(display.job_list([queued], NOW))[2]
    short = "Trains on 2 of the 5 workers asked for: the cluster is shared with b."
    running.status = running.status.model_copy(update={"code": "short_of_slots", "message": short})
    assert in_file(display.job_list([running], NOW))[2].endswith(short)


def test_a_job_is_shown_whole() -> None:
    view = job_view(
        artifacts={"ema.safetensors": "/srv/jobs/ema.safetensors", "model.safetensors": "/srv/jobs/model.safetensors"},
        evaluation=Evaluation(samples=1, target={"loss": 0.5, "accuracy": 0.9711}, ema={"accuracy": 0.9822}),
        noise_scale=109.6,
    )

    lines = on_terminal(display.job_view(view))

    assert "artifacts     ema.safetensors, model.safetensors" in lines
    assert "              `emascale artifacts 1k114apr40046ss7 --all` downloads them." in lines
    assert not any("/srv" in line for line in lines), "a path on the service's machine helps nobody elsewhere"
    assert "size          2 workers (may have 1 to 4), batch 128, kappa 2" in lines
    assert "progress      4000 of 16000 samples (25%), epoch 2.5, about 30 s left" in lines
    assert "evaluation    loss 0.5, accuracy 0.9711 (EMA 0.9822)" in lines
    assert "noise scale   109.6 samples" in lines


def test_what_a_job_has_or_had() -> None:
    ended = job_view(phase=Phase.SUCCEEDED, workers=0, batch=128)
    waits = job_view(phase=Phase.QUEUED, workers=0, batch=None, kappa=None, target_workers=3, progress=Progress())

    assert size_of(ended) == "batch 128, kappa 2 at the end"
    single = waits.model_copy(
        update={"spec": JobSpec.model_validate(SPEC | {"elasticity": {}}), "target_workers": None}
    )
    assert size_of(single) == "may have 1 worker"
    assert size_of(waits) == "may have 1 to 4 workers, asked for 3"
    assert not any(line.startswith("progress") for line in in_file(display.job_view(waits)))


def test_a_score_that_is_not_finite_says_so() -> None:
    assert scores({"loss": None, "accuracy": 0.1}, {"loss": None}) == "loss not finite (EMA not finite), accuracy 0.1"


def test_an_empty_cluster() -> None:
    lines = in_file(display.cluster_view(ClusterView(connected=False, seen_at=None, nodes=[], queue=[])))

    assert lines[0] == "Ray: not connected, seen never"
    assert lines[-1] == "No job waits."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (467, "7 min 47 s"), (3600, "1 h 0 min"), (90000, "25 h 0 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (200000, "2d")])
def test_ages(seconds: int, text: str) -> None:
    assert age(NOW, NOW + timedelta(seconds=seconds)) == text
