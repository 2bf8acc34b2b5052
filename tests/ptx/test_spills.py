# SPDX-License-Identifier: Apache-2.0
"""What ptxas said when the CUDA backend of this checkout was built: no spill, no local memory."""

from pathlib import Path

import pytest

from ptx import spills

BUILD = Path(__file__).resolve().parent.parent.parent / "build"
REPORTS = sorted(p for p in BUILD.glob("**/pf_cuda.dir/**/*.ptxas") if "emulator" not in p.parts)


@pytest.mark.skipif(not REPORTS, reason="needs the build folder of this checkout, with CUDA")
def test_no_shipped_kernel_spills():
    kernels, faults = 0, []
    for report in REPORTS:
        text = report.read_text()
        kernels += len(spills.usages(text))
        faults += spills.violations(text)
    assert kernels > 100
    assert not faults, "\n".join(faults)
