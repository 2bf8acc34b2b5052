# SPDX-License-Identifier: Apache-2.0
"""Builds: the architecture that they are for, and their budgets on two cores, held against what
was noted of this checkout's builds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from emulator import build
from ptx.nvcc import find_nvcc, needs_nvcc

BUILD = Path(__file__).resolve().parent.parent / "build"
CORES = 2
ONE_ARCHITECTURE_ADDS, A_WHEEL_TAKES = 4 * 60, 20 * 60  # seconds
# The smallest files, and what they take on two quiet cores, in seconds: where they take longer, the
# machine is slower than the one that the budget is for, or others work on it.
SMALL = ("accept", "diffusion", "fill", "langevin", "math", "moments", "pooled")
SMALL_TAKE = 21.5


def builds(of_many):
    """The build folders of this checkout for one architecture, or for many."""
    judged = []
    for cache in BUILD.glob("*/CMakeCache.txt"):
        chosen = re.search(r"^PF_CUDA_ARCHITECTURES:\w+=(.*)$", cache.read_text(), re.MULTILINE)
        if not chosen or not list(cache.parent.glob("CMakeFiles/pf_cuda.dir/cuda/*.seconds")):
            continue
        if (chosen[1] == "all" or ";" in chosen[1]) == of_many:
            judged.append(pytest.param(cache.parent, id=cache.parent.name))
    return judged


def seconds_of_cuda(folder):
    """Processor time of the CUDA side, by op: what others run beside a build does not count."""
    objects = (folder / "CMakeFiles" / "pf_cuda.dir" / "cuda").glob("*.o")
    spent = {o.name: float(o.with_name(o.name + ".seconds").read_text()) for o in objects}
    assert len(spent) >= 15
    return spent


@pytest.mark.parametrize("folder", builds(of_many=False))
def test_one_architecture_of_cuda(folder):
    spent = seconds_of_cuda(folder)
    slower = max(1.0, sum(spent[f"{op}.cu.o"] for op in SMALL) / SMALL_TAKE)
    assert sum(spent.values()) <= slower * CORES * ONE_ARCHITECTURE_ADDS, spent
    # No file is so long that the other core would wait for it.
    assert max(spent.values()) <= slower * ONE_ARCHITECTURE_ADDS / 2, spent


@pytest.mark.parametrize("folder", builds(of_many=True))
def test_a_wheel_of_all_architectures(folder):
    rows = [row.split("\t") for row in (folder / ".ninja_log").read_text().splitlines()[1:]]
    ends = [int(row[1]) for row in rows]
    if ends != sorted(ends) or len({row[3] for row in rows}) < len(rows):
        pytest.skip(
            "not built in one go"
        )  # the log is of several builds, whose times do not add up
    assert max(ends) / 1000 <= A_WHEEL_TAKES


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
