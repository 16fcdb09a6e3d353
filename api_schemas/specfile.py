"""A job spec as a person writes it: YAML or JSON, and single values set on top."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import IO, Any

import yaml

from api_schemas.errors import FieldError, InvalidRequest


class Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as in JSON and YAML 1.2; PyYAML alone reads a string."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_spec(file: IO[str]) -> dict[str, Any]:
    """The mapping in a file. Raises InvalidRequest that names the line."""
    loaded = _load(file, file.name)
    if not isinstance(loaded, dict):
        raise InvalidRequest(f"{file.name} must hold a mapping of fields, as `name: my-job`.")
    return loaded


def override(spec: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """The spec with each `path.to.field=value` set; values are YAML. Raises InvalidRequest."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not all(path.split(".")):
            raise InvalidRequest(f"--set {setting}: must read path.to.field=value, as optimizer.lr=0.1.")
        spec = _with(spec, path.split("."), _load(text, f"--set {setting}"), path)
    return spec


def _with(part: dict[str, Any], names: list[str], value: Any, path: str) -> dict[str, Any]:
    head, *rest = names
    if not rest:
        return part | {head: value}
    inner = part.get(head) or {}
    if not isinstance(inner, dict):
        pointer = "/" + path.replace(".", "/")
        raise InvalidRequest(errors=[FieldError(pointer=pointer, message=f"`{head}` has no fields to set.")])
    return part | {head: _with(inner, rest, value, path)}


def _load(source: IO[str] | str, name: str) -> Any:
    try:
        return yaml.load(source, Loader)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidRequest(f"{name}{where}: not YAML or JSON: {error.problem}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{name}: not YAML or JSON: {' '.join(str(error).split())}") from error
