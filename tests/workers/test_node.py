"""A process that ends with its node, that is with the process that started it."""

from __future__ import annotations

import subprocess
import sys

CHILD = """
import threading, time
from workers.node import end_with_node
threading.Thread(target=end_with_node, daemon=True).start()
print("begun", flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
"""


def test_it_ends_when_the_process_that_started_it_has_gone() -> None:
    done = subprocess.run([sys.executable, "-c", PARENT, CHILD], stderr=subprocess.PIPE, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
