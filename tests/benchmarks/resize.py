"""How long a resize, a kill and a freeze stop the training: `./run bench resize [--json FILE]`.

`pause_s` is the end of the last step before to the start of the first after, as the lead measured it; for a kill and a
freeze the time from the signal until the next generation was told. `decide_s` is from the request to the decision.
Each figure is of `--repeat` changes of one running job with AdamW and an EMA, on an embedded cluster of this machine.
The peers (Ray Train's restarts, torchrun, torchft) are not run here yet.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from api_schemas.views import Phase, Resize
from tests.integration.stage import Job, Stage, staged

MODELS = {"0.26 M": (280, 4), "26 M": (2900, 4), "86 M": (4096, 6)}
"""Hidden width and depth of the MLP."""
STATE_TENSORS = 4
"""Of the parameters' size: weights, EMA, and AdamW's two moments."""


def main(
    repeat: Annotated[int, typer.Option(help="Changes of each kind.")] = 5,
    models: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(MODELS),
    freeze: Annotated[bool, typer.Option(help="Measure freezes too; each takes the 10 s of the stall timeout.")] = True,
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Measure, print a row at a time, write all."""
    with tempfile.TemporaryDirectory(prefix="resize-") as folder, staged(Path(folder), slots=4) as stage:
        rows = [row for model in models.split(",") for row in _measure(stage, model, repeat, freeze=freeze)]
    result = {"rows": rows, "missing_peers": ["ray_train", "torchrun", "torchft"]}
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n")


def _measure(stage: Stage, model: str, repeat: int, *, freeze: bool) -> Iterator[dict[str, Any]]:
    hidden, depth = MODELS[model]
    params = 64 * hidden + hidden + (depth - 1) * (hidden * hidden + hidden) + 10 * hidden + 10
    job = stage.submit(
        recipe={"name": "classify", "config": {"model": "mlp", "hidden": hidden, "depth": depth}},
        schedule={"budget": "1000000 epochs"},
        batch={"base": 8, "per_worker": 8},
        elasticity={"workers": [1, 3]},
        stall_timeout="10s",
    )
    job.trains_on(3)
    found: dict[str, list[tuple[float, Resize]]] = {"shrink": [], "grow": [], "kill": [], "freeze": []}
    for _ in range(repeat):
        found["shrink"].append(_asked(job, 2))
        found["grow"].append(_asked(job, 3))
        found["kill"].append(_struck(job, signal.SIGKILL))
        if freeze:
            found["freeze"].append(_struck(job, signal.SIGSTOP))
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    for event, changes in found.items():
        if changes:
            row = _row(params, event, changes)
            print(json.dumps(row), file=sys.stderr, flush=True)
            yield row


def _asked(job: Job, workers: int) -> tuple[float, Resize]:
    job.client.resize(job.id, workers)
    job.trains_on(workers)
    row = job.rows()[-1]
    return row.pause_s, row


def _struck(job: Job, number: signal.Signals) -> tuple[float, Resize]:
    """Of the newest worker. Returns once its place is taken again."""
    told, processes = len(job.rows()), job.ranks()
    newest = max(processes, key=lambda worker: int(worker[1:]))
    struck_at = time.time()
    os.kill(processes[newest], number)
    job.until(lambda _: len(job.rows()) >= told + 2)
    job.trains_on(3)
    row = job.rows()[told]
    return row.at.timestamp() - struck_at, row


def _row(params: int, event: str, changes: list[tuple[float, Resize]]) -> dict[str, Any]:
    pauses = [pause for pause, _ in changes]
    pause = {"median": statistics.median(pauses), "min": min(pauses), "max": max(pauses)}
    return {
        "peer": "in_place",
        "params": params,
        "event": event,
        "pause_s": {name: round(value, 4) for name, value in pause.items()},
        "decide_s": round(statistics.median(row.decide_s for _, row in changes), 4),
        "steps_lost": sum(row.steps_lost for _, row in changes),
        "state_bytes": 4 * STATE_TENSORS * params,
    }


if __name__ == "__main__":
    typer.run(main)
