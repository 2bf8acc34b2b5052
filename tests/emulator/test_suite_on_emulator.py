# SPDX-License-Identifier: Apache-2.0
"""The ordinary tests once more, on the emulated CUDA kernels, most under the sanitizers."""

import pytest

from emulator import build
from emulator.run_suite import count_passed

# Nothing about the CUDA kernels: these start processes of their own on the CPU levels, set the
# number of the CPU's threads or compile with torch, which takes minutes here.
ELSEWHERE = (
    "level or threads or compile or inductor or opcheck or gradients or forked or ctrl_c or jax"
)
# Densities at a hundred thousand points, which take minutes.
MANY_POINTS = "follow_the_density or in_the_plane"

# Suites, and how many tests must have passed at least.
SANITIZED = [
    ("golden", 607),
    ("noise noise_laws noise_arguments math half diffusion", 374),
    ("ops", 364),
    ("targets", 400),
    ("sampling sampling_arguments bad_input", 100),
    ("accept", 80),
    ("lattice_ising", 134),
    ("lattice_phi4", 58),
    ("lattice_sums", 65),
    ("markov_run arrays pooled lattice_bad_input", 240),
    # Two minutes or more each.
    pytest.param("mcmc mcmc_failures nuts", 285, marks=pytest.mark.soak),
    pytest.param("lattice_sampling", 55, marks=pytest.mark.soak),
]
EVERY_KERNEL = [("mcmc nuts", 230)]


@pytest.fixture(scope="session")
def module():
    return built("sanitized")


@pytest.fixture(scope="session")
def module_with_every_kernel():
    return built("every-kernel")


def built(name):
    if build.missing():
        pytest.skip(f"needs {build.missing()}")
    return build.build(name)


def suites(names):
    files = (f"tests/test_{name}.py" for name in names.split())
    return [*files, "-k", f"not ({ELSEWHERE} or {MANY_POINTS})"]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("names", "least"), SANITIZED)
def test_suites(module, names, least, seed):
    assert count_passed(module, suites(names), seed) >= least


@pytest.mark.parametrize(("names", "least"), EVERY_KERNEL)
def test_suites_of_many_steps(module_with_every_kernel, names, least):
    module = module_with_every_kernel
    assert count_passed(module, suites(names), sanitized=False) >= least


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.soak) for s in (1, 2))])
def test_lattices_in_global_memory(module, seed):
    files = [f"tests/test_lattice_{name}.py" for name in ("ising", "phi4")]
    assert count_passed(module, [*files, "-k", "too_large"], seed, PF_EMULATOR_SHARED="4096") == 9
    sweeps = ["tests/test_lattice_ising.py", "-k", "sweeps_equal or (every_type and bath)"]
    assert count_passed(module, sweeps, seed, PF_EMULATOR_SHARED="16") >= 120
    sums = ["tests/test_lattice_sums.py", "-k", "spins"]
    assert count_passed(module, sums, seed, PF_EMULATOR_SHARED="16") >= 72


# Orders of the threads, and how many blocks a multiprocessor holds: with 0 the device cannot launch
# blocks that wait for each other.
@pytest.mark.parametrize(
    ("seed", "resident"),
    [(0, 2), *(pytest.param(s, r, marks=pytest.mark.soak) for s, r in ((1, 1), (2, 2), (3, 0)))],
)
def test_fields_spread_over_blocks(module, seed, resident):
    told = {"PF_EMULATOR_SHARED": "4096", "PF_EMULATOR_RESIDENT": str(resident)}
    assert count_passed(module, ["tests/test_lattice_spread.py"], seed, **told) == 13


def test_launches_that_fail(module):
    assert count_passed(module, ["tests/emulator/failed_launches.py"]) >= 117


def test_sizes_past_31_bits(module):
    assert count_passed(module, ["tests/emulator/large_sizes.py"], PF_EMULATOR_ENDS="9") >= 27
