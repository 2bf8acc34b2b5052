# SPDX-License-Identifier: Apache-2.0
"""The budgets of a build on two cores, held against what ninja noted of this checkout's builds."""

import re
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parent.parent / "build"
CUDA = "pf_cuda.dir"
ONE_ARCHITECTURE_ADDS, A_WHEEL_TAKES = 4 * 60, 20 * 60  # seconds


def jobs(log):
    """(start, end, output) of a build in seconds, or none if it was not made in one go."""
    rows = [line.split("\t") for line in log.splitlines() if not line.startswith("#")]
    found = [(int(row[0]) / 1000, int(row[1]) / 1000, row[3]) for row in rows]
    ends, outputs = [end for _, end, _ in found], {output for *_, output in found}
    return found if ends == sorted(ends) and len(outputs) == len(found) else []


def takes(found, part):
    """Seconds of a build that belong to the outputs with this in their path.

    Where some jobs ran at once, each has an equal part of that time.
    """
    events = [(t, sign, part in output) for a, b, output in found for t, sign in ((a, 1), (b, -1))]
    total = before = running = ours = 0
    for t, sign, is_ours in sorted(events):
        if running:
            total += (t - before) * ours / running
        running, ours, before = running + sign, ours + sign * is_ours, t
    return total


def builds(of_many):
    """The builds of one architecture of this checkout, or those of many."""
    judged = []
    for log in BUILD.glob("*/.ninja_log"):
        cache = (log.parent / "CMakeCache.txt").read_text()
        chosen = re.search(r"^PF_CUDA_ARCHITECTURES:\w+=(.*)$", cache, re.MULTILINE)
        found = jobs(log.read_text())
        if chosen and (chosen[1] == "all" or ";" in chosen[1]) == of_many and takes(found, CUDA):
            judged.append(pytest.param(found, id=log.parent.name))
    return judged


def test_time_is_shared_by_the_jobs_that_run():
    log = "# ninja log v7\n0\t4000\t1\ta/cpu.o\tx\n2000\t6000\t1\tb/cuda.o\ty\n6000\t7000\t1\tc.so\tz\n"
    assert takes(jobs(log), "cuda") == 3.0
    assert takes(jobs(log), "") == 7.0
    assert jobs(log + "0\t100\t1\td.o\tw\n") == []  # a second build, of what had changed


@pytest.mark.parametrize("found", builds(of_many=False))
def test_one_architecture_of_cuda(found):
    assert takes(found, CUDA) <= ONE_ARCHITECTURE_ADDS


@pytest.mark.parametrize("found", builds(of_many=True))
def test_a_wheel_of_all_architectures(found):
    assert takes(found, "") <= A_WHEEL_TAKES
