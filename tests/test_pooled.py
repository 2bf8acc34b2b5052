# SPDX-License-Identifier: Apache-2.0
"""Sums over the chains of whole states, and histograms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pushforward as pf
from pushforward import _ops
from pushforward.mcmc.adaptation import Covariance

KINDS = ("none", "squares", "all")
HALF = _ops.SKETCH_BINS // 2


def states(n_states, n_chains, dim, dtype=torch.float32, seed=1):
    x = pf.random.normal(n_states * n_chains, dim, seed=seed, dtype=dtype)
    return 1.5 * x.reshape(n_states, n_chains, dim) + 0.25


def sums(x, shift, products, chain_offset=0):
    width = _ops.width_of(x.shape[2:].numel(), products)
    total = torch.zeros(width, dtype=torch.float64)
    return _ops.add_chain_sums_(total, x, shift=shift, products=products, chain_offset=chain_offset)


def reference(x, shift, products):
    off = x.double().flatten(2).flatten(0, 1) - shift
    parts = [off.sum(0)]
    if products == "squares":
        parts.append(off.square().sum(0))
    if products == "all":
        parts.append((off.mT @ off).tril().flatten())
    return torch.cat(parts)


def ordered(x, shift, chain_offset):
    """The sums of one coordinate in the order that is promised."""
    total = 0.0
    for state in x.double():
        of_state, first = 0.0, 0
        while first < len(state):
            last = min(len(state), first + 1024 - (chain_offset + first) % 1024)
            group = 0.0
            for c in range(first, last):
                group += float(state[c, 0] - shift)
            of_state, first = of_state + group, last
        total += of_state
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("products", KINDS)
@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 16, 33, 70])
@pytest.mark.parametrize(("n_states", "n_chains"), [(1, 1), (3, 17), (2, 2100)])
def test_sums_are_those_of_torch(n_states, n_chains, dim, products, dtype):
    x, shift = states(n_states, n_chains, dim, dtype), torch.linspace(-1, 1, dim).double()
    # n roundings at most, of partial sums that no sum of squares, or of n and squares, falls short of
    n, squares = n_states * n_chains, reference(x, shift, "squares")[dim:].max().item()
    got = sums(x, shift, products, chain_offset=1000)
    atol = n * (n + squares) * 2.0**-53
    torch.testing.assert_close(got, reference(x, shift, products), rtol=0, atol=atol)


@pytest.mark.parametrize("dim", [1, 5])
def test_the_order_is_groups_of_global_indices(dim):
    x = states(2, 1500, dim)
    for offset in (0, 1, 1000, 2**40 + 7):
        shift = torch.zeros(dim, dtype=torch.float64)
        assert sums(x, shift, "none", offset)[0].item() == ordered(x, 0.0, offset)


@pytest.mark.parametrize("products", KINDS)
@pytest.mark.parametrize("dim", [2, 70])
def test_threads_and_splits_do_not_matter(dim, products):
    x, shift = states(7, 1100, dim), torch.full((dim,), 0.125, dtype=torch.float64)
    expected = sums(x, shift, products, chain_offset=5)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            assert torch.equal(sums(x, shift, products, chain_offset=5), expected)
    finally:
        torch.set_num_threads(before)
    total = torch.zeros_like(expected)
    for part in (x[:3], x[3:4], x[4:4], x[4:]):
        _ops.add_chain_sums_(total, part, shift=shift, products=products, chain_offset=5)
    assert torch.equal(total, expected)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("event", [(), (3,), (2, 20)])
def test_covariance(event, dense):
    x = 3 * states(4, 200, math.prod(event), torch.float64).reshape(4, 200, *event) + 1e4
    covariance = Covariance(math.prod(event), dense=dense, device=x.device)
    for part in x.split(2):
        covariance.add(part, 3)
    rows = x.reshape(800, -1)
    expected = torch.cov(rows.mT).reshape(rows.shape[1], -1) if dense else rows.var(0)
    torch.testing.assert_close(covariance.covariance(), expected, rtol=1e-9, atol=1e-9)


def test_what_never_moved_has_no_variance():
    x = states(3, 700, 3)
    x[..., 1] = 0.1
    covariance = Covariance(3, dense=True, device=x.device)
    covariance.add(x, 0)
    found = covariance.covariance()
    assert found[1].eq(0).all()
    assert found[:, 1].eq(0).all()
    assert (found.diagonal()[[0, 2]] > 1).all()
    assert covariance.estimate()[1, 1] == 1


# ---- histograms ----------------------------------------------------------------------------------


def bin_of(t):
    """The bin of a distance in scales, from its definition."""
    size = 1 + abs(t)
    doublings = math.frexp(size)[1] - 1
    step = min(32 * doublings + math.floor((size / 2.0**doublings - 1) * 32), HALF - 1)
    return HALF - 1 - step if t < 0 else HALF + step


def histogram(x, centre, scale, n_parts=1):
    dim = x.shape[1]
    counts = torch.zeros(n_parts, dim, _ops.SKETCH_BINS, dtype=torch.int64)
    limits = torch.iinfo(torch.int64)
    ends = torch.tensor([limits.max, limits.min]).repeat(n_parts, dim, 1)
    _ops.count_in_bins_(counts, ends, x, centre=centre, inverse_scale=1 / scale)
    return counts.sum(0), ends[..., 0].amin(0), ends[..., 1].amax(0)


@given(
    st.lists(
        st.floats(-1e30, 1e30, width=64)
        | st.floats(-4, 4)
        | st.sampled_from([0.0, -0.0, 1.0, -3.0]),
        min_size=1,
        max_size=30,
    )
)
def test_every_number_is_in_its_bin(values):
    x, one = torch.tensor(values, dtype=torch.float64)[:, None], torch.ones(1, dtype=torch.float64)
    counts, least, most = histogram(x, 0 * one, one)
    expected = np.bincount([bin_of(t) for t in values], minlength=_ops.SKETCH_BINS)
    assert counts[0].tolist() == expected.tolist()
    for found, exact in ((least, min(values)), (most, max(values))):
        bits = torch.where(found < 0, found ^ torch.iinfo(torch.int64).max, found)
        assert bits.view(torch.float64).item() == exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 2, 7, 16, 17, 40])
@pytest.mark.parametrize("n", [1, 5, 300, 1111])
def test_parts_and_threads_do_not_matter(n, dim, dtype):
    x = states(1, n, dim, dtype)[0] ** 3
    centre, scale = torch.linspace(-1, 1, dim).double(), torch.linspace(0.5, 2, dim).double()
    alone = histogram(x, centre, scale)
    assert alone[0].sum(1).eq(n).all()
    for row in range(dim):
        t = (x[:, row].double() - centre[row]) * (1 / scale[row])
        expected = np.bincount([bin_of(v) for v in t.tolist()], minlength=_ops.SKETCH_BINS)
        assert alone[0][row].tolist() == expected.tolist()
    for n_parts in (2, 3, 8):
        for a, b in zip(histogram(x, centre, scale, n_parts), alone, strict=True):
            assert torch.equal(a, b)


def test_compiled_equals_eager():
    def everything(x):
        y = torch.empty_like(x)
        _ops.proposal_(y, x, scale=0.5, seed=1, step=2, purpose=1, chain_offset=3)
        total = torch.zeros(4, dtype=torch.float64)
        _ops.add_chain_sums_(total, y[None], products="squares", chain_offset=3)
        moments = (x, total[:2].expand(9, 2).contiguous(), total[2:].expand(9, 2).contiguous())
        left_out = torch.zeros(9, dtype=torch.int64)
        mean, var = _ops.pooled_moments(y, 5, left_out, moments)
        return y, total, mean, var, factor(y), *histogram(y, mean, var.abs() + 1)

    factor = _ops.Matrix(torch.tensor([[1.0, 0.5], [0.25, 2.0]]))
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    x = states(1, 9, 2)[0]
    for a, b in zip(everything(x), compiled(x), strict=True):
        assert torch.equal(a, b)


def test_a_gradient_is_no_matter():
    # What is counted of tensors that want gradients is counted; where it goes may not want one.
    x, total = states(2, 9, 2).requires_grad_(), torch.zeros(2, dtype=torch.float64)
    _ops.add_chain_sums_(total, x)
    assert torch.equal(total, sums(x.detach(), None, "none"))
    centre, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for a, b in zip(
        histogram(x[0], centre, one), histogram(x[0].detach(), centre, one), strict=True
    ):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="require grad"):
        _ops.add_chain_sums_(total.requires_grad_(), x)


def test_bad_input_is_named():
    x, one = torch.zeros(3, 4, 2), torch.zeros(2, dtype=torch.float64)
    for name, call in {
        "total": lambda: _ops.add_chain_sums_(one[:1], x, shift=one),
        "shift": lambda: _ops.add_chain_sums_(one, x, shift=one[:1]),
        "x": lambda: _ops.add_chain_sums_(one, x[0, 0], shift=one),
        "chain_offset": lambda: _ops.add_chain_sums_(one, x, shift=one, chain_offset=-1),
        "centre": lambda: histogram(x[0], one[:1], one[:1] + 1),
    }.items():
        with pytest.raises((ValueError, TypeError), match=f"^{name}"):
            call()
