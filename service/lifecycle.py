"""The life of a job, as one table: what happens in which phase, and where it leads. Pure.

queued ─> starting ─> running <─> resizing | recovering        any of them ─> queued: its workers are gone
   └──────────┴──────────┼─> cancelling ─> cancelled           any of them ─> succeeded | failed
                         └─> pausing ─> paused ─> queued       paused | pausing ─> cancelling | cancelled
"""

from __future__ import annotations

from enum import StrEnum

from api_schemas.views import Phase


class Happening(StrEnum):
    """What can move a job."""

    LAUNCHED = "launched"  # a controller was asked for
    STARTED = "started"  # the first generation of an incarnation trains
    RESIZE_BEGAN = "resize_began"  # a new generation was announced
    RESIZED = "resized"  # a new generation trains
    RANK_LOST = "rank_lost"  # workers were lost, others train on
    CONTROLLER_LOST = "controller_lost"  # it does not answer; training may well go on
    PARKED = "parked"  # no workers any more: given to others, or never there
    PAUSE_REQUESTED = "pause_requested"
    PAUSE_DELAYED = "pause_delayed"  # the checkpoint could not be written yet
    PAUSED = "paused"  # the state is in a checkpoint, nobody lives any more
    RESUME_REQUESTED = "resume_requested"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


QUEUED, STARTING, RUNNING, RESIZING, RECOVERING, PAUSING, PAUSED, CANCELLING = (
    Phase.QUEUED,
    Phase.STARTING,
    Phase.RUNNING,
    Phase.RESIZING,
    Phase.RECOVERING,
    Phase.PAUSING,
    Phase.PAUSED,
    Phase.CANCELLING,
)
ACTIVE = (STARTING, RUNNING, RESIZING, RECOVERING)
"""Phases in which a controller is meant to train."""

_ENDS = {
    Happening.CANCELLED: Phase.CANCELLED,
    Happening.SUCCEEDED: Phase.SUCCEEDED,
    Happening.FAILED: Phase.FAILED,
}
_MOVES: dict[Phase, dict[Happening, Phase]] = {
    QUEUED: {
        Happening.LAUNCHED: STARTING,
        Happening.STARTED: RUNNING,  # its controller was there all along
        Happening.RESIZED: RUNNING,
        Happening.PAUSE_REQUESTED: PAUSED,
        Happening.CANCEL_REQUESTED: Phase.CANCELLED,
    },
    STARTING: {Happening.STARTED: RUNNING, Happening.LAUNCHED: STARTING},
    RUNNING: {Happening.RESIZE_BEGAN: RESIZING},
    RESIZING: {},
    RECOVERING: {Happening.LAUNCHED: RECOVERING, Happening.RESIZE_BEGAN: RECOVERING},
    PAUSING: {
        Happening.PAUSE_DELAYED: PAUSING,
        Happening.PAUSED: PAUSED,
        Happening.CANCEL_REQUESTED: CANCELLING,
    },
    PAUSED: {Happening.RESUME_REQUESTED: QUEUED, Happening.CANCEL_REQUESTED: Phase.CANCELLED},
    CANCELLING: {Happening.LAUNCHED: CANCELLING},
}
_WHILE_ACTIVE = {
    Happening.STARTED: RUNNING,
    Happening.RESIZED: RUNNING,
    Happening.RANK_LOST: RECOVERING,
    Happening.CONTROLLER_LOST: RECOVERING,
    Happening.PARKED: QUEUED,
    Happening.PAUSED: QUEUED,  # nobody asked it to: its cluster stops
    Happening.PAUSE_REQUESTED: PAUSING,
    Happening.CANCEL_REQUESTED: CANCELLING,
}
TRANSITIONS: dict[Phase, dict[Happening, Phase]] = {
    phase: (_WHILE_ACTIVE if phase in ACTIVE else {}) | moves | _ENDS for phase, moves in _MOVES.items()
}
"""Every possible move. A phase that is not a key has ended."""


def follow(phase: Phase, happening: Happening) -> Phase | None:
    """The phase that follows; None: this changes nothing here (never in a phase that has ended)."""
    return TRANSITIONS.get(phase, {}).get(happening)
