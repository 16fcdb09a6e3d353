"""Why a worker failed, told so that a program knows the kind and a person what to do."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from pydantic import ValidationError

from api_schemas.errors import EmascaleError
from workers.archive import Overtaken
from workers.status import Failure
from workers.storage import StorageError

LOG_TAIL = 20


def failure_of(error: Exception, tail: Callable[[int], list[str]]) -> Failure:
    """What is reported of an error that ended the training of a worker; `tail` gives its last log lines."""
    code, message = _explain(error)
    text = "".join(traceback.format_exception(error))
    return Failure(code=code, message=message, traceback=text, log_tail=tail(LOG_TAIL))


def _explain(error: Exception) -> tuple[str, str]:
    """A code for programs and a sentence for people."""
    if isinstance(error, EmascaleError):
        return error.reason, error.detail
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        return "recipe_config_invalid", f"The recipe's config does not fit: {where}: {first['msg']}."
    if isinstance(error, StorageError):
        return "storage_failed", f"The job's storage failed: {error}."
    if isinstance(error, Overtaken):
        return "overtaken", str(error)
    return "recipe_raised", f"The recipe raised {type(error).__name__}: {error}"
