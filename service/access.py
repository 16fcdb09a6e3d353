"""What a request may reach: addresses that are open to all, and the right that every other one needs. Pure."""

from __future__ import annotations

OPEN = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz"})
ASSETS = "/assets/"


def is_open(path: str) -> bool:
    """Whether it tells nothing that is not in the source code, or is for probes; new addresses are closed."""
    return path in OPEN or path.startswith(ASSETS)
