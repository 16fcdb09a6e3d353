"""What a training process does with memory: freed tensors leave their pages to the next step."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

MIB = 2**20
MANY = 2000
"""Page faults; the steps below touch 40,960 pages, and without what is tested each of these anew."""

STEPS = f"""
import resource, torch
def step():
    kept = [torch.full(({8 * MIB // 4},), 1.0) for _ in range(20)]
    return [torch.full(({MIB // 8},), 2.0) for _ in range(10)], kept[::-1]
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""
WORKERS = {
    "rank": "from workers.rank import Rank\ntry: Rank('', 'w0')\nexcept ValueError: pass\n",
    "ray_train": "from workers.train_run import train\ntry: train({'launch': ''})\nexcept ValueError: pass\n",
}
"""How each kind of worker begins, and ends because it is not told what to train."""


def printed(code: str) -> str:
    """By a new process for which nobody has set anything."""
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
@pytest.mark.parametrize("kind", WORKERS)
def test_a_step_uses_the_pages_of_the_one_before(kind: str) -> None:
    assert int(printed(WORKERS[kind] + STEPS)) < MANY


@pytest.mark.parametrize("kind", WORKERS)
def test_large_tensors_lie_in_huge_pages(kind: str) -> None:
    """torch looks once, at its first tensor; without it nothing fails, and a step costs a quarter more."""
    assert printed(WORKERS[kind] + "import os; print(os.environ.get('THP_MEM_ALLOC_ENABLE'))") == "1"
