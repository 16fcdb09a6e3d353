"""Why a worker failed, told so that a program knows the kind and a person what to do."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from api_schemas.complaints import phrase
from api_schemas.errors import EmascaleError
from workers.archive import Overtaken
from workers.status import Failure
from workers.storage import StorageError

LOG_TAIL = 20


def failure_of(error: BaseException, tail: Callable[[int], list[str]]) -> Failure:
    """What is reported of an error that ended the training of a worker; `tail` gives its last log lines."""
    code, message = _explain(error)
    text = "".join(traceback.format_exception(error))
    return Failure(code=code, message=message, traceback=text, log_tail=tail(LOG_TAIL))


def _explain(error: BaseException) -> tuple[str, str]:
    """A code for programs and a sentence for people."""
    if isinstance(error, EmascaleError):
        return error.reason, error.detail
    if isinstance(error, ValidationError):
        wrong = "; ".join(_said(each) for each in error.errors())
        return "recipe_config_invalid", f"The recipe's config does not fit: {wrong}."
    if isinstance(error, StorageError):
        return "storage_failed", f"The job's storage failed: {error}."
    if isinstance(error, Overtaken):
        return "overtaken", str(error)
    told = f"{type(error).__name__}: {error}".removesuffix(": ")
    return "recipe_raised", f"The recipe raised {told}"


def _said(error: ErrorDetails) -> str:
    """Where, unless it is about several fields, and what."""
    return ": ".join(filter(None, (".".join(str(step) for step in error["loc"]), phrase(error))))
