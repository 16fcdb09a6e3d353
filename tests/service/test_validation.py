"""Request bodies: whatever is sent is taken or named, with a pointer to where it is and a sentence of what may be."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from functools import reduce
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from fastapi import Request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, model_validator

from api_schemas.errors import FieldError, InvalidRequest
from api_schemas.jobs import JobSpec
from service.settings import Settings
from service.validation import body_of, check
from tests.service.world import World, pointers, problem, spec


def post(world: World, body: Any) -> httpx.Response:
    return world.http.post("/v1/jobs", json=body)


BASE = {"workers": [1, 4]}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"optimizer": {"name": "muon", "lr": 1}}, "/optimizer/name", "adamw"),
    ({"optimizer": {"lr": 1}}, "/optimizer/name", "adamw"),
    ({"optimizer": {"name": "adamw"}}, "/optimizer/lr", "required"),
    ({"optimizer": {"name": "adamw", "lr": -1}}, "/optimizer/lr", "greater than 0"),
    ({"optimizer": {"name": "adamw", "lr": 1, "betas": [0.9, 2]}}, "/optimizer/betas/1", "less than 1"),
    ({"optimizer": {"name": "adamw", "lr": 1, "betas": [0.9]}}, "/optimizer/betas/1", "required"),
    ({"optimizer": {"name": "adamw", "lr": 1, "adamw": 1}}, "/optimizer/adamw", "there are: amsgrad, betas"),
    ({"optimizer": 3}, "/optimizer", "object"),
    ({"batch": {"base": 0, "per_worker": 1}}, "/batch/base", "at least 1"),
    ({"schedule": {"budget": "50 steps"}}, "/schedule/budget", "epochs"),
    ({"schedule": {"budget": "0 epochs"}}, "/schedule/budget", "longer than 0"),
    ({"schedule": {"budget": "5 epochs", "lr": "linear"}}, "/schedule/lr", "'constant' or 'cosine'"),
    ({"ema": {}}, "/ema", "half_life"),
    ({"ema": {"momentum": 2}}, "/ema/momentum", "at most 1"),
    ({"elasticity": {"workers": [3, 1]}}, "/elasticity/workers", "must not exceed"),
    ({"elasticity": {"workers": [1]}}, "/elasticity/workers/1", "required"),
    ({"elasticity": BASE | {"mode": "free"}}, "/elasticity/mode", "'scale', 'hold' or 'auto'"),
    ({"scaling": {"rule": "linear"}}, "/scaling/rule", "'matched' or 'published'"),
    ({"labels": {"a b": "c"}}, "/labels/a b", "letter or a digit"),
    ({"labels": {"a/b": ""}}, "/labels/a~1b", "letter or a digit"),
    ({"name": ""}, "/name", "at least 1"),
    ({"resources": {"cpu": 0}}, "/resources/cpu", "greater than 0"),
    ({"resources": {"gpu": False}}, "/resources/gpu", "0 or 1"),
    ({"priority": True}, "/priority", "an integer"),
    ({"priority": "3"}, "/priority", "an integer"),
    ({"scaling": {"keep": ["lr", "lr"]}}, "/scaling/keep", "once"),
    ({"bacth": {}}, "/bacth", "there are: batch"),
    ({"a~b/c": 1}, "/a~0b~1c", "there are: batch"),
]


@pytest.mark.parametrize(("change", "pointer", "allowed"), WRONG, ids=[f"{row[1]}-{row[2]}" for row in WRONG])
def test_a_wrong_field_is_named_with_what_is_allowed(
    world: World, change: dict[str, Any], pointer: str, allowed: str
) -> None:
    found = pointers(post(world, spec(**change)))
    assert list(found) == [pointer]
    assert allowed in found[pointer]


def test_all_wrong_fields_are_named_at_once(world: World) -> None:
    found = pointers(post(world, spec(batch={}, priority=10_000)))
    assert set(found) == {"/batch/base", "/batch/per_worker", "/priority"}


def test_of_very_many_wrong_fields_the_first_are_named(world: World) -> None:
    response = post(world, spec(labels={str(number): "" for number in range(60)}))
    assert set(pointers(response)) == {f"/labels/{number}" for number in range(50)}
    assert "49 more" in response.json()["detail"]


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b'{"name":\n x}', "application/json", "not valid JSON: expected value at line 2 column 2"),
        (b'{"seed": NaN}', "application/json", "line 1 column 10"),
        (b"[" * 100_000, "application/json", "recursion limit"),
        (b'{"name": "\\ud800"}', "application/json", "not valid JSON"),
        (b"a: [1", "application/yaml", "line 1 column 6"),
        (b"a: &x 1\nb: *x", "application/yaml", "aliases are not allowed at line 2 column 4"),
        (b"a: !!python/object:os.system {}", "application/yaml", "not valid YAML"),
        (b"[" * 5_000, "application/yaml", "not valid YAML"),
        (b"\xff\xfe\x00", "application/yaml", "not valid YAML"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_where_it_breaks(
    world: World, content: bytes, kind: str, said: str
) -> None:
    response = world.http.post("/v1/jobs", content=content, headers={"Content-Type": kind})
    assert said in problem(response, 400, f"malformed_{kind.partition('/')[2]}")["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", ""])
def test_a_body_of_another_kind_is_told_which_are_read(world: World, kind: str) -> None:
    response = world.http.post("/v1/jobs", content=json.dumps(spec()), headers={"Content-Type": kind})
    detail = problem(response, 415, "unsupported_media_type")["detail"]
    assert "must be application/json or application/yaml" in detail
    assert response.headers["accept"] == "application/json, application/yaml"


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}])
def test_a_body_that_is_missing_is_asked_for(world: World, headers: dict[str, str]) -> None:
    response = world.http.post(f"/v1/jobs/{world.submit()}/resize", headers=headers)
    assert pointers(response) == {
        "": "A body is needed, as application/json or application/yaml, with these fields: "
        "workers, at_samples (optional)."
    }


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e400"])
def test_a_number_that_is_not_finite_is_named_in_yaml_too(world: World, value: str) -> None:
    response = world.http.post("/v1/jobs", content=f"a: [1, {value}]", headers={"Content-Type": "application/yaml"})
    assert pointers(response) == {"/a/1": "Must be a finite number, at most 1.8e+308."}


@pytest.mark.parametrize("content", [b"[]", b'"text"', b"3", b"null"])
def test_a_body_must_be_an_object(world: World, content: bytes) -> None:
    assert "" in pointers(world.http.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"}))


def test_a_body_that_is_too_large_is_refused(world: World) -> None:
    large = b" " * (world.settings.max_body_bytes + 1)
    response = world.http.post("/v1/jobs", content=large, headers={"Content-Type": "application/json"})
    assert str(world.settings.max_body_bytes) in problem(response, 413, "payload_too_large")["detail"]


def test_a_body_that_hides_its_size_is_counted(world: World) -> None:
    chunks = (b" " * 2**16 for _ in range(17))
    response = world.http.post("/v1/jobs", content=chunks, headers={"Content-Type": "application/json"})
    problem(response, 413, "payload_too_large")


@pytest.mark.parametrize("kind", ["application/json", "application/yaml", "Text/YAML; charset=utf-8"])
def test_both_kinds_of_body_obey_the_same_rules(world: World, kind: str) -> None:
    response = world.http.post("/v1/jobs", content=json.dumps(spec(batch={})), headers={"Content-Type": kind})
    assert set(pointers(response)) == {"/batch/base", "/batch/per_worker"}


def test_a_whole_number_may_be_written_as_a_fraction(world: World) -> None:
    response = post(world, spec(batch={"base": 64.0, "per_worker": 1.28e2}, optimizer={"name": "sgd", "lr": 1}))
    assert response.json()["spec"]["batch"] == {"base": 64, "per_worker": 128}


def test_a_number_too_large_for_any_machine_is_named(world: World) -> None:
    """JSON may spell it, a float cannot hold it: it would come back as null."""
    text = json.dumps(spec(recipe={"name": "a:B", "config": {"width": [1, 2]}})).replace("2]", "1e400]")
    response = world.http.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    assert list(pointers(response)) == ["/recipe/config/width/1"]


@pytest.mark.parametrize(("part", "field"), [("schedule", "budget"), ("checkpoint", "every")])
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_length_without_end_is_named(world: World, part: str, field: str, dry_run: bool) -> None:
    body = spec(**{part: {field: "1e400 epochs"}})
    response = world.http.post("/v1/jobs", json=body, params={"dry_run": dry_run})
    assert list(pointers(response)) == [f"/{part}/{field}"]


def test_a_long_body_does_not_hold_up_the_other_requests() -> None:
    """It is read in a thread: YAML of a megabyte takes seconds."""

    class Where(BaseModel):
        thread: str = ""

        @model_validator(mode="after")
        def _note(self) -> Where:
            self.thread = threading.current_thread().name
            return self

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    app = SimpleNamespace(state=SimpleNamespace(context=SimpleNamespace(settings=Settings())))
    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/yaml")], "app": app}
    found = asyncio.run(body_of(Where)(Request(scope, receive)))
    assert found.thread != threading.current_thread().name


FULL = JobSpec.model_validate(
    spec(
        schedule={"budget": "5 epochs", "warmup": "640 samples", "lr": "cosine"},
        clip={"norm": 1.0},
        ema={"momentum": 0.99},
        labels={"team": "vision"},
        checkpoint={"every": "1 epochs", "keep": 2},
        recipe={"name": "a:B", "config": {"widths": [1, 2]}},
    )
).model_dump(mode="json")
"""A spec with something in every field."""

Steps = tuple[int | str, ...]


def places(value: Any, steps: Steps = ()) -> Iterator[Steps]:
    """The way to every part of a value."""
    yield steps
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        yield from places(inner, (*steps, step))


def put(value: Any, steps: Steps, new: Any) -> Any:
    """The value with another part in that place."""
    if not steps:
        return new
    first, *rest = steps
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[first] = put(value[first], tuple(rest), new)
    return copy


def values() -> st.SearchStrategy[Any]:
    """Whatever JSON can say, extremes preferred."""
    number = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    odd = st.sampled_from([0, -1, 2**63, 10**400, 1e308, 5e-324, "", "1e308 epochs", "0 samples", "a" * 300, "\0", "ü"])
    leaf = st.none() | st.booleans() | number | st.text(max_size=5) | odd
    return st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    )


def at(value: Any, text: str) -> Any:
    """What a JSON pointer points at; KeyError, IndexError where there is nothing (RFC 6901)."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]
    return reduce(lambda inner, step: inner[int(step) if isinstance(inner, list) else step], steps, value)


