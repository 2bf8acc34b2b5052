# SPDX-License-Identifier: Apache-2.0
"""The ordinary tests once more, on the emulated CUDA kernels and under the sanitizers."""

import re
import subprocess

import pytest

from emulator import build, run_suite

# Nothing about the CUDA kernels: these start processes of their own on the CPU levels, set the
# number of the CPU's threads or compile with torch, which takes minutes here.
ELSEWHERE = "level or threads or compile or inductor or opcheck or gradients or forked"
# The walks over rows of more than 32 numbers, on many chains, are what the emulator is slowest at.
LONG = "dense-long-200"

# A file, what to leave out, and how many tests must have passed at least.
QUICK = [
    ("test_golden.py", ELSEWHERE, 538),
    ("test_noise.py", ELSEWHERE, 94),
    ("test_noise_laws.py", ELSEWHERE, 18),
    ("test_noise_arguments.py", ELSEWHERE, 79),
    ("test_math.py", ELSEWHERE, 120),
    ("test_accept.py", ELSEWHERE, 80),
    ("test_lattice_ising.py", ELSEWHERE, 128),
    ("test_lattice_phi4.py", ELSEWHERE, 58),
]
SOAK = [
    ("test_bad_input.py", ELSEWHERE, 9),
    ("test_ops.py", f"{ELSEWHERE} or {LONG}", 340),
    ("test_ops.py", f"not {LONG}", 2),
    ("test_targets.py", ELSEWHERE, 50),
    ("test_diffusion.py", ELSEWHERE, 20),
    ("test_sampling.py", ELSEWHERE, 50),
    ("test_sampling_arguments.py", ELSEWHERE, 42),
]
soak = [pytest.param(*row, marks=pytest.mark.soak) for row in SOAK]


@pytest.fixture(scope="session")
def module():
    if build.missing():
        pytest.skip(f"needs {build.missing()}")
    return build.build()


def run(module, arguments, seed=0, **variables):
    """Run pytest on the emulated module; return how many tests passed."""
    done = subprocess.run(
        run_suite.command(module, [*arguments, "-q", "-p", "no:cacheprovider"]),
        env={**run_suite.environment(seed), **variables},
        cwd=build.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout[-6000:] + done.stderr[-6000:]
    assert done.returncode == 0, said
    assert "CPU level: emulator" in done.stdout, said
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, said
    return int(passed[1])


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("file", "left_out", "least"), [*QUICK, *soak])
def test_file(module, file, left_out, least, seed):
    assert run(module, [f"tests/{file}", "-k", f"not ({left_out})"], seed) >= least


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.soak)])
def test_lattices_in_global_memory(module, seed):
    files = [f"tests/test_lattice_{name}.py" for name in ("ising", "phi4")]
    assert run(module, [*files, "-k", "too_large"], seed, PF_EMULATOR_SHARED="4096") == 3


def test_launches_that_fail(module):
    assert run(module, ["tests/emulator/failed_launches.py"]) >= 20


def test_sizes_past_31_bits(module):
    assert run(module, ["tests/emulator/large_sizes.py"], PF_EMULATOR_ENDS="9") >= 12
