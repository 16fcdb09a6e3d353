"""Nodes that are to leave, as a job's controller judges them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from api_schemas.exchange import Departure

HASTE_S, HASTE_STEPS = 10.0, 3.0
"""A node is left so long before it may be gone, and as long as so many steps take, whether or not others are warm."""


def urgent(departures: Sequence[Departure], now: datetime, step_s: float) -> frozenset[str]:
    """The nodes that cannot be waited on any more, where a step takes so long."""
    haste = max(HASTE_S, HASTE_STEPS * step_s)
    return frozenset(each.node for each in departures if each.by and (each.by - now).total_seconds() < haste)


def sentence(departures: Sequence[Departure], left: Collection[str]) -> str:
    """Why these nodes were left."""
    parts = [
        f"{each.address} may be gone by {each.by:%H:%M:%S %Z}" if each.by else f"{each.address} is to leave"
        for each in departures
        if each.node in left
    ]
    return f"Node {', and node '.join(parts)}."