RAW = re.compile(r"(?i)input should|value error|assertion|validation|\bvalid \w+|should have|dictionary|tuple|None")
"""Words of Pydantic and Python that say nothing to who wrote a job."""


MISSING = ("This field is required", "Must be one of")


def found_in(body: Any) -> list[FieldError]:
    """What is wrong with a spec."""
    try:
        check(JobSpec, body)
    except InvalidRequest as error:
        return error.errors or pytest.fail("refused without a reason")
    return []


@settings(deadline=None)
@given(place=st.sampled_from(list(places(FULL))), new=values())
def test_what_is_wrong_is_pointed_at(place: Steps, new: Any) -> None:
    """At itself, or where it is missing from."""
    body = put(FULL, place, new)
    for error in found_in(body):
        assert not RAW.search(error.message), error
        assert error.message[0].isupper()
        assert error.message.endswith(".")
        at(body, error.pointer.rpartition("/")[0] if error.message.startswith(MISSING) else error.pointer)
        assert not place or error.pointer == "" or error.pointer.split("/")[1] == place[0]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(list(places(FULL))), new=values())
@example(place=("optimizer", "lr"), new=1e308)
@example(place=("batch",), new={"base": 1, "per_worker": 10_000_000})
def test_a_spec_is_taken_or_refused_and_never_breaks_the_service(world: World, place: Steps, new: Any) -> None:
    response = post(world, put(FULL, place, new))
    if response.status_code == 422:
        problem(response, 422, response.json()["code"])
    else:
        assert response.status_code == 201, response.text
        view = response.json()
        assert world.job(view["id"]) == view
        again = world.http.post("/v1/jobs", json=view["spec"])
        assert (again.status_code, again.json()["spec"]) == (201, view["spec"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(str.encode), kind=st.sampled_from(["json", "yaml"]))
@example(raw=b"? [a]\n: 1", kind="yaml")
@example(raw=b"2026-01-01: 2026-01-01", kind="yaml")
@example(raw=b"a: !!binary x", kind="yaml")
@example(raw=b"a: !!timestamp x", kind="yaml")
@example(raw=b"a: !!int x", kind="yaml")
@example(raw=b"a: !!int ''", kind="yaml")
@example(raw=b"a: !!bool x", kind="yaml")
@example(raw=b"a: 2026-13-45", kind="yaml")
@example(raw=b"a: 0x" + b"f" * 10_000, kind="yaml")
@example(raw=b"<<: 3", kind="yaml")
def test_bytes_of_any_kind_are_refused_and_never_break_the_service(world: World, raw: bytes, kind: str) -> None:
    response = world.http.post("/v1/jobs", content=raw, headers={"Content-Type": f"application/{kind}"})
    assert response.status_code == 422 or problem(response, 400, f"malformed_{kind}")["detail"]


def test_a_body_may_be_yaml_as_people_write_it(world: World) -> None:
    text = yaml.safe_dump(FULL).replace("0.001", "1e-3")
    response = world.http.post("/v1/jobs", content=text, headers={"Content-Type": "application/x-yaml"})
    assert response.json()["spec"] == FULL
