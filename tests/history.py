"""What a job's history must add up to, whatever happened to it: its events, the oldest first, each as a dict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Events = Iterable[Mapping[str, Any]]


def untold_sizes(events: Events) -> int:
    """How many changes of size do not begin at the size told before them: one in between is missing.

    One where no step was done since then may begin at another: a restore tells the size of the checkpoint.
    """
    untold, size, since = 0, 0, -1
    for event in events:
        match event["type"]:
            case "started":
                size, since = event["workers"], event["samples"]
            case "rollback":
                since = event["to_samples"]
            case "resized":
                before, after = event["workers"]
                untold += event["samples"] != since and before != size
                size, since = after, event["samples"]
    return untold


def lost_though_saved(events: Events) -> int:
    """Samples that rollbacks made void though a durable checkpoint held them."""
    lost, saved = 0, 0
    for event in events:
        match event["type"]:
            case "checkpoint_saved":
                saved = event["samples"]
            case "rollback":
                lost += max(0, saved - event["to_samples"])
                saved = min(saved, event["to_samples"])
    return lost
