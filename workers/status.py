"""How a worker is, as it tells its controller."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from workers.journal import Point, Record


class Phase(StrEnum):
    """What a worker does."""

    WARMING = "warming"  # imports, builds the model, reads the data
    READY = "ready"  # in no generation: it has not been in one yet, or its last one ended
    JOINING = "joining"  # meets the others of a generation and becomes one of them
    TRAINING = "training"
    DONE = "done"  # the budget is used up, what was due at the end is done
    FAILED = "failed"  # the recipe, or what it needs, raised
    LEFT = "left"  # in no generation any more, for good


class Activity(StrEnum):
    """What its training thread is at; the value completes "no progress in ..."."""

    IDLE = "idleness"  # waits to be told what is next, or has nothing left to do
    WARM_UP = "its warm-up"
    JOIN = "joining a generation"  # meets the others, restores or is handed the state, converts it
    FIRST_STEP = "its first step of a generation"
    STEP = "a step"
    EVALUATE = "an evaluation"
    CHECKPOINT = "a checkpoint"
    EXPORT = "the export"
    LEAVE = "leaving a generation"


@dataclass(frozen=True, kw_only=True)
class Doing:
    """How the training thread of a worker gets on."""

    activity: Activity = Activity.IDLE
    waits: bool = False  # for its peers; else it has only itself to blame
    still_s: float = 0.0  # since it last made progress
    where: str = ""  # the innermost functions, once it has been still for a while


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a worker failed."""

    code: str
    message: str
    traceback: str
    log_tail: list[str]


@dataclass(frozen=True, kw_only=True)
class Status:
    """A worker, and what it has to report."""

    phase: Phase
    node: str = ""  # Ray's id of the node that it lives on
    generation: int = 0  # that it is in, or was in last; 0: none yet
    members: tuple[str, ...] = ()  # of that generation, in the order of ranks
    pending: int = 0  # the generation that was announced and has not begun; 0: none
    broken: int = 0  # the highest generation that ended for it by a failure, or was declared broken to it
    samples: int = -1  # that it has seen; -1: it has no state
    committed: int = -1  # those that all members of its generation are known to have seen
    step_s: float = 0.0  # how long its last step took; 0: none yet
    save_s: float = 0.0  # how long its last checkpoint took until it was durable; 0: none yet
    doing: Doing = field(default_factory=Doing)
    version: int = 0  # of the journal
    records: tuple[Record, ...] = ()
    points: tuple[Point, ...] = ()
    failure: Failure | None = None
