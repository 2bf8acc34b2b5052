# SPDX-License-Identifier: Apache-2.0
"""Every kernel of the CUDA backend runs, those for each number of coordinates included.

The golden digests decide whether what they return is right; the emulator says which of them ran.
"""

import re
import subprocess

import pytest

from emulator import build
from emulator.run_suite import count_passed

MANY = 320  # kernels, at least
# Arguments of pytest, and the shared memory that the device says it has: in some so little that
# lattices are in global memory, or that a block has fewer chains than it would like.
RUNS = [
    (["tests/test_golden.py", "tests/test_half.py", "-k", "not level"], {}),
    (
        [
            "tests/test_lattice_ising.py",
            "tests/test_lattice_sums.py",
            "-k",
            "every_type or spins",
        ],
        {"PF_EMULATOR_SHARED": "16"},
    ),
    (["tests/test_streaming_sums.py", "-k", "wait_give"], {}),
    (["tests/test_lattice_ising.py", "-k", "too_large"], {"PF_EMULATOR_SHARED": "4096"}),
    (
        ["tests/test_lattice_spread.py", "-k", "digests and langevin"],
        {"PF_EMULATOR_SHARED": "4096"},
    ),
    (
        ["tests/test_golden.py", "-k", "registers and nuts and not level"],
        {"PF_EMULATOR_SHARED": "12000"},
    ),
]


def kernels(module):
    """Where each kernel lies in the module -> its name."""
    listing = subprocess.run(
        ["nm", "-C", "--defined-only", module], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"^([0-9a-f]+) \w (?:void )?(pf::emulated::\w+_kernel<.*)$", listing, re.M)
    return {int(address, 16): name for address, name in found if "[clone" not in name}


def test_every_kernel_runs(tmp_path):
    if build.missing():
        pytest.skip(f"needs {build.missing()}")
    module, launched = build.build("every-kernel"), tmp_path / "launched"
    expected = kernels(module)
    assert len(expected) > MANY
    for arguments, told in RUNS:
        told = {"PF_EMULATOR_LAUNCHED": str(launched), **told}
        assert count_passed(module, arguments, sanitized=False, **told)
    ran = {int(line, 16) for line in launched.read_text().split()}
    assert ran <= expected.keys()
    assert not [name for address, name in expected.items() if address not in ran]
