"""Nodes that are to leave, as a job's controller judges them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from api_schemas.exchange import Departure
from workers.status import Status

HASTE_S, HASTE_TIMES = 10.0, 3.0
"""A node is left so long before it may be gone, whether or not others are warm; or, where that is longer, as long as
so many steps and checkpoints take: where nobody else is left, the state goes into one."""


def urgent(departures: Sequence[Departure], now: datetime, last_s: float) -> frozenset[str]:
    """The nodes that cannot be waited on any more, where a step and a checkpoint take so long."""
    haste = max(HASTE_S, HASTE_TIMES * last_s)
    return frozenset(each.node for each in departures if each.by and (each.by - now).total_seconds() < haste)


def left(departures: Sequence[Departure], workers: Iterable[Status]) -> set[str]:
    """The nodes that are to leave and on which one of these workers lives."""
    return {status.node for status in workers} & {each.node for each in departures}


def sentence(departures: Sequence[Departure], left: Collection[str]) -> str:
    """Why these nodes were left."""
    parts = [
        f"{each.address} may be gone by {each.by:%H:%M:%S %Z}" if each.by else f"{each.address} is to leave"
        for each in departures
        if each.node in left
    ]
    return f"Node {', and node '.join(parts)}."
