# SPDX-License-Identifier: Apache-2.0
"""Sweeps of the Ising model: bit for bit against NumPy, in any split, on any number of threads."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import pushforward as pf
from lattice_reference import ising_sweep, swendsen_wang, wolff
from pushforward._ops.lattice import ising_sweeps
from pushforward.lattice import HeatBath, Ising, Metropolis, SwendsenWang, Wolff

SEED = 2**40 + 3
SHAPES = [
    # strings of bits: rows in one word, in several, not filling one, flat and tall
    (16, 16), (64, 64), (32, 8), (2, 256), (256, 4), (20, 24), (12, 100), (6, 344),
    (8, 8, 8), (4, 6, 20), (2, 8, 64), (16, 2, 32), (6, 10, 4),
    # rows of an odd number of pairs
    (16, 18), (2, 130), (12, 62), (128, 2), (50, 6), (18, 18), (64, 66), (6, 346),
    (16, 2, 18), (4, 6, 30), (2, 4, 66), (64, 2, 2), (10, 6, 10), (6, 6, 126),
    # words of thirty-two lattices
    (4, 4), (2, 2), (6, 4), (6, 6), (10, 10), (2, 2, 2), (4, 4, 4), (2, 6, 10),
    # on a GPU: rows of part of a word, of one and a bit, of several
    (4, 30), (4, 34), (2, 62), (6, 66), (8, 96), (4, 2, 34), (2, 4, 66), (6, 2, 2),
]  # fmt: skip


def start(n, shape, seed=1):
    return torch.where(
        pf.random.uniform(n, int(np.prod(shape)), seed=seed) < 0.5, -1.0, 1.0
    ).reshape(n, *shape)


def temperatures(n):
    return torch.linspace(1.4, 4.0, n, dtype=torch.float64)


def fields(n):
    return torch.linspace(-0.7, 0.5, n, dtype=torch.float64)


def sweeps(x, law, kernel, n_steps=1, first_step=0, chain_offset=0, seed=SEED):
    kernel.check(law, x)
    kernel.advance(
        x, law, seed=seed, first_step=first_step, n_steps=n_steps, chain_offset=chain_offset
    )
    return x


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("in_field", [False, True])
@pytest.mark.parametrize("kernel", [Metropolis(), HeatBath()], ids=["metropolis", "heat bath"])
def test_sweeps_equal_numpy(shape, in_field, kernel):
    n = 35
    t, h = temperatures(n), fields(n) if in_field else torch.zeros(n).double()
    x = start(n, shape).to(torch.int8)
    expected = x.numpy()
    for step in (3, 4):
        expected = ising_sweep(
            expected, t, h, heat_bath=kernel == HeatBath(), seed=SEED, step=step, offset=9
        )
    law = Ising(shape, temperature=t, field=h)
    got = sweeps(x, law, kernel, 2, first_step=3, chain_offset=9)
    np.testing.assert_array_equal(got.numpy(), expected)


# Large enough to be swept in slabs, with strings that end within a register.
@pytest.mark.parametrize("shape", [(510, 510), (600, 444), (514, 1028), (64, 66, 70)], ids=str)
def test_sweeps_in_slabs_equal_numpy(shape):
    x = start(1, shape).to(torch.int8)
    expected = x.numpy()
    for step in (0, 1, 2):
        expected = ising_sweep(expected, 2.3, 0.0, heat_bath=False, seed=SEED, step=step)
    got = sweeps(x, Ising(shape, temperature=2.3), Metropolis(), 3)
    np.testing.assert_array_equal(got.numpy(), expected)


@pytest.mark.parametrize("shape", [*SHAPES, (514, 518)], ids=str)
def test_acceptances_are_the_shares_of_spins_that_turn_over(shape):
    n = 1 if np.prod(shape) > 1e5 else 35
    x = start(n, shape).to(torch.int8)
    law = Ising(shape, temperature=temperatures(n), field=fields(n))
    placed = law.placed(x) | {"no_field": False, "seed": SEED, "chain_offset": 9}
    sums = torch.zeros(2, n, dtype=torch.float64)
    expected, at = torch.zeros_like(sums), x.clone()
    for step in (3, 4, 5):
        before = at.clone()
        ising_sweeps(at, **placed, heat_bath=False, first_step=step, n_steps=1)
        share = (at != before).flatten(1).double().mean(1)
        expected += torch.stack((share, share**2))
    call = {**placed, "first_step": 3, "n_steps": 3}
    ising_sweeps(x, **call, heat_bath=False, accepted=sums[0], accepted_squares=sums[1])
    assert torch.equal(x, at)
    torch.testing.assert_close(sums, expected, rtol=1e-14, atol=0)
    with pytest.raises(ValueError, match="accepted: expected None for a heat bath"):
        ising_sweeps(x, **call, heat_bath=True, accepted=sums[0], accepted_squares=sums[1])
    with pytest.raises(ValueError, match="accepted_squares: expected given together"):
        ising_sweeps(x, **call, heat_bath=False, accepted=sums[0])
    with pytest.raises(ValueError, match=r"accepted_squares: .*overlap"):
        ising_sweeps(x, **call, heat_bath=False, accepted=sums[0], accepted_squares=sums[0])


def test_a_lattice_that_is_spread_though_it_fits_equals_numpy():
    # Large enough for a GPU to spread it over many blocks, though it fits the memory of one.
    x = start(1, (256, 256)).to(torch.int8)
    expected = x.numpy()
    for step in (0, 1):
        expected = ising_sweep(expected, 2.3, 0.0, heat_bath=False, seed=SEED, step=step)
    got = sweeps(x, Ising((256, 256), temperature=2.3), Metropolis(), 2)
    np.testing.assert_array_equal(got.numpy(), expected)


def test_a_wrong_reference_differs():
    # The comparison can fail: a word read one entry off gives other spins.
    x = start(3, (16, 16)).to(torch.int8)
    law = Ising((16, 16), temperature=2.0)
    wrong = ising_sweep(x.numpy(), 2.0, 0.0, heat_bath=False, seed=SEED + 1, step=0)
    assert (sweeps(x, law, Metropolis()).numpy() != wrong).any()


def assert_clusters_equal_numpy(n, shape, temperature, field, dtype=torch.int8):
    law = Ising(shape, temperature=temperature, field=field)
    for kernel, reference in ((SwendsenWang(), swendsen_wang), (Wolff(), wolff)):
        x = start(n, shape).to(dtype)
        expected = x.to(torch.int8).numpy()
        for step in (5, 6, 7):
            expected = reference(expected, temperature, field, seed=SEED, step=step, offset=2)
        got = sweeps(x, law, kernel, 3, first_step=5, chain_offset=2)
        np.testing.assert_array_equal(got.to(torch.int8).numpy(), expected)


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (2, 2), (20, 20), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("field", [0.0, 0.3])
def test_clusters_equal_numpy(shape, field):
    assert_clusters_equal_numpy(4, shape, 2.3, field)


@pytest.mark.parametrize("field", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.float32, torch.float64])
def test_clusters_of_lattices_too_large_for_shared_memory(dtype, field):
    assert_clusters_equal_numpy(2, (40, 50), 2.2, field, dtype)


KERNELS = [Metropolis(), HeatBath(), SwendsenWang(), Wolff()]
NAMES = ["metropolis", "heat bath", "swendsen-wang", "wolff"]


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.bfloat16, torch.float64])
def test_every_type_holds_the_same_spins(kernel, dtype):
    for shape in ((16, 16), (6, 10), (2, 34)):
        law = Ising(shape, temperature=2.2)
        expected = sweeps(start(5, shape), law, kernel, 4)
        got = sweeps(start(5, shape).to(dtype), law, kernel, 4)
        assert torch.equal(got.float(), expected)
        assert set(got.float().unique().tolist()) <= {-1.0, 1.0}


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
@pytest.mark.parametrize("shape", [(32, 32), (6, 6), (2, 42), (18, 22), (8, 4, 16)], ids=str)
def test_splits_change_nothing(kernel, shape):
    n = 40
    law = Ising(shape, temperature=temperatures(n), field=fields(n))
    whole = sweeps(start(n, shape), law, kernel, 6)
    timed = sweeps(sweeps(start(n, shape), law, kernel, 2), law, kernel, 4, first_step=2)
    assert torch.equal(timed, whole)
    for a, b in ((0, 13), (13, 40)):
        part = Ising(shape, temperature=temperatures(n)[a:b], field=fields(n)[a:b])
        got = sweeps(start(n, shape)[a:b].contiguous(), part, kernel, 6, chain_offset=a)
        assert torch.equal(got, whole[a:b])
    alone = Ising(shape, temperature=temperatures(n)[17].item(), field=fields(n)[17].item())
    got = sweeps(start(n, shape)[17:18].contiguous(), alone, kernel, 6, chain_offset=17)
    assert torch.equal(got, whole[17:18])


@pytest.mark.parametrize(
    "shape", [(512, 512), (64, 64, 64), (1024, 516), (514, 1022), (64, 66, 62)], ids=str
)
def test_threads_change_nothing(shape, restore_threads):
    # Large lattices are shared between threads in slabs, whose edges wait for each other.
    results = []
    for n_threads in (1, 2, 8):
        torch.set_num_threads(n_threads)
        law = Ising(shape, temperature=2.5)
        results.append(sweeps(start(1, shape), law, Metropolis(), 4))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("shape", [(512, 1024), (1022, 514)], ids=str)
def test_a_large_lattice_equals_numpy(shape, restore_threads):
    torch.set_num_threads(2)
    x = start(1, shape).to(torch.int8)
    expected = x.numpy()
    for step in range(2):
        expected = ising_sweep(expected, 2.2, 0.1, heat_bath=False, seed=SEED, step=step)
    law = Ising(shape, temperature=2.2, field=0.1)
    np.testing.assert_array_equal(sweeps(x, law, Metropolis(), 2).numpy(), expected)


@pytest.mark.parametrize("field", [0.0, 0.02])
@pytest.mark.parametrize(
    ("shape", "temperature"), [((96, 94), 2.25), ((67, 130), 2.0), ((70, 3, 41), 4.4)], ids=str
)
def test_threads_share_the_clusters_of_a_lattice(shape, temperature, field, restore_threads):
    # Strips of it, whose clusters meet, where there are fewer lattices than threads.
    law = Ising(shape, temperature=temperature, field=field)
    results = []
    for n_threads in (1, 2, 4, 16):
        torch.set_num_threads(n_threads)
        results.append(sweeps(start(3, shape), law, SwendsenWang(), 5))
    assert all(torch.equal(results[0], other) for other in results[1:])
    assert not torch.equal(results[0], sweeps(start(3, shape), law, SwendsenWang(), 4))


def test_shared_clusters_equal_numpy(restore_threads):
    torch.set_num_threads(2)
    x = start(1, (96, 94)).to(torch.int8)
    expected = swendsen_wang(x.numpy(), 2.2, 0.02, seed=SEED, step=0)
    law = Ising((96, 94), temperature=2.2, field=0.02)
    np.testing.assert_array_equal(sweeps(x, law, SwendsenWang(), 1).numpy(), expected)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("field", [0.0, 1e-5])
@pytest.mark.parametrize(
    ("shape", "temperature"), [((331, 257), 2.2), ((45, 41, 43), 4.2), ((2, 40000), 0.5)], ids=str
)
def test_threads_grow_a_cluster_together(shape, temperature, field, n, restore_threads):
    # From all spins up, so that a cluster has most sites; in the field it may have to turn back.
    law, results = Ising(shape, temperature=temperature, field=field), []
    for n_threads in (1, 2, 3, 8):
        torch.set_num_threads(n_threads)
        results.append([])
        for n_steps in (1, 2, 8):
            x = torch.ones(n, *shape, dtype=torch.int8)
            results[-1].append(sweeps(x, law, Wolff(), n_steps))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
    assert not torch.equal(results[0][1], results[0][2])


def test_clusters_that_threads_grow_equal_numpy(restore_threads):
    torch.set_num_threads(4)
    shape, field, sizes = (180, 143), 3e-5, []
    x = expected = np.ones((1, *shape), dtype=np.int8)
    for step in range(4):
        expected = wolff(x, 2.1, field, seed=SEED, step=step)
        law = Ising(shape, temperature=2.1, field=field)
        got = sweeps(torch.from_numpy(x.copy()), law, Wolff(), 1, first_step=step).numpy()
        np.testing.assert_array_equal(got, expected)
        sizes.append(np.count_nonzero(x != expected))
        x = expected
    assert max(sizes) > 20000
    assert 0 in sizes  # turned back, too


def test_entries_beyond_two_to_the_32():
    # The block's upper counter word changes inside a sweep.
    shape, volume = (64, 64), 4096
    step = 2**34 // volume - 1
    for shape in ((64, 64), (66, 64)):
        volume = int(np.prod(shape))
        step = 2**34 // volume
        x = start(2, shape).to(torch.int8)
        expected = ising_sweep(x.numpy(), 2.0, 0.0, heat_bath=True, seed=SEED, step=step)
        law = Ising(shape, temperature=2.0)
        got = sweeps(x, law, HeatBath(), first_step=step)
        np.testing.assert_array_equal(got.numpy(), expected)


LEVEL_DIGEST = """
import hashlib, sys, torch
sys.path.insert(0, sys.argv[1])
import pushforward as pf
from test_lattice_ising import KERNELS, fields, start, sweeps, temperatures
from pushforward.lattice import Ising, Metropolis, Phi4
from pushforward._ops import lattice as ops
print(pf.build_info()["CPU level"])
digest = hashlib.sha256()
for shape in ((32, 64), (6, 6), (8, 12, 20), (4, 4)):
    for kernel in KERNELS:
        law = Ising(shape, temperature=temperatures(37), field=fields(37))
        digest.update(sweeps(start(37, shape), law, kernel, 5).numpy().tobytes())
