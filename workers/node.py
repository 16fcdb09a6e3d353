"""The node that a process of the training side lives on."""

from __future__ import annotations

import os
import time

LOOK_S = 0.1


def end_with_node() -> None:
    """Blocks; ends this process when the one that started it, Ray's on this node, is gone.

    Ray ends such processes itself, but takes more than a second, and a controller is started elsewhere as soon as its
    node is known to be gone: two of one incarnation would write the same spool.
    """
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)
