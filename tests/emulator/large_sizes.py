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
from pushforward._ops import lattice as lattice_ops
from pushforward._ops.lattice import ising_sweeps, phi4_run

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lattice_reference import bring_workspaces, neighbours, threshold, words

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


def check_ends(call, n, *shape, dtype=torch.float32, start=None):
    """``call(x, offset)`` writes ``x``; small calls say what its ends must be."""
    assert n * torch.Size(shape).numel() > N
    x = sparse(n, *shape, dtype=dtype)
    ends = slice(0, LAST), slice(n - LAST, n)
    parts = []
    for end in ends:
        small = torch.zeros(LAST, *shape, dtype=dtype)
        if start is not None:
            x[end] = small[:] = start
        call(small, end.start)
        parts.append(small)
    call(x, 0)
    for end, small in zip(ends, parts, strict=True):
        assert small.any()
        assert torch.equal(x[end], small)


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
    bring_workspaces(
        monkeypatch,
        lattice_ops,
        lambda x, needed, **_: sparse(len(x) * needed, dtype=torch.uint8),
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
