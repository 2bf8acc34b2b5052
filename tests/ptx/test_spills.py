# SPDX-License-Identifier: Apache-2.0
"""What ptxas said when the CUDA backend of this checkout was built: no spill, no local memory."""

import re
from pathlib import Path

import pytest

from ptx import spills
from ptx.nvcc import EXACT_FLAGS, PTX, ROOT, needs_nvcc, nvcc

BUILD = Path(__file__).resolve().parent.parent.parent / "build"
SOURCES = [p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".cpp", ".hpp", ".cuh")]
NEWEST = max((p.stat().st_mtime for p in SOURCES), default=0.0)
REPORTS = sorted(
    p
    for p in BUILD.glob("**/pf_cuda.dir/**/*.ptxas")
    if "emulator" not in p.parts and p.stat().st_mtime > NEWEST  # of what the sources are now
)


@pytest.mark.skipif(not REPORTS, reason="needs the build folder of this checkout, with CUDA")
def test_no_shipped_kernel_spills():
    kernels, faults = 0, []
    for report in REPORTS:
        text = report.read_text()
        kernels += len(spills.usages(text))
        faults += spills.violations(text)
    assert kernels > 100
    assert not faults, "\n".join(faults)


@needs_nvcc
@pytest.mark.parametrize(
    "op",
    [
        "accept",
        *(pytest.param(op, marks=pytest.mark.soak) for op in ("mala_run", "nuts_run", "phi4")),
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
