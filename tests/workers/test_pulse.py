"""What another thread sees of one that trains: what it is at, since when, where, and whether it waits for others."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.futures import Future

from tests.workers.peers import HOST
from workers import pulse as module
from workers.mesh import Mesh, MeshBroken, Rendezvous, TCPStore
from workers.pulse import Pulse
from workers.status import Activity, Doing


@pytest.fixture(autouse=True)
def curious(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STILL_S", 0.0)


@contextmanager
def beside(function: Callable[[], object]) -> Iterator[int]:
    """A function in a thread of its own, which must come to an end afterwards."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    yield thread.ident or 0
    thread.join(10)
    assert not thread.is_alive()


def seen(pulse: Pulse, thread: int, where: str) -> Doing:
    """Once the thread is there."""
    for _ in range(10_000):
        doing = pulse.look(thread)
        if doing.where.startswith(where):
            return doing
        time.sleep(0.001)
    raise AssertionError(doing)


def test_what_it_does_and_since_when() -> None:
    pulse = Pulse()
    assert pulse.look(None).activity is Activity.IDLE
    pulse.does(Activity.STEP)
    first = pulse.look(threading.get_ident())
    second = pulse.look(threading.get_ident())
    assert first.activity is Activity.STEP
    assert 0 <= first.still_s < second.still_s
    for progress in (pulse.beat, pulse.nudge, pulse.sent):
        before = pulse.look(None).still_s
        progress()
        after = pulse.look(None)
        assert after.still_s < before
        assert after.activity is Activity.STEP


def test_a_nudge_changes_nothing_but_the_time() -> None:
    """It comes from another thread, at any moment."""
    pulse = Pulse()
    pulse.does(Activity.STEP)
    pulse.sent()
    pulse.nudge()
    assert pulse.look(None).waits


def test_one_that_sleeps_in_a_loss_does_not_wait_for_others() -> None:
    pulse, awake = Pulse(), threading.Event()
    pulse.does(Activity.STEP)

    def loss() -> None:
        awake.wait(10)

    with beside(loss) as thread:
        doing = seen(pulse, thread, "wait (threading.py:")
        awake.set()
    assert not doing.waits
    assert "loss (test_pulse.py:" in doing.where


def test_after_its_gradients_were_sent_it_waits_until_it_gets_on() -> None:
    pulse = Pulse()
    pulse.does(Activity.STEP)
    pulse.sent()
    assert pulse.look(None).waits
    pulse.beat()
    assert not pulse.look(None).waits


def test_one_that_comes_to_a_meeting_waits_for_others() -> None:
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    pulse = Pulse()
    pulse.does(Activity.JOIN)
    mesh = Mesh(Rendezvous(generation=1, host=HOST, port=store.port, rank=0, world=2))

    def work() -> None:
        with pytest.raises(MeshBroken):
            mesh.join()

    with beside(work) as thread:
        doing = seen(pulse, thread, "_apart (mesh.py:")
        mesh.sever()
    assert doing.waits
    mesh.leave()


def test_one_that_waits_for_a_collective_waits_for_others() -> None:
    pulse, promise = Pulse(), Future[None]()
    pulse.does(Activity.STEP)
    with beside(lambda: promise.wait()) as thread:
        doing = seen(pulse, thread, "wait (__init__.py:")
        promise.set_result(None)
    assert doing.waits


def test_whoever_looks_lets_nobody_collect_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    collects: list[bool] = []
    monkeypatch.setattr("sys._current_frames", lambda: collects.append(gc.isenabled()) or {})
    pulse = Pulse()
    pulse.does(Activity.STEP)
    pulse.look(threading.get_ident())
    assert (collects, gc.isenabled()) == ([False], True)


def test_every_forward_of_a_model_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: clock.s, s=0.0)
    monkeypatch.setattr(module, "time", clock)
    pulse, model = Pulse(), nn.Linear(1, 1)
    pulse.does(Activity.EVALUATE)
    clock.s = 5.0
    with pulse.of(model):
        before = pulse.look(None).still_s
        model(torch.ones(1, 1))
        assert pulse.look(None).still_s < before
    assert not model._forward_hooks
