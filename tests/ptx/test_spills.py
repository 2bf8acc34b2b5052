# SPDX-License-Identifier: Apache-2.0
"""What ptxas said when the CUDA backend of this checkout was built: no spill, no local memory."""

import re
import subprocess

import pytest

from emulator import build
from ptx import spills
from ptx.nvcc import EXACT_FLAGS, PTX, ROOT, needs_nvcc, nvcc

BUILD = ROOT / "build"


def current_reports():
    """Reports of objects in a build folder that no source has changed since."""
    found = []
    for log in BUILD.glob("*/.ninja_deps"):
        said = subprocess.run(
            [build.tool("ninja") or "false", "-t", "deps"],
            cwd=log.parent, capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        for block in said.split("\n\n"):
            name, *sources = block.strip().split("\n")
            report = log.parent / (name.partition(": #deps")[0] + ".ptxas")
            if not report.exists():
                continue
            made = report.stat().st_mtime
            paths = [log.parent / source.strip() for source in sources]
            if all(path.exists() and path.stat().st_mtime <= made for path in paths):
                found.append(report)
    return sorted(found)


REPORTS = current_reports()


@pytest.mark.skipif(not REPORTS, reason="needs the build folder of this checkout, with CUDA")
def test_no_shipped_kernel_spills():
    kernels, faults = 0, []
    for report in REPORTS:
        text = report.read_text()
        kernels += len(spills.usages(text))
        faults += spills.violations(text)
    assert kernels >= len(REPORTS)
    assert not faults, "\n".join(faults)


@needs_nvcc
@pytest.mark.parametrize(
    "op",
    [
        pytest.param(op, marks=[pytest.mark.soak] * (op != "accept"))
        for op in sorted(p.stem for p in (ROOT / "csrc" / "ops").glob("*.cpp"))
        if op != "table"  # which has no kernels
    ],
)
def test_no_architecture_of_a_wheel_spills(tmp_path, op):
    """From the PTX of 120 nvcc 13.0 makes code of these that keeps its state in local memory."""
    text = (ROOT / "CMakeLists.txt").read_text()
    assert f"set(PF_PTX {PTX.removeprefix('compute_')})" in text
    architectures = re.search(r"set\(PF_CUDA_ARCHITECTURES ([\d ]{3,})\)", text)[1].split()
    assert len(architectures) == 6
    source = tmp_path / "stub.cu"
    source.write_text(f'#include "ops/{op}.cpp"\n')
    for architecture in architectures:
        more = [
            "-cubin",
            f"-code=sm_{architecture}",
            "-Xptxas",
            "-v",
            "-Icsrc",
            "-DPF_BACKEND=cuda",
        ]
        said = nvcc(source, tmp_path / "stub.cubin", *EXACT_FLAGS, "-O3", *more)
        assert {u.architecture for u in spills.usages(said)} == {f"sm_{architecture}"}
        assert spills.violations(said) == []
