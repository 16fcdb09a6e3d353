"""A worker of the second engine says how it is until the last word, and the very end too."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from api_schemas.exchange import Launch
from tests.workers.stage import spec
from workers import attendance as module
from workers.attendance import Attendance
from workers.membership import Plan
from workers.restarts import Reply
from workers.status import Phase, Status
from workers.worklog import Worklog

PLAN = Plan(generation=3, members=("w4", "w5"), kappa=(1, 2))


class Controller:
    """Makes durable what it hears, after `slow` more questions."""

    def __init__(self, slow: int = 0) -> None:
        self.heard: list[Status] = []
        self.away = threading.Event()
        self.stale = False
        self.leave_at: int | None = None
        self._slow = slow
        self._durable = [0] * slow

    def hear(self, worker: str, status: Status) -> Reply | None:
        if self.away.is_set():
            return None
        assert worker == "w5"
        self.heard.append(status)
        self._durable.append(max([number for number, _ in status.records], default=0))
        heard = max(self._durable[: len(self._durable) - self._slow], default=0)
        return Reply(heard=heard, seen=0, leave_at=self.leave_at, stale=self.stale)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TELL_S", 0.01)
    monkeypatch.setattr(Worklog, "capture", lambda _: None)


def attend(folder: Path, controller: Controller) -> Attendance:
    launch = Launch(job="j", incarnation=1, spec=spec((1, 2)), storage=str(folder))
    return Attendance(launch, PLAN, 1, controller.hear, host="127.0.0.1", node="here")


@pytest.mark.parametrize("slow", [0, 5])
def test_nobody_leaves_before_the_last_record_is_durable(tmp_path: Path, slow: int) -> None:
    controller = Controller(slow)
    with attend(tmp_path, controller) as attendance:
        attendance.journal.record("evaluated", samples=1)
        attendance.phase = Phase.DONE
    assert not attendance.journal.records(controller.hear("w5", controller.heard[-1]).heard)  # type: ignore[union-attr]
    assert controller.heard[-1].phase is Phase.DONE
    assert (controller.heard[-1].generation, controller.heard[-1].members) == (3, ("w4", "w5"))


@pytest.mark.parametrize("error", [ZeroDivisionError("the slope is gone"), SystemExit(3)], ids=repr)
def test_an_error_is_told_before_it_is_raised(tmp_path: Path, error: BaseException) -> None:
    controller = Controller()
    with pytest.raises(type(error)), attend(tmp_path, controller):
        raise error
    failure = controller.heard[-1].failure
    assert failure is not None
    assert (controller.heard[-1].phase, failure.code) == (Phase.FAILED, "recipe_raised")


def test_what_may_be_a_lost_peer_is_for_ray_train(tmp_path: Path) -> None:
    controller = Controller()
    with pytest.raises(RuntimeError), attend(tmp_path, controller):
        raise RuntimeError("Connection closed by peer")
    assert not any(status.failure for status in controller.heard)


def test_a_controller_that_is_away_is_told_when_it_is_back(tmp_path: Path) -> None:
    controller = Controller()
    controller.away.set()
    threading.Timer(0.2, controller.away.clear).start()
    with attend(tmp_path, controller) as attendance:
        attendance.phase = Phase.DONE
    assert controller.heard[-1].phase is Phase.DONE


def test_a_stale_worker_stops_telling(tmp_path: Path) -> None:
    controller = Controller()
    controller.stale = True
    with attend(tmp_path, controller) as attendance:
        attendance.journal.record("evaluated", samples=1)
    assert len(controller.heard) <= 2


def test_it_leaves_where_it_is_asked_to(tmp_path: Path) -> None:
    controller, asked = Controller(), threading.Event()
    controller.leave_at = 100
    with attend(tmp_path, controller) as attendance:
        for _ in range(1000):
            if controller.heard and attendance.is_to_leave(100):
                asked.set()
                break
            asked.wait(0.01)
        assert asked.is_set()
        assert not attendance.is_to_leave(99)
