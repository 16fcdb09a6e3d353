"""How soon a job with long curves is drawn: `./run bench page [--json FILE]`, in Debian's Chromium.

One job with 10 curves of 100,000 points each. `load_ms`: from the navigation to the job's address until every chart is
on the screen, with the page itself; `open_ms`: from a click on the job in the list. `curves_ms`: what the service takes
for the curves alone. `first_ms`: the same before blocks were made of them, as with points of the last seconds only.
"""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from playwright.sync_api import Browser, Page

from service import blocks
from service.db import Database, connect, migrate
from tests.benchmarks import finish, say, spread
from tests.benchmarks.api import DATABASES, serving
from tests.benchmarks.load.reports import NAMES
from tests.benchmarks.load.store import fill
from tests.dashboard.browser import chromium

CHARTS = 7
"""That the page draws of these curves."""
DRAWN = f"""new Promise(resolve => {{
  const look = () => document.querySelectorAll('.charts canvas').length >= {CHARTS}
    ? requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - (window.began ?? 0))))
    : setTimeout(look, 1);
  look();
}})"""


def main(
    databases: Annotated[str, typer.Option(help="Which, separated by commas.")] = "sqlite,postgresql",
    points: Annotated[int, typer.Option(help="Of each curve.")] = 100_000,
    repeat: Annotated[int, typer.Option(help="How often each is measured.")] = 7,
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Measure and write."""
    rows = []
    for name in databases.split(","):
        with tempfile.TemporaryDirectory(prefix="bench-page-") as folder, DATABASES[name](Path(folder)) as url:
            database = Database(connect(url), lambda: datetime.now(UTC))
            migrate(database.engine)
            (job,) = fill(database, 100, 1, points * len(NAMES)).running
            with serving(url, Path(folder)) as service, chromium() as browser:
                address = f"http://127.0.0.1:{service.port}"
                row: dict[str, Any] = {"db": name, "curves": len(NAMES), "points": points}
                row["first_ms"] = spread([_curves(address, job)], 0)
                blocks.extend(database, job)
                row["curves_ms"] = spread([_curves(address, job) for _ in range(repeat)], 0)
                row["load_ms"] = spread([_load(browser, address, job) for _ in range(repeat)], 0)
                row["open_ms"] = spread([_open(browser, address, job) for _ in range(repeat)], 0)
            database.engine.dispose()
        say(row)
        rows.append(row)
    finish({"rows": rows}, output)


def _curves(address: str, job: str) -> float:
    began = time.perf_counter()
    httpx.get(f"{address}/v1/jobs/{job}/metrics?points=1000", timeout=60).raise_for_status()
    return 1000 * (time.perf_counter() - began)


def _load(browser: Browser, address: str, job: str) -> float:
    page = browser.new_page()
    page.goto(f"{address}/#/jobs/{job}", wait_until="commit")
    return _drawn(page)


def _open(browser: Browser, address: str, job: str) -> float:
    page = browser.new_page()
    page.goto(f"{address}/#/jobs")
    link = page.locator(f"a[href*='{job}']").first
    link.wait_for()
    page.wait_for_timeout(500)  # until the list itself is done
    link.evaluate("link => { window.began = performance.now(); link.click(); }")
    return _drawn(page)


def _drawn(page: Page) -> float:
    took: float = page.evaluate(DRAWN)
    page.close()
    return took


if __name__ == "__main__":
    typer.run(main)
