# SPDX-License-Identifier: Apache-2.0
"""What the CUDA kernels add up and count over chains, interpreted, against the CPU bit for bit."""

import math
from ctypes import c_int64

import pytest
import torch

import pushforward as pf
from ptx.calls import BLOCK, DTYPES, NAMES, Call, S, entry, needs_sources, same, states
from pushforward import _ops

pytestmark = needs_sources


@pytest.mark.parametrize("dtype", DTYPES)
def test_commit_and_pool(dtype):
    n_chains, dim, n_steps = 2500, 3, 4  # some groups of 1024 chains
    x, proposed = states(dtype, n_chains, dim)
    bad, wide = torch.zeros(n_chains, dtype=torch.int64), torch.float64
    moments = (x.clone(), *(torch.zeros(n_chains, dim, dtype=wide) for _ in range(2)))
    proposed[7, 1], proposed[2000, 0] = math.nan, math.inf
    for _ in range(n_steps):  # the CPU's turn, from the same start
        ours, expected_bad = x.clone(), bad.clone()
        theirs = tuple(m.clone() for m in moments)
        taken, kept = (
            torch.zeros(2, n_chains, dtype=torch.uint8),
            torch.zeros(2, *x.shape, dtype=dtype),
        )
        pf.ops.commit_(ours, proposed, expected_bad, theirs, taken=taken[0], kept=kept[0])

        call = Call(dtype)
        sums = S["Moments"](*map(call.at, moments))
        params = S["CommitParams"](
            x=call.at(x), proposed=call.at(proposed), n_chains=n_chains, dim=dim,
            n_nonfinite=call.at(bad), taken=call.at(taken[1]), kept=call.at(kept[1]), moments=sums,
        )  # fmt: skip
        run = entry("moments", f"CommitChain<{NAMES[dtype]}>")
        call.launch(run, -(-n_chains // BLOCK), [c_int64(n_chains)], params)
        assert same(x, ours)
        assert torch.equal(bad, expected_bad)
        assert torch.equal(*taken)
        assert same(*kept)
        assert all(same(m, t) for m, t in zip(moments, theirs, strict=True))
        proposed = proposed * 0.75 + 1

    mean, var = torch.zeros(2, dim, dtype=wide)
    call = Call(dtype)
    params = S["PoolParams"](
        n_chains=n_chains, dim=dim, n_steps=n_steps, n_left_out=call.at(bad),
        moments=S["Moments"](*map(call.at, moments)), mean=call.at(mean), var=call.at(var),
    )  # fmt: skip
    run = entry("moments", f"PoolCoordinate<{NAMES[dtype]}>")
    call.launch(run, dim, [], params, shared=(BLOCK + 1) * 8)
    expected = _ops.pooled_moments(x, n_steps, bad, moments)
    assert same(mean, expected[0])
    assert same(var, expected[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_totals(dtype):
    n_chains, dim = 300, 3
    x, first = states(dtype, n_chains, dim)
    wide = [t.double() for t in states(torch.float64, n_chains, dim)]
    group = x.new_zeros(3 * x.numel() + n_chains)
    group[: 3 * x.numel()].view(3, n_chains, dim).copy_(torch.stack((first, x, x**2)))
    group[3 * x.numel() :] = torch.arange(n_chains) % 8  # of some chains no state counts
    moments = _ops.BatchMoments(x.clone(), *wide, *wide, group, 16)
    expected = torch.zeros(3, n_chains, dim, dtype=torch.float64)
    _ops.totals(x, moments, *expected)
    assert not same(expected[0], moments.sum)
    assert same(expected[2], expected[0] - moments.sum_at_batch)

    call, found = Call(dtype), torch.zeros_like(expected)
    at, n = call.at(group), x.numel() * x.element_size()
    held = S["OpenGroup"](first=at, sum=at + n, squares=at + 2 * n, count=at + 3 * n)
    params = S["TotalsParams"](
        n_chains=n_chains, dim=dim, sum=call.at(found[0]), sum_of_squares=call.at(found[1]),
        open_batch=call.at(found[2]),
        moments=S["Moments"](*map(call.at, moments[:5]), 16, held),
    )  # fmt: skip
    run = entry("moments", f"TotalsOfNumber<{NAMES[dtype]}>")
    call.launch(run, -(-x.numel() // BLOCK), [c_int64(x.numel())], params)
    assert same(found, expected)


# ---- whole states --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("products", ["none", "squares", "all"])
def test_sums_of_states(products, dtype):
    n_states, n_chains, dim, offset = 3, 1300, 3, 1000  # the first group lacks most of its chains
    x = torch.stack([states(dtype, n_chains, dim)[k % 2] * (k + 1) for k in range(n_states)])
    shift = torch.linspace(-1, 1, dim, dtype=torch.float64)
    width = _ops.width_of(dim, products)
    begun = torch.linspace(0.1, 5, width, dtype=torch.float64)
    expected = _ops.add_chain_sums_(
        begun.clone(), x, shift=shift, products=products, chain_offset=offset
    )

    call, sums = Call(dtype), torch.full((n_states, width), math.nan, dtype=torch.float64)
    held = S["PooledStates"](
        x=call.at(x), n_states=n_states, n_chains=n_chains, dim=dim, chain_offset=offset,
        shift=call.at(shift), products=["none", "squares", "all"].index(products), width=width,
        sums=call.at(sums),
    )  # fmt: skip
    run = entry("pooled", f"SumOfState<{NAMES[dtype]}>")
    call.launch(run, n_states * width, [], held, shared=(BLOCK + 1) * 8)
    params = S["PooledParams"](states=held, total=call.at(begun))
    call.launch(entry("pooled", "AddStates"), -(-width // BLOCK), [c_int64(width)], params)
    assert same(begun, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sketch(dtype):
    n, dim = 150, 3
    x = states(dtype, n, dim)[0] ** 3
    edges = [0.0, -0.0, 1e30, -1e30, torch.finfo(dtype).smallest_normal / 8]  # past all bins, too
    x[: len(edges), 1] = torch.tensor(edges, dtype=dtype)
    centre = torch.linspace(-1, 1, dim, dtype=torch.float64)
    scale = torch.linspace(0.5, 2, dim, dtype=torch.float64).reciprocal()
    limits = torch.iinfo(torch.int64)

    def begun():
        counts = torch.zeros(1, dim, _ops.SKETCH_BINS, dtype=torch.int64)
        return counts, torch.tensor([limits.max, limits.min]).repeat(1, dim, 1)

    expected = begun()
    _ops.count_in_bins_(*expected, x, centre=centre, inverse_scale=scale)

    call, (counts, extremes) = Call(dtype), begun()
    sketch = S["Sketch"](
        x=call.at(x), n=n, dim=dim, centre=call.at(centre), inverse_scale=call.at(scale),
        n_parts=1, counts=call.at(counts), extremes=call.at(extremes),
    )  # fmt: skip
    run = entry("pooled", f"CountValue<{NAMES[dtype]}>")
    call.launch(run, -(-n * dim // BLOCK), [c_int64(n * dim)], sketch)
    assert counts.sum() == n * dim
    assert torch.equal(counts, expected[0])
    assert torch.equal(extremes, expected[1])
