"""Whether the demo showed what it is to show. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from api_schemas.views import Phase, Resize
from deploy.demo.play import Result

ACCURACY = 0.95
"""What both averaged models must reach on images that they never saw."""


def shortcomings(results: Sequence[Result]) -> list[str]:
    """What is missing, as sentences; nothing if all went well."""
    found = [sentence for result in results for sentence in _of_job(result)]
    if len(results) < 2:
        return [*found, "The second job never arrived: the first ended before."]
    return [*found, *_of_sizes(results[0].resizes)]


def _of_job(result: Result) -> Iterator[str]:
    name, status = result.view.name, result.view.status
    if status.phase is not Phase.SUCCEEDED:
        yield f"Job {name} {status.phase}: {status.message}"
        return
    for row in result.resizes:
        if row.cause != "rank_lost" and (row.steps_lost or row.samples_lost):
            yield f"Job {name} lost {row.steps_lost} steps and {row.samples_lost} samples in resize {row.id}."
    accuracy = _accuracy(result)
    if accuracy is None or accuracy < ACCURACY:
        yield f"The EMA model of job {name} has an accuracy of {accuracy}; expected: at least {ACCURACY}."


def _of_sizes(resizes: Sequence[Resize]) -> Iterator[str]:
    changes = [row.workers[1] - row.workers[0] for row in resizes]
    shrank = next((at for at, change in enumerate(changes) if change < 0), None)
    if shrank is None:
        yield "The first job did not give way to the second."
    elif not any(change > 0 for change in changes[shrank:]):
        yield "The first job did not grow back."


def _accuracy(result: Result) -> float | None:
    evaluation = result.view.evaluation
    return evaluation.ema.get("accuracy") if evaluation and evaluation.ema else None
