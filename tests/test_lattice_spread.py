# SPDX-License-Identifier: Apache-2.0
"""Phi^4 fields that a GPU spreads over blocks of threads: the numbers of every other way.

On a CPU the digests are those of ordinary calls. The emulator is held to them with so little shared
memory that no field fits (test_suite_on_emulator.py); a GPU, with larger fields, to the CPU
(gpu/test_cuda.py).
"""

import hashlib
from itertools import pairwise

import pytest
import torch

import pushforward as pf
from pushforward._ops import lattice as ops
from pushforward._ops.arguments import BatchMoments

# One to four dimensions, rows shorter and longer than a warp, steps that begin within a block of
# noise, and one row, which a single warp adds up. Smaller ones would be a block's.
FIELDS = {
    torch.float32: [(4202,), (66, 70), (61, 75), (6, 10, 74), (4, 6, 10, 18)],
    torch.float64: [(1602,), (42, 40), (120, 14), (4, 10, 42), (2, 4, 6, 34)],
}
CASES = [(shape, dtype) for dtype, shapes in FIELDS.items() for shape in shapes]
RUNS = {
    "langevin": {"step_size": 0.02},
    "mala": {"step_size": 0.11},
    "hmc": {"step_size": 0.25, "n_leapfrog": 3, "jitter": 0.1},
    "metropolis": {"step_size": 0.7},
}
DIGESTS = {
    "langevin": "2abf92c34160d021",
    "mala": "b2d0df4118aa6880",
    "hmc": "d6fcb17152c8debf",
    "metropolis": "b88bec74a3c4bd83",
}


def start(n, shape, dtype=torch.float32):
    volume = torch.Size(shape).numel()
    return pf.random.normal(n, volume, seed=2, dtype=dtype).reshape(n, *shape)


def law_of(n, shape):
    kappa = torch.linspace(0.05, 0.15, n) / len(shape)
    return pf.lattice.Phi4(shape, kappa=kappa, lam=torch.linspace(0.05, 0.2, n), field=0.1)


def run(name, x, law, n_steps, *, first_step=0, chain_offset=0, moments=None):
    """Move in place; return what was counted."""
    counts = pf.ops.Counts.zeros(len(x))
    decided = (
        {}
        if name == "langevin"
        else {"accepted": counts.accepted, "accepted_squares": counts.accepted_squares}
    )
    ops.phi4_run(
        name, x, law.native_parameters(x), **RUNS[name], seed=3, first_step=first_step,
        n_steps=n_steps, chain_offset=chain_offset, n_nonfinite=counts.n_nonfinite,
        moments=moments, **decided,
    )  # fmt: skip
    return counts


def sums_of(x):
    return BatchMoments(
        x.clone(),
        *(torch.zeros(x.shape, dtype=torch.float64) for _ in range(4)),
        x.new_zeros(3 * x.numel() + len(x)),
        2,
    )


@pytest.mark.parametrize("name", RUNS)
def test_digests(name):
    digest = hashlib.sha256()
    for shape, dtype in CASES:
        if name == "metropolis" and shape == (61, 75):  # a checkerboard needs even sizes
            continue
        law, x = law_of(2, shape), start(2, shape, dtype)
        moments, n_steps = sums_of(x), 5 if name == "langevin" else 2
        counts = run(name, x, law, n_steps, first_step=1, chain_offset=5, moments=moments)
        for t in (x, law.log_density(x), law.score(x), counts.accepted, *moments.tensors()[1:]):
            digest.update(t.numpy().tobytes())
    assert digest.hexdigest()[:16] == DIGESTS[name]


@pytest.mark.parametrize("name", RUNS)
def test_lattices_alone_and_more_than_there_are_blocks(name):
    n, shape = 9, (66, 68)
    law, x = law_of(n, shape), start(n, shape)
    counts = run(name, x, law, 3)
    for i in (0, 8):
        alone = pf.lattice.Phi4(shape, kappa=law.kappa[i], lam=law.lam[i], field=0.1)
        each = start(n, shape)[i : i + 1].contiguous()
        of_each = run(name, each, alone, 3, chain_offset=i)
        assert torch.equal(each, x[i : i + 1])
        assert torch.equal(of_each.accepted, counts.accepted[i : i + 1])


@pytest.mark.parametrize("name", ["langevin", "mala", "hmc"])
def test_one_site_that_is_not_finite_refuses_a_step_of_all_blocks(name):
    shape = (64, 68)
    law, before = law_of(3, shape), start(3, shape)
    before[1, -1, -1] = 1e13  # whose score overflows
    x = before.clone()
    counts = run(name, x, law, 4)
    assert counts.n_nonfinite.tolist() == [0, 4, 0]
    assert torch.equal(x[1], before[1])
    assert not torch.equal(x[2], before[2])


def test_fields_that_leave_the_numbers_at_some_step():
    shape = (62, 70)
    x, law = start(2, shape), pf.lattice.Phi4(shape, kappa=0.2, lam=torch.tensor([0.1, 0.2]))
    x[0, 40, 3] = 40.0  # from where a step goes further out, and the next ones further still
    at, n_refused = [x.clone()], []
    for k in range(7):
        at.append(at[-1].clone())
        n_refused.append(run("langevin", at[-1], law, 1, first_step=k).n_nonfinite)
    counts = run("langevin", x, law, 7)
    assert torch.equal(x, at[-1])
    assert torch.equal(counts.n_nonfinite, sum(n_refused))
    stays = [torch.equal(a[0], b[0]) for a, b in pairwise(at)]
    assert stays == [bool(n[0]) for n in n_refused]
    assert 0 < sum(stays) < 7


def test_a_large_field_alone():
    # It is spread where it fits shared memory too.
    law, x = pf.lattice.Phi4((128, 128), kappa=0.1, lam=0.1), start(1, (128, 128))
    pair = x.expand(2, -1, -1).contiguous()
    run("langevin", x, law, 2)
    run("langevin", pair, law, 2)
    assert torch.equal(pair[:1], x)