run = dict(seed=5, first_step=2, n_steps=4, chain_offset=3)
for dtype in (torch.float32, torch.float64):
    for shape in ((11,), (3, 3), (32, 32), (40, 70), (2, 3, 5), (4, 2, 6, 36)):
        law = Phi4(shape, kappa=torch.tensor([0.1, 0.2, 0.3]), lam=0.1, field=0.05)
        x = pf.random.normal(3, law.n_sites, seed=1, dtype=dtype).reshape(3, *shape)
        p = law.native_parameters(x)
        sums = {k: torch.zeros(3, dtype=torch.float64) for k in ("accepted", "accepted_squares")}
        ops.phi4_run("langevin", x, p, 0.02, **run)
        ops.phi4_run("mala", x, p, 0.02, **sums, **run)
        ops.phi4_run("hmc", x, p, 0.1, n_leapfrog=5, **sums, **run)
        if all(n % 2 == 0 for n in shape):
            Metropolis(width=1.0).advance(x, law, **run)
        for t in (x, *sums.values(), law.log_density(x), law.score(x)):
            digest.update(t.numpy().tobytes())
print(digest.hexdigest())
"""


def test_cpu_levels_agree_bit_for_bit():
    digests = {}
    for level in ("baseline", "v3", "v4"):
        out = subprocess.run(
            [sys.executable, "-c", LEVEL_DIGEST, os.path.dirname(__file__)],
            env={**os.environ, "PUSHFORWARD_CPU_LEVEL": level},
            capture_output=True,
            text=True,
            check=False,
        )
        if out.returncode != 0:
            assert "is not a level of this processor" in out.stderr, out.stderr
            continue
        first, _, digests[level] = out.stdout.partition("\n")
        assert first == level
    assert len(set(digests.values())) == 1, digests


def test_frozen_bits():
    # The noise contract's indexing of sites; a change of any spin would be another version of it.
    digest = hashlib.sha256()
    for kernel in KERNELS:
        for shape in ((16, 16), (6, 6), (4, 4, 4), (8, 8, 8)):
            law = Ising(shape, temperature=2.3, field=0.1)
            digest.update(sweeps(start(3, shape).to(torch.int8), law, kernel, 3).numpy().tobytes())
    assert digest.hexdigest()[:16] == "780c578419eabb06"
