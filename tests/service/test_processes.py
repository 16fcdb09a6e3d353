"""Processes of this machine: found by number and start time, ended by session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from service.processes import Process, end_session, members, wait_until

PATIENCE_S = 20
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The leader of a session, and the number of a member in a group of its own."""
    leader = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert leader.stdout is not None
    yield leader, int(leader.stdout.readline())
    if (process := Process.of(leader.pid)) is not None:
        end_session(process)
    leader.wait(PATIENCE_S)
    leader.stdout.close()


def test_a_number_that_another_process_has_is_not_the_process() -> None:
    me = Process.of(os.getpid())
    assert me is not None
    assert me.alive()
    assert not Process(pid=me.pid, started=me.started + 1).alive()


def test_a_session_ends_with_all_its_groups_even_after_its_leader(family: tuple[subprocess.Popen[str], int]) -> None:
    leader, child = family
    began = Process.of(leader.pid)
    assert began is not None
    assert members(began).keys() == {leader.pid, child}
    leader.kill()
    leader.wait(PATIENCE_S)
    assert members(began).keys() == {child}
    end_session(began)
    assert members(began) == {}
    assert Process.of(child) is None


def test_a_session_of_another_process_of_the_same_number_is_left_alone(
    family: tuple[subprocess.Popen[str], int],
) -> None:
    leader, _ = family
    began = Process.of(leader.pid)
    assert began is not None
    earlier = Process(pid=leader.pid, started=began.started - 1)
    assert members(earlier) == {}
    end_session(earlier)
    assert leader.poll() is None


def test_a_process_that_ends_with_its_parent() -> None:
    child = "import os, sys, time; from service.processes import end_with; end_with(int(sys.argv[1])); time.sleep(600)"
    parent = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())])\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = Process.of(int(process.stdout.readline()))
    assert found is not None
    process.kill()
    process.wait(PATIENCE_S)
    process.stdout.close()
    assert wait_until(lambda: not found.alive(), PATIENCE_S)


def test_a_process_whose_parent_went_before_ends_at_once() -> None:
    child = "from service.processes import end_with; end_with(1_000_000_000)"
    assert subprocess.run([sys.executable, "-c", child], timeout=PATIENCE_S).returncode == 1
