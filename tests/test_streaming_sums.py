# SPDX-License-Identifier: Apache-2.0
"""Streaming sums of native runs: their definition, any cut of a run, steps that do not count."""

import warnings

import pytest
import torch

import pushforward as pf
from pushforward import _ops
from pushforward._ops.arguments import BatchMoments

N = 21  # steps; three groups of eight begin


def begun(x, batch):
    wide = [torch.zeros(x.shape, dtype=torch.float64) for _ in range(4)]
    return BatchMoments(x + 1, *wide, x.new_zeros((2, *x.shape)), batch)


def run(kind, x, law, moments, cuts, **parameters):
    """Steps 0 to N in calls that end at ``cuts``; all states."""
    counts, states = _ops.Counts.zeros(len(x)), []
    for begin, end in zip((0, *cuts), (*cuts, N), strict=True):
        draws = x.new_empty((end - begin, *x.shape))
        _ops.run_chunk(
            kind, x, law.native(x), parameters, seed=1, first_step=begin, n_steps=end - begin,
            chain_offset=3, counts=counts.tensors(), steps_done=begin, draws=draws, moments=moments,
        )  # fmt: skip
        states.append(draws)
    return torch.cat(states), counts


def by_definition(moments, states, counted, batch):
    """The sums of states, a state at a time; in float64 no fused multiply-add is needed to see."""
    total, squares, at_batch, batches, opened = (torch.zeros_like(m) for m in moments[1:6])
    for k, state in enumerate(states):
        off = torch.where(counted[k][:, None], state - moments.shift, 0)
        opened[0] += off
        opened[1] += off * off
        if (k + 1) % 8 == 0:
            total, squares = total + opened[0], squares + opened[1]
            opened.zero_()
        if (k + 1) % batch == 0:
            now = total + opened[0]
            batches, at_batch = batches + (now - at_batch) ** 2, now
    return total, squares, at_batch, batches, opened


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [3, 8, 100])
@pytest.mark.parametrize(("n_chains", "dim"), [(5, 1), (40, 2), (3, 37), (2, 300)])
@pytest.mark.parametrize("kind", ["mala", "langevin"])
def test_sums_are_those_of_the_states_however_a_run_is_cut(kind, n_chains, dim, batch, dtype):
    law = pf.targets.Gaussian(torch.zeros(dim), scale=torch.ones(dim))
    start = pf.random.normal(n_chains, dim, seed=2, dtype=dtype)
    parameters = {"step_size": 0.2 / dim**0.33, "beta": 1.0}
    whole = begun(start, batch)
    states, _ = run(kind, start.clone(), law, whole, (), **parameters)
    for cuts in ((8, 16), (1, 2, 9), (5,), (13, 20)):
        parts = begun(start, batch)
        run(kind, start.clone(), law, parts, cuts, **parameters)
        assert all(torch.equal(a, b) for a, b in zip(whole.tensors(), parts.tensors(), strict=True))
    counted = torch.ones(N, n_chains, dtype=torch.bool)
    rtol = 1e-12 if dtype == torch.float64 else 3e-6
    for name, value in zip(BatchMoments._fields[1:], by_definition(whole, states, counted, batch),
                           strict=False):  # fmt: skip
        assert torch.allclose(getattr(whole, name), value, rtol=rtol, atol=10 * rtol), name


@pytest.mark.parametrize("cuts", [(), (3, 11)])
def test_steps_that_are_not_taken_add_nothing(cuts):
    law = pf.targets.Gaussian(torch.zeros(3), scale=torch.ones(3))
    start = pf.random.normal(40, 3, seed=2, dtype=torch.float64)
    step_size = torch.full((40,), 0.1, dtype=torch.float64)
    step_size[::7] = 1e300
    moments = begun(start, 5)
    states, counts = run(
        "langevin", start.clone(), law, moments, cuts, step_size=step_size, beta=1.0
    )
    assert (counts.n_nonfinite[::7] > 0).all()
    before = torch.cat((start[None], states[:-1]))
    counted = ~(states == before).all(2)
    assert torch.equal((~counted).sum(0), counts.n_nonfinite)
    for name, value in zip(BatchMoments._fields[1:], by_definition(moments, states, counted, 5),
                           strict=False):  # fmt: skip
        assert torch.allclose(getattr(moments, name), value, rtol=1e-12, atol=1e-12), name


def test_sums_without_an_open_group_take_each_step_alone():
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    start = pf.random.normal(33, 2, seed=2, dtype=torch.float64)
    each, grouped = begun(start, 4)._replace(open_sums=None), begun(start, 4)
    states, _ = run("mala", start.clone(), law, each, (6,), step_size=0.5, beta=1.0)
    run("mala", start.clone(), law, grouped, (), step_size=0.5, beta=1.0)
    off = states - each.shift
    assert torch.allclose(each.sum, off.sum(0), rtol=1e-13)
    assert torch.allclose(each.totals(N)[0], grouped.totals(N)[0], rtol=1e-13)
    assert torch.allclose(each.totals(N)[1], grouped.totals(N)[1], rtol=1e-13)


@pytest.mark.parametrize("store", ["draws", "stats"])
def test_statistics_of_chains_that_started_far_out(store):
    # Squares of 3e4 have steps of 64 in float32; what the way in adds to the variance is far more.
    law = pf.targets.Gaussian(torch.zeros(4), scale=torch.ones(4))
    x = torch.full((64, 4), 3e4)
    call = {"n_steps": 4000, "seed": 1}
    draws = pf.sample(law, pf.Langevin(0.3), x, **call).draws.double()
    chains = pf.sample(law, pf.Langevin(0.3), x, store=store, **call)
    assert torch.allclose(chains.mean, draws.mean((0, 1)), rtol=1e-5, atol=1e-4)
    assert torch.allclose(chains.var, draws.flatten(0, 1).var(0), rtol=1e-5)
    exact = pf.diagnostics.tally(draws, batch=chains.tallies.batch, shift=x)
    for f in ("rhat", "ess", "mcse"):
        of_sums, of_draws = (
            getattr(pf.diagnostics, f"streaming_{f}")(t) for t in (chains.tallies, exact)
        )
        assert torch.allclose(of_sums, of_draws, rtol=1e-4), f


def test_an_interrupted_run_has_the_sums_of_a_shorter_one():
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    x = pf.random.normal(9, 2, seed=1)
    call = {"store": "stats", "seed": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        long = pf.sample(law, pf.MALA(0.3), x, n_steps=10**7, callback=lambda *_: True, **call)
        short = pf.sample(law, pf.MALA(0.3), x, n_steps=long.n_steps, **call)
    assert long.interrupted
    assert torch.equal(long.mean, short.mean)
    assert torch.equal(long.var, short.var)
