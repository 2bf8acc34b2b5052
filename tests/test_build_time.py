# SPDX-License-Identifier: Apache-2.0
"""Builds: the architecture that they are for, and their budgets on two cores, held against what
ninja noted of this checkout's builds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from emulator import build
from ptx.nvcc import find_nvcc, needs_nvcc

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


@needs_nvcc
@pytest.mark.slow
@pytest.mark.skipif(bool(build.missing()), reason=f"needs {build.missing()}")
@pytest.mark.parametrize(
    ("capability", "warning"), [("7.5", "is not supported"), ("99.0", "is older than architecture")]
)
def test_an_architecture_too_old_or_too_new_does_not_stop_the_build(tmp_path, capability, warning):
    import pybind11

    known = subprocess.run(
        [find_nvcc(), "--list-gpu-code"], capture_output=True, text=True, check=True
    )
    newest = max(int(code) for code in re.findall(r"sm_(\d+)", known.stdout))
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho {capability}\n")
    smi.chmod(0o755)
    settings = {
        "CMAKE_MAKE_PROGRAM": build.tool("ninja"),
        "CMAKE_CUDA_COMPILER": find_nvcc(),
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "PF_CUDA": "AUTO",
        "PF_NVIDIA_SMI": smi,
    }
    command = [build.tool("cmake"), "-S", build.ROOT, "-B", tmp_path / "build", "-G", "Ninja"]
    command += [f"-D{name}={value}" for name, value in settings.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert warning in " ".join(done.stderr.split())
    expected = 90 if capability == "7.5" else newest
    rules = (tmp_path / "build" / "build.ninja").read_text()
    assert set(re.findall(r"code=\[(\S+?)\]", rules)) == {f"sm_{expected},compute_80"}
