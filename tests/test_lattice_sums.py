# SPDX-License-Identifier: Apache-2.0
"""Streaming sums that runs on lattices add up themselves, against those of their states."""

import pytest
import torch

import pushforward as pf
from conftest import totals_of
from pushforward import _ops
from pushforward._ops.arguments import BatchMoments
from pushforward._ops.lattice import ising_clusters, ising_sweeps, phi4_run

DONE = 3  # steps recorded before
RUN = {"seed": 5, "chain_offset": 2}


def begun(x, shift, batch, *, in_groups=True):
    """Sums that are not zero, as in the middle of a run, and of reals a group that is open."""
    sums = [pf.random.normal(len(x), x[0].numel(), seed=s).double().round() for s in range(7)]
    sums = [s.reshape(x.shape).to(x.device) for s in sums]
    group = None
    if x.is_floating_point() and in_groups:
        group = torch.cat([*(s.flatten() for s in sums[4:]), x.new_full((len(x),), 2)]).to(x)
    return BatchMoments(shift, *sums[:4], group, batch)


def begun_with_spins(x, shift, batch):
    """Sums of spins, which agree with each other."""
    moments = begun(x, shift, batch, in_groups=False)
    moments.sum_of_squares.copy_(-2 * shift.double() * moments.sum)
    if DONE % batch == 0:
        moments.sum_at_batch.copy_(moments.sum)
    return moments


def expected_sums(moments, states, batch):
    """All sums after states have been added, those of the open group too."""
    shift, _, _, at_batch, batch_squares = (t.double() for t in moments[:5])
    total, squares = totals_of(moments)
    for k, state in enumerate(states):
        off = state.double() - shift
        total, squares = total + off, squares + off * off
        if (DONE + k + 1) % batch == 0:
            batch_squares, at_batch = batch_squares + (total - at_batch) ** 2, total
    return total, squares, at_batch, batch_squares


def agree(moments, n_steps, expected, rtol=1e-12):
    found = *totals_of(moments), *moments[3:5]
    return all(
        torch.allclose(a, b, rtol=rtol, atol=rtol) for a, b in zip(found, expected, strict=True)
    )


def spins(n, shape, dtype, seed):
    up = pf.random.uniform(n, torch.Size(shape).numel(), seed=seed) < 0.5
    return torch.where(up, 1, -1).reshape(n, *shape).to(dtype)


def check_sums_of_spins(take, n, shape, n_steps, batch, dtype):
    """``take(x, **steps)`` adds the states that it makes one by one to its sums."""
    x = spins(n, shape, dtype, 1)
    states, at = [], x.clone()
    for k in range(n_steps):
        take(at, first_step=7 + k, n_steps=1)
        states.append(at.clone())
    moments = begun_with_spins(x, spins(n, shape, dtype, 2), batch)
    expected = expected_sums(moments, states, batch)
    cut = n_steps // 3
    for first, steps in ((0, cut), (cut, n_steps - cut)):
        take(x, first_step=7 + first, n_steps=steps, moments=moments, steps_done=DONE + first)
    assert torch.equal(x, at)
    assert agree(moments, n_steps, expected)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("heat_bath", [False, True])
@pytest.mark.parametrize(
    ("n", "shape", "n_steps", "batch"),
    [
        (35, (4, 6), 12, 5),
        (2, (16, 20), 12, 5),
        (2, (16, 16), 300, 290),  # more than a byte counts
        (1, (64, 64), 9, 4),
        (3, (4, 4, 2), 12, 1),
        (3, (4, 4, 2), 12, DONE),
        (2, (8, 4, 8), 12, 100),
        (3, (2, 2), 600, 1000),
        (2, (2, 34), 270, 129),
        (2, (2, 4, 66), 9, 4),
    ],
)
def test_sums_of_spins_are_those_of_their_states(n, shape, n_steps, batch, heat_bath, dtype):
    law = pf.lattice.Ising(shape, temperature=2.5)

    def take(x, **steps):
        fields = {"no_field": dtype != torch.int8, "heat_bath": heat_bath}
        ising_sweeps(x, **law.placed(x), **fields, **RUN, **steps)

    check_sums_of_spins(take, n, shape, n_steps, batch, dtype)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("field", [0.0, 0.05])
@pytest.mark.parametrize("wolff", [False, True])
@pytest.mark.parametrize(
    ("n", "shape", "n_steps", "batch"),
    [
        (35, (4, 6), 12, 5),
        (2, (5, 7), 300, 290),
        (3, (3, 4, 2), 12, 1),
        (3, (3, 4, 2), 12, DONE),
        (1, (64, 160), 7, 4),
    ],
)
def test_sums_of_clusters_are_those_of_their_states(n, shape, n_steps, batch, wolff, field, dtype):
    law = pf.lattice.Ising(shape, temperature=2.2, field=field)

    def take(x, **steps):
        ising_clusters(x, **law.placed(x), wolff=wolff, **RUN, **steps)

    check_sums_of_spins(take, n, shape, n_steps, batch, dtype)


