"""A Chromium that looks at the dashboard: what it shows, what it costs, and whether everybody can use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
AXE = ROOT / "service" / "dashboard" / "ui" / "node_modules" / "axe-core" / "axe.min.js"
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium: apt-get install chromium")
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: npm ci in service/dashboard/ui")
OUTPUT = ROOT / "test-output" / "dashboard"
WIDTHS = {"wide": 1440, "phone": 390}
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PATIENCE_MS = 60_000

expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without pages, which ends with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Screen:
    """A page of the dashboard, which remembers what it complained about."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.address = address
        self.page: Page = browser.new_page(viewport={"width": WIDTHS["wide"], "height": 900})
        self.page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)
        self._received = 0
        self._streams: set[str] = set()
        network = self.page.context.new_cdp_session(self.page)
        network.on("Network.responseReceived", self._count_head)
        network.on("Network.dataReceived", self._count_body)
        network.send("Network.enable")

    def go(self, place: str) -> Page:
        """Show a place: what stands behind the `#` of its address."""
        self.page.goto(f"{self.address}/#{place}")
        return self.page

    def shown(self, name: str) -> None:
        """Keep a picture at each width, in each theme."""
        OUTPUT.mkdir(parents=True, exist_ok=True)
        for width, pixels in WIDTHS.items():
            self.page.set_viewport_size({"width": pixels, "height": 900})
            for theme in THEMES:
                self.page.emulate_media(color_scheme=theme)
                self.page.wait_for_timeout(150)  # until the charts are drawn anew
                self.page.screenshot(path=OUTPUT / f"{name}-{width}-{theme}.png", full_page=True)
        self.page.set_viewport_size({"width": WIDTHS["wide"], "height": 900})

    def overflows(self) -> bool:
        """Whether a phone would have to scroll the page sideways."""
        self.page.set_viewport_size({"width": WIDTHS["phone"], "height": 900})
        wider: bool = self.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        self.page.set_viewport_size({"width": WIDTHS["wide"], "height": 900})
        return wider

    def barriers(self) -> list[str]:
        """What axe finds serious or worse, at each width, in each theme."""
        found: list[str] = []
        for width, pixels in WIDTHS.items():
            self.page.set_viewport_size({"width": pixels, "height": 900})
            for theme in THEMES:
                self.page.emulate_media(color_scheme=theme)
                self.page.evaluate(AXE.read_text())
                result: Any = self.page.evaluate("axe.run()")
                for violation in result["violations"]:
                    if violation["impact"] in ("serious", "critical"):
                        targets = [node["target"] for node in violation["nodes"]]
                        found.append(f"{width}, {theme}: {violation['id']}: {json.dumps(targets)}")
        self.page.set_viewport_size({"width": WIDTHS["wide"], "height": 900})
        return found

    @property
    def received(self) -> int:
        """Bytes that came over the network so far, headers and bodies, as the browser counts them."""
        return self._received

    def close(self) -> None:
        self.page.close()

    def _hear(self, message: ConsoleMessage) -> None:
        refused = message.text.startswith("Failed to load resource")  # a 422 in a form, a service that is away
        if message.type in ("error", "warning") and not refused:
            self.complaints.append(message.text)

    def _count_head(self, event: Any) -> None:
        self._received += int(event["response"]["encodedDataLength"])
        if event["type"] == "EventSource":
            self._streams.add(event["requestId"])

    def _count_body(self, event: Any) -> None:
        """Of a stream only the decoded length is told; of others that may be what the browser had already."""
        told = "dataLength" if event["requestId"] in self._streams else "encodedDataLength"
        self._received += int(event[told])
