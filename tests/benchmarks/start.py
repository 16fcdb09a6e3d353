"""From the submission to the first step, on a service that runs: `./run bench start [--json FILE]`.

Both engines in turn, two workers each, the same job; the first of each is not counted. `start_s` is from the request
to the moment at which the first generation trains, as the job's event `started` has it. Memory is that of the workers'
processes then: `rss` counts what they share in full, `pss` by shares.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from api_schemas.views import Phase
from tests.benchmarks import finish, say, spread
from tests.integration.stage import Stage as Service
from tests.integration.stage import staged

ENGINES = ("in_place", "ray_train")
WORKERS = 2
REST_S = 3.0
"""Between two jobs: the processes of the last one have ended by then."""


class Start(NamedTuple):
    """One job's."""

    seconds: float
    rss_mb: float  # a worker
    pss_mb: float


def main(
    repeat: Annotated[int, typer.Option(help="Jobs of each engine.")] = 7,
    engines: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(ENGINES),
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Measure, print a row a job, write all."""
    found: dict[str, list[Start]] = {engine: [] for engine in engines.split(",")}
    with tempfile.TemporaryDirectory(prefix="start-") as folder, staged(Path(folder), slots=WORKERS + 1) as service:
        for engine in [*found, *(engine for _ in range(repeat) for engine in found)]:
            start = _start(service, engine)
            say({"engine": engine, **start._asdict()})
            found[engine].append(start)
    rows = [_row(engine, starts[1:]) for engine, starts in found.items()]
    result: dict[str, Any] = {"rows": rows}
    if len(rows) == len(ENGINES):
        medians = [row["start_s"]["median"] for row in rows]
        result["ratio"] = round(medians[0] / medians[1], 4)
    finish(result, output)


def _start(service: Service, engine: str) -> Start:
    time.sleep(REST_S)
    submitted_at = time.time()
    job = service.submit(engine=engine, elasticity={"workers": [WORKERS, WORKERS]}, schedule={"budget": "10000 epochs"})
    job.trains_on(WORKERS)
    (started,) = job.said("started")
    memory = [_memory(process) for process in job.ranks().values()]
    service.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    rss, pss = (statistics.fmean(sizes) for sizes in zip(*memory, strict=True))
    return Start(round(started.at.timestamp() - submitted_at, 3), round(rss), round(pss))


def _memory(process: int) -> tuple[float, float]:
    """RSS and PSS in MB."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    sizes = dict(re.findall(r"^(Rss|Pss): +(\d+) kB", text, re.MULTILINE))
    return int(sizes["Rss"]) / 1000, int(sizes["Pss"]) / 1000


def _row(engine: str, starts: list[Start]) -> dict[str, Any]:
    return {
        "engine": engine,
        "start_s": spread([start.seconds for start in starts]),
        "rss_mb_per_rank": round(statistics.median(start.rss_mb for start in starts)),
        "pss_mb_per_rank": round(statistics.median(start.pss_mb for start in starts)),
    }


if __name__ == "__main__":
    typer.run(main)