def counted(move, counts):
    """What a move on phi^4 fields counts."""
    given = {"n_nonfinite": counts.n_nonfinite}
    if move != "langevin":
        given |= {"accepted": counts.accepted, "accepted_squares": counts.accepted_squares}
    return given


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("move", ["langevin", "mala", "hmc", "metropolis"])
@pytest.mark.parametrize("batch", [4, 16])
@pytest.mark.parametrize(  # rows end with any part of a register; of the last fewer states wait
    ("n", "shape"),
    [
        (3, (7,)),
        (2, (4, 18)),
        (1, (4, 6, 2)),
        (1, (6, 62)),
        (1, (2, 96)),
        (2, (68,)),
        (1, (12, 66)),
    ],
)
def test_sums_of_fields_are_those_of_their_states(n, shape, batch, move, dtype):
    if move == "metropolis" and shape == (7,):
        shape = (8,)
    x = pf.random.normal(n, torch.Size(shape).numel(), seed=1, dtype=dtype).reshape(n, *shape)
    law = pf.lattice.Phi4(shape, kappa=0.2, lam=0.1)
    run = {"parameters": law.native_parameters(x), "step_size": 0.05, "n_leapfrog": 2, **RUN}
    states, at = [], x.clone()
    for k in range(31):
        phi4_run(move, at, first_step=7 + k, n_steps=1, **run)
        states.append(at.clone())
    moments = begun(x, x.clone(), batch)
    expected = expected_sums(moments, states, batch)
    counts = _ops.Counts.zeros(n)
    for first, steps in ((0, 3), (3, 17), (20, 11)):
        phi4_run(
            move, x, first_step=7 + first, n_steps=steps, moments=moments,
            steps_done=DONE + first, **counted(move, counts), **run,
        )  # fmt: skip
    assert torch.equal(x, at)
    assert agree(moments, 31, expected, 1e-12 if dtype == torch.float64 else 1e-5)
    assert (counts.accepted > 0).all() == (move != "langevin")


def test_steps_that_are_refused_while_a_state_waits():
    # Lattices that leave the finite numbers at some step and stay where they were.
    x = 3 * pf.random.normal(24, 16, seed=1).reshape(24, 4, 4)
    law = pf.lattice.Phi4((4, 4), kappa=0.2, lam=0.1)
    run = {"parameters": law.native_parameters(x), "step_size": 0.09, **RUN}
    moments, each = begun(x, x.clone(), 5), begun(x, x.clone(), 5)
    at, counts, counts_of_each = x.clone(), _ops.Counts.zeros(24), _ops.Counts.zeros(24)
    for k in range(23):
        phi4_run("langevin", at, first_step=k, n_steps=1, moments=each, steps_done=DONE + k,
                 **counted("langevin", counts_of_each), **run)  # fmt: skip
    phi4_run("langevin", x, first_step=0, n_steps=23, moments=moments, steps_done=DONE,
             **counted("langevin", counts), **run)  # fmt: skip
    assert torch.equal(counts.n_nonfinite, counts_of_each.n_nonfinite)
    assert len(counts.n_nonfinite.unique()) >= 4
    assert all(torch.equal(a, b) for a, b in zip(moments.tensors(), each.tensors(), strict=True))


def test_bad_sums_are_named():
    x = spins(2, (4, 4), torch.int8, 1)
    law = pf.lattice.Ising((4, 4), temperature=2.5)
    call = {**law.placed(x), "no_field": True, "heat_bath": False, "first_step": 0, "n_steps": 2}
    good = begun(x, x.clone(), 4)
    bad = {
        "shift": good._replace(shift=x.float()),
        "sum": good._replace(sum=good.sum.float()),
        "batch": good._replace(batch=0),
        "open_group": good._replace(open_group=x),
        "sum_of_squares": good._replace(sum_of_squares=good.sum_of_squares[:1]),
    }
    for name, moments in bad.items():
        with pytest.raises((TypeError, ValueError), match=f"^{name}"):
            ising_sweeps(x, moments=moments, steps_done=0, **call, **RUN)
    with pytest.raises(ValueError, match="overlap"):
        ising_sweeps(x, moments=good._replace(shift=x), steps_done=0, **call, **RUN)
    with pytest.raises(ValueError, match="n_steps"):
        ising_sweeps(x, moments=good, steps_done=2**63 - 1, **call, **RUN)
