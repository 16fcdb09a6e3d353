"""How long a worker trains on while no controller looks at it: then it leaves a checkpoint behind, and ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

LEASE_S = 300.0
"""After so long nobody would ever use what it trains but by a checkpoint; a controller is started again in seconds."""
GRACE_S = 300.0
"""For the step that it is in, and for the checkpoint."""


class Tenant(Protocol):
    """Who lives by the lease."""

    @property
    def is_over(self) -> bool:
        """Whether it has nothing left to do, ever."""

    def retire(self) -> None:
        """Leave a checkpoint behind and come to an end, as soon as that is possible."""


class Lease:
    """Of one worker; whoever looks at it renews it."""

    def __init__(
        self, tenant: Tenant, end: Callable[[str], None], *, lease_s: float = LEASE_S, grace_s: float = GRACE_S
    ) -> None:
        """`end(why)` ends the process."""
        self._tenant = tenant
        self._end = end
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._pause_s = min(1.0, lease_s / 10, grace_s / 10)
        self._renewed_at = time.monotonic()

    def start(self) -> None:
        """It runs from now on; returns at once."""
        threading.Thread(target=self._watch, name="lease", daemon=True).start()

    def renew(self) -> None:
        """A controller has looked."""
        self._renewed_at = time.monotonic()

    def _watch(self) -> None:
        while time.monotonic() - self._renewed_at < self._lease_s:
            time.sleep(self._pause_s)
        self._tenant.retire()
        deadline = time.monotonic() + self._grace_s
        while not self._tenant.is_over and time.monotonic() < deadline:
            time.sleep(self._pause_s)
        self._end(f"No controller has asked for {self._lease_s:g} s; this worker ends.")
