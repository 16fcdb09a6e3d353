"""The reference cases of the scaling rules, one test item each. SCALING_CASES names another folder of them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from api_schemas import scaling
from api_schemas.errors import ScalingError

FOLDER = Path(os.environ.get("SCALING_CASES") or Path(__file__).parents[1] / "cases")

Tolerance = tuple[float, float]  # relative, absolute


def read_cases(folder: Path) -> Iterator[tuple[dict[str, Any], Tolerance]]:
    """Every case of every file. A folder without any is a mistake in the path, not a reason to test nothing."""
    found = False
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for case in content["cases"]:
            found = True
            yield case, (content["rtol"], content["atol"])
    if not found:
        raise FileNotFoundError(f"no cases in any *.json of {folder}; SCALING_CASES has to name a folder that has some")


def _derive(**args: Any) -> dict[str, Any]:
    derived = scaling.derive(args.pop("optimizer"), args.pop("base"), args.pop("kappa"), **args)
    return {**derived.values, "codes": [finding.code for finding in derived.findings]}


def _interpolate(rho: float, kappa: float) -> dict[str, Any]:
    result = scaling.ema_interpolation(rho, kappa)
    return {"rho": result.decay, "c_old": result.c_old, "c_new": result.c_new}


def _cosine(rho0: float, samples: float, total_samples: float, kappa: float) -> dict[str, Any]:
    kappa = scaling.check_kappa(kappa)  # looked at before any decay, as everywhere
    rho = scaling.ema_cosine(rho0, samples, total_samples)
    return {"rho_base": rho, "rho": scaling.ema_momentum(rho, kappa)}


def _stability(**args: Any) -> dict[str, Any]:
    result = scaling.stability(**args)
    return {"x": result.x, "bound": result.bound, "code": result.code}


def _value(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    return lambda **args: {"value": function(**args)}


CALLS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "derive": _derive,
    "switch": scaling.switch,
    "centered": _value(scaling.centered_square_avg),
    "counter": _value(scaling.rescale_counter),
    "ema": _value(scaling.ema_momentum),
    "ema_interpolate": _interpolate,
    "ema_cosine": _cosine,
    "lr_multiplier": _value(scaling.lr_multiplier),
    "batchnorm": _value(scaling.batchnorm_momentum),
    "clip": _value(scaling.clip_norm),
    "second_moment": _value(scaling.second_moment_input),
    "noise": lambda **args: scaling.noise_scale(**args)._asdict(),
    "stability": _stability,
}


def matches(got: Any, want: Any, tolerance: Tolerance) -> bool:
    """Numbers within the tolerance, sequences element by element, everything else equal."""
    if isinstance(want, Sequence) and not isinstance(want, str):
        return len(got) == len(want) and all(matches(g, w, tolerance) for g, w in zip(got, want, strict=True))
    if want is None or isinstance(want, str | bool):
        return bool(got == want)
    relative, absolute = tolerance
    if got is None or math.isinf(want):  # everything lies within a share of infinity
        return bool(got == want)
    return bool(abs(got - want) <= absolute + relative * abs(want))


def check(case: Mapping[str, Any], tolerance: Tolerance) -> None:
    """Fails unless the call gives what the case expects. A null error or null codes say as much as none."""
    call, args = CALLS[case["call"]], dict(case["args"])
    if case.get("expected_error") is not None:
        with pytest.raises(ScalingError) as caught:
            call(**args)
        assert caught.value.reason == case["expected_error"]
        return
    got = call(**args)
    differing = {
        name: (got.get(name), want)
        for name, want in case["expected"].items()
        if not (name in got and matches(got[name], want, tolerance))
    }
    assert not differing, "field: (got, want)"
    if case.get("codes") is not None:
        assert sorted(got["codes"]) == sorted(case["codes"])


@pytest.mark.parametrize(("case", "tolerance"), [pytest.param(*pair, id=pair[0]["id"]) for pair in read_cases(FOLDER)])
def test_case(case: dict[str, Any], tolerance: Tolerance) -> None:
    check(case, tolerance)


SGD: dict[str, Any] = {"call": "derive", "args": {"optimizer": "sgd", "base": {"lr": 1}, "kappa": 4}}
ADAM: dict[str, Any] = {"call": "derive", "args": {"optimizer": "adam", "base": {"betas": [0, 0.99]}, "kappa": 64}}
BATCHNORM: dict[str, Any] = {"call": "batchnorm", "args": {"momentum": None, "kappa": 4}}
STABILITY: dict[str, Any] = {
    "call": "stability",
    "args": {"lr": 1, "mu": 0, "dampening": 0, "nesterov": False, "kappa": 1, "lambda_max": math.inf},
}
COSINE: dict[str, Any] = {"call": "ema_cosine", "args": {"rho0": 1.5, "samples": 0, "total_samples": 1, "kappa": 0}}


@pytest.mark.parametrize(
    "case",
    [
        {**SGD, "expected": {"lr": 4, "nesterov": False}, "codes": []},
        {**SGD, "expected": {"lr": 4.0}, "expected_error": None, "codes": None},
        {**ADAM, "expected": {"betas": [0, 0.99**64]}, "codes": ["v_few_samples"]},
        {**BATCHNORM, "expected": {"value": None}},
        {**STABILITY, "expected": {"x": math.inf, "bound": 2, "code": "step_unstable"}},
        {**COSINE, "expected_error": "kappa_invalid"},
    ],
)
def test_what_holds_passes(case: dict[str, Any]) -> None:
    check(case, (1e-9, 1e-12))


@pytest.mark.parametrize(
    "case",
    [
        {**SGD, "expected": {"lr": 4 + 1e-7}},
        {**SGD, "expected": {"lr": None}},
        {**SGD, "expected": {"lr": math.nan}},
        {**SGD, "expected": {"alpha": 0.99}},
        {**SGD, "expected": {"lr": 4}, "codes": ["momentum_lost"]},
        {**SGD, "expected_error": "kappa_invalid"},
        {**ADAM, "expected": {}, "codes": []},
        {**ADAM, "expected": {"betas": [0]}},
        {**ADAM, "expected": {"betas": [0, 0.99]}},
        {**BATCHNORM, "expected": {"value": 0.0}},
        {**STABILITY, "expected": {"x": -math.inf}},
        {**STABILITY, "expected": {"code": None}},
        {**COSINE, "expected_error": "decay_out_of_range"},
    ],
)
def test_what_does_not_hold_fails(case: dict[str, Any]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(case, (1e-9, 1e-12))


def test_every_file_of_a_folder_is_read_with_its_own_tolerance(tmp_path: Path) -> None:
    for name, absolute in [("a", 0), ("b", 1)]:
        content = {"rtol": 0, "atol": absolute, "note": "\N{GREEK SMALL LETTER RHO}", "cases": [{"id": name}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    assert list(read_cases(tmp_path)) == [({"id": "a"}, (0, 0)), ({"id": "b"}, (0, 1))]


@pytest.mark.parametrize("content", [None, '{"rtol": 0, "atol": 0, "cases": []}'], ids=["no file", "no case in it"])
def test_a_folder_without_cases_is_refused(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "some.json").write_text(content)
    with pytest.raises(FileNotFoundError, match="SCALING_CASES"):
        list(read_cases(tmp_path))
