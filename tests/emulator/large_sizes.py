# SPDX-License-Identifier: Apache-2.0
"""Arrays of more than 2**31 numbers: the blocks at both ends of the grid reach the right ones.

Run by test_suite_on_emulator.py with PF_EMULATOR_ENDS, which leaves out the blocks between. Memory
is reserved and not touched, so that only the pages at the ends exist. What the last block writes is
what a small call writes for the same chains.
"""

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import _ops
from pushforward._ops import diffusion, evaluate
from pushforward._ops import lattice as lattice_ops
from pushforward._ops.lattice import ising_sweeps, phi4_run

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lattice_reference import neighbours, threshold, words

N = 2**31
LAST = 8
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


def sparse(*shape, dtype=torch.float32):
    """Zeros that take no memory until they are written."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE
    size = torch.Size(shape).numel()
    memory = mmap.mmap(-1, size * dtype.itemsize, flags=flags)
    return torch.frombuffer(memory, dtype=dtype).reshape(shape)


def counts(n):
    whole = sparse(n, dtype=torch.int64), sparse(n, dtype=torch.int64)
    return _ops.Counts(*whole, sparse(n, dtype=torch.float64), sparse(n, dtype=torch.float64))


def at_ends(t, offset):
    """Tell the rows at both ends of ``t`` apart, whose first is that of chain ``offset``."""
    for end in slice(0, LAST), slice(len(t) - LAST, len(t)):
        rows = t[end].view(LAST, -1)
        rows.copy_(pf.random.normal(*rows.shape, seed=9, chain_offset=offset + end.start))


def check_ends(call, n, *shape, dtype=torch.float32, start=None):
    """``call(x, offset)`` writes ``x``, or what it returns; small calls say what the ends must be."""
    assert n * torch.Size(shape).numel() > N
    x = sparse(n, *shape, dtype=dtype)
    ends = slice(0, LAST), slice(n - LAST, n)
    parts = []
    for end in ends:
        small = torch.zeros(LAST, *shape, dtype=dtype)
        if start is not None:
            x[end] = small[:] = start
        parts.append(call(small, end.start) or [small])
    whole = call(x, 0) or [x]
    for end, part in zip(ends, parts, strict=True):
        for large, small in zip(whole, part, strict=True):
            assert small.any()
            assert torch.equal(large[end], small)


def test_one_long_row():
    n = N + 4099
    x = sparse(1, n)
    arguments = {"uniform": False, "seed": 3, "purpose": 1, "chain_offset": 5}
    _ops.fill_(x, start=0, **arguments)
    for first in (0, n - 200):
        small = torch.zeros(1, 200)
        _ops.fill_(small, start=first, **arguments)
        assert torch.equal(x[:, first : first + 200], small)


def test_many_rows():
    def call(x, offset):
        _ops.fill_(x, uniform=True, seed=3, purpose=1, chain_offset=offset, start=7)

    check_ends(call, 2**27 + 3, 17)


@pytest.mark.parametrize("dim", [2, 17])
def test_update(dim):
    n = N // dim + 77

    def call(x, offset):
        score = sparse(*x.shape)
        _ops.langevin_(x, score, step_size=0.1, seed=1, step=4, chain_offset=offset)

    check_ends(call, n, dim)


@pytest.fixture
def _sparse_results(monkeypatch):
    for module in (diffusion, evaluate):
        monkeypatch.setattr(module, "like", lambda x: sparse(*x.shape))
    monkeypatch.setattr(evaluate, "a_chain", lambda x: sparse(len(x)))


@pytest.mark.usefixtures("_sparse_results")
@pytest.mark.parametrize("dim", [2, 17])
def test_diffusion(dim):
    def forward(x, offset):
        at_ends(x, offset)
        return [pf.ops.diffuse(x, mean_scale=0.5, std=0.25, seed=1, chain_offset=offset)]

    def reverse(x, offset):
        score = sparse(*x.shape)
        at_ends(score, offset)
        pf.ops.reverse_step_(
            x, score, growth=1.5, drift_scale=0.5, noise_scale=0.25, seed=1, step=4,
            chain_offset=offset,
        )  # fmt: skip

    check_ends(forward, N // dim + 77, dim)
    check_ends(reverse, N // dim + 77, dim)


@pytest.mark.usefixtures("_sparse_results")
@pytest.mark.parametrize("dim", [2, 33])
def test_evaluate(dim):
    law = pf.targets.Gaussian(torch.ones(dim), scale=torch.ones(dim))

    def call(x, offset):
        at_ends(x, offset)
        return [pf.ops.log_density(x, law), pf.ops.score(x, law)]

    check_ends(call, N // dim + 77, dim)


@pytest.mark.parametrize("dim", [2, 33])
def test_accept(dim):
    def call(x, offset):
        n = len(x)
        proposed, value, proposed_value, done = sparse(*x.shape), sparse(n), sparse(n), counts(n)
        at_ends(proposed, offset)
        at_ends(proposed_value, offset)
        pf.ops.accept_(
            x, proposed, value, proposed_value, seed=1, step=4, counts=done, chain_offset=offset
        )
        assert not x[:LAST].all()  # some are refused
        return [x, value, done.accepted, done.accepted_squares]

    check_ends(call, N // dim + 77, dim)


@pytest.mark.parametrize("dim", [2, 33])
@pytest.mark.parametrize("kind", ["langevin", "mala"])
def test_run(kind, dim):
    law = pf.targets.Gaussian(torch.zeros(dim), scale=torch.ones(dim))

    def call(x, offset):
        _ops.run_chunk(
            kind, x, law.native(x), {"step_size": 0.1}, seed=1, first_step=2, n_steps=2,
            chain_offset=offset, counts=counts(len(x)).tensors(),
        )  # fmt: skip

    check_ends(call, N // dim + 77, dim)


@pytest.mark.parametrize("dim", [2, 33])
def test_markov_run(dim):
    law = pf.targets.Gaussian(torch.zeros(dim), scale=torch.ones(dim))

    def call(x, offset):
        done = counts(len(x))
        pf.ops.markov_run_(
            x, law, "hmc", step_size=0.5, n_leapfrog=2, jitter=0.25, n_steps=2, seed=1,
            chain_offset=offset, counts=done,
        )  # fmt: skip
        return [x, done.accepted]

    check_ends(call, N // dim + 77, dim)


@pytest.mark.parametrize("dim", [2, 33])
def test_streaming_sums(dim):
    law = pf.targets.Gaussian(torch.zeros(dim), scale=torch.ones(dim))

    def call(x, offset):
        shift, sums = sparse(*x.shape), [sparse(*x.shape, dtype=torch.float64) for _ in range(4)]
        group = sparse(3 * x.numel() + len(x))
        at_ends(shift, offset)
        _ops.run_chunk(
            "random_walk", x, law.native(x), {"step_size": 0.2}, seed=1, first_step=2, n_steps=4,
            chain_offset=offset, counts=counts(len(x)).tensors(), steps_done=13,
            moments=_ops.BatchMoments(shift, *sums, group, 3),
        )  # fmt: skip
        return [x, *sums]

    check_ends(call, N // dim + 77, dim)


def test_kept_draws():
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    n, n_steps = 2**24 + 5, 65

    def run(n, offset):
        draws, values = sparse(n_steps, n, 2), sparse(n_steps, n)
        x = sparse(n, 2)
        _ops.run_chunk(
            "random_walk", x, law.native(x), {"step_size": 1.0}, seed=1, first_step=0,
            n_steps=n_steps, chain_offset=offset, counts=counts(n).tensors(), draws=draws,
            log_density=values,
        )  # fmt: skip
        return draws[-1], values[-1], x

    whole = run(n, 0)
    assert n_steps * n * 2 > N
    for first in (0, n - LAST):
        for large, small in zip(whole, run(LAST, first), strict=True):
            assert small.any()
            assert torch.equal(large[first : first + LAST], small)


def test_commit():
    def call(x, offset):
        proposed = sparse(*x.shape)
        proposed[:LAST], proposed[-LAST:] = 1.0, 1.0
        _ops.commit_(x, proposed, sparse(len(x), dtype=torch.int64), None)

    check_ends(call, N // 2 + 7, 2)


def test_fields():
    law = pf.lattice.Phi4((32, 32), kappa=0.1, lam=0.1)

    def call(x, offset):
        p = law.native_parameters(x[:1])
        phi4_run("langevin", x, p, 0.01, seed=1, first_step=0, n_steps=1, chain_offset=offset)

    check_ends(call, N // 1024 + 9, 32, 32)


def heat_bath(x, offset):
    """One sweep of the Ising model without a field at temperature 5."""
    temperature, field = torch.tensor(5.0).double(), torch.tensor(0.0).double()
    ising_sweeps(
        x, temperature=temperature, field=field, no_field=False, heat_bath=True, seed=1,
        first_step=0, n_steps=1, chain_offset=offset,
    )  # fmt: skip


@pytest.fixture
def _in_workspace(monkeypatch):
    monkeypatch.setenv("PF_EMULATOR_SHARED", "16")
    monkeypatch.setattr(
        lattice_ops, "_workspace", lambda x, n_bytes: sparse(n_bytes, dtype=torch.uint8)
    )


def test_spins():
    check_ends(heat_bath, N // 1024 + 9, 32, 32, dtype=torch.int8, start=1)


@pytest.mark.usefixtures("_in_workspace")
def test_spins_in_the_workspace():
    check_ends(heat_bath, N // 1024 + 9, 32, 32, dtype=torch.int8, start=1)


@pytest.mark.usefixtures("_in_workspace")
def test_one_lattice_of_spins():
    rows, row, near = 2**17 + 2, 2**16, 8  # rows at each end, which hold what is updated there
    per_block = 4 * 384 * 32
    n_blocks = -(-rows * row // per_block)
    first, last = 9 * per_block, rows * row - (n_blocks - 9) * per_block  # sites of nine blocks
    assert max(first, last) < near * row
    x = sparse(1, rows, row, dtype=torch.int8)  # up, where the memory that is left out says down
    heat_bath(x, 0)

    # The rows near both ends, and two between them, as a lattice of its own.
    site = np.arange((2 * near + 2) * row).reshape(-1, row)
    found = np.where((site < first) | (site >= site.size - last), 1, -1)
    updated, parity = found == 1, sum(np.indices(found.shape)) % 2
    w = [words(1, 10, 1, start, near * row) for start in (0, (rows - near) * row)]
    w = np.concatenate([w[0], np.zeros((1, 2 * row), dtype=np.uint64), w[1]], 1).reshape(site.shape)
    for colour in (0, 1):
        total = neighbours(found[None])[0]
        p = threshold(1 / (1 + np.exp(np.where(total > 0, 2, -2) * total / 5.0)))
        new = np.where((w < p) != (total > 0), 1, -1)
        found = np.where(updated & (parity == colour), new, found)
    flat, found = x.reshape(-1), found.reshape(-1)
    assert np.array_equal(flat[:first].numpy(), found[:first])
    assert np.array_equal(flat[-last:].numpy(), found[-last:])


@pytest.mark.usefixtures("_in_workspace")
def test_a_lattice_of_more_words_than_are_counted():
    with pytest.raises(ValueError, match=r"^x: expected lattices of fewer sites on a GPU"):
        heat_bath(sparse(1, 2**31, 2, dtype=torch.int8), 0)


def one_step_of_a_field(x):
    p = pf.lattice.Phi4((2,), kappa=0.1, lam=0.1).native_parameters(x[:1])
    phi4_run("langevin", x, p, 0.01, seed=1, first_step=0, n_steps=1, chain_offset=0)


@pytest.mark.parametrize(
    ("call", "shape", "dtype"),
    [
        (lambda x: heat_bath(x, 0), (2, 2), torch.int8),
        (one_step_of_a_field, (2,), torch.float32),
    ],
)
def test_more_blocks_than_a_grid_has(call, shape, dtype):
    x = sparse(2**31, *shape, dtype=dtype)  # of which each lattice is a block's
    cause = (
        r"^CUDA: 2147483648 blocks of threads in one call, a grid has at most 2147483647; split "
        r"the chains over calls with chain_offset$"
    )
    with pytest.raises(RuntimeError, match=cause):
        call(x)
    assert not x[:LAST].any()
    call(x[:LAST])  # the error is not left behind
    assert x[:LAST].any()


@pytest.mark.usefixtures("_in_workspace")
@pytest.mark.parametrize("missing", [-16, 16])
def test_a_workspace_of_another_size_is_refused(monkeypatch, missing):
    monkeypatch.setattr(
        lattice_ops, "_workspace", lambda x, n: torch.empty(n - missing, dtype=torch.uint8)
    )
    with pytest.raises(ValueError, match=r"^workspace: expected"):
        heat_bath(torch.ones(1, 32, 32, dtype=torch.int8), 0)
