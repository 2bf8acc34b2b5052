# SPDX-License-Identifier: Apache-2.0
"""Quantiles and energy of draws that are not kept."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pushforward as pf

SHARES = torch.tensor([0.001, 0.025, 0.25, 0.5, 0.75, 0.975, 0.999], dtype=torch.float64)
LAWS = {
    "normal": lambda u: torch.special.ndtri(u),
    "far away": lambda u: 1e6 + torch.special.ndtri(u),
    "Cauchy": lambda u: torch.tan(torch.pi * (u - 0.5)),
    "exponential": lambda u: -torch.log1p(-u),
    "uniform": lambda u: u,
}


@pytest.mark.parametrize("law", LAWS)
def test_quantiles_of_known_laws(law):
    # The quantiles of n equidistant probabilities are exact up to 1/n, so that what is left is the
    # sketch's own error, in units of the law's interquartile range.
    inverse = LAWS[law]
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    values = inverse(u)[torch.randperm(len(u), generator=torch.Generator().manual_seed(1))]
    sketch = pf.diagnostics.QuantileSketch(1)
    for part in values[:, None].split(7001):
        sketch.add(part)
    found, exact = sketch.quantile(SHARES)[:, 0], inverse(SHARES)
    quarter, centre, last = inverse(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    distance = (exact - centre).abs() + (last - quarter)
    assert ((found - exact).abs() < 3e-3 * distance).all()
    assert sketch.quantile(0.0).item() == values.min()
    assert sketch.quantile(1.0).item() == values.max()


def test_order_and_splits_do_not_matter():
    values = pf.random.normal(5000, 3, seed=0).double() ** 3
    later = values[512:]
    sketches = []
    for parts in ([later], later.split(17), [later.flip(0)]):
        sketch = pf.diagnostics.QuantileSketch(3)
        sketch.add(values[:512])
        for part in parts:
            sketch.add(part)
        sketches.append(sketch.quantile(SHARES))
    assert torch.equal(sketches[0], sketches[1])
    assert torch.equal(sketches[0], sketches[2])


@given(
    values=st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=40),
    copies=st.sampled_from([1, 40]),
    q=st.floats(0, 1),
)
def test_any_numbers(values, copies, q):
    x = torch.tensor(values * copies, dtype=torch.float64)[:, None]
    sketch = pf.diagnostics.QuantileSketch(1)
    sketch.add(x)
    found = sketch.quantile(q).item()
    assert x.min() <= found <= x.max()
    if len(x) < 512:
        assert found == pytest.approx(np.quantile(x.numpy(), q), rel=1e-9, abs=1e-300)


def test_exact_quantiles_agree_with_numpy():
    draws = pf.random.normal(300, 6, seed=3).reshape(50, 6, 2, 3)
    q = torch.tensor([[0.1, 0.5], [0.7, 1.0]])
    expected = np.quantile(draws.double().numpy(), q.double().numpy(), axis=(0, 1))
    np.testing.assert_allclose(pf.diagnostics.quantile(draws, q), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: s.add([1.0]), TypeError, "values"),
        (lambda s: s.add(torch.zeros(3)), ValueError, r"expected shape \(n, 2\)"),
        (lambda s: s.add(torch.full((1, 2), torch.nan)), ValueError, "finite"),
        (lambda s: s.quantile(1.5), ValueError, "between 0 and 1"),
        (lambda s: s.quantile(float("nan")), ValueError, "between 0 and 1"),
        (lambda s: pf.diagnostics.quantile(torch.zeros(0, 3), 0.5), ValueError, "at least one"),
        (lambda s: pf.diagnostics.quantile(torch.zeros(3), 0.5), ValueError, "at least one"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call(pf.diagnostics.QuantileSketch(2))


def test_no_values_have_no_quantiles():
    sketch = pf.diagnostics.QuantileSketch(2)
    sketch.add(torch.zeros(0, 2))
    assert sketch.quantile(torch.tensor([0.1, 0.5])).isnan().all()


LAW = pf.targets.Gaussian(torch.tensor([3.0, -1.0]), scale=torch.tensor([0.5, 2.0]))
TARGETS = {"native": LAW, "torch": pf.Energy(lambda x: -LAW.torch_log_density(x))}


@pytest.mark.parametrize("target", TARGETS)
def test_a_run_sketches_what_it_does_not_keep(target, tmp_path):
    start = LAW.sample(400, seed=0)

    def run(store, **more):
        return pf.sample(
            TARGETS[target], pf.MALA(0.2), start, n_steps=90, burn_in=10, thin=3, store=store,
            quantiles=True, seed=1, **more,
        )  # fmt: skip

    kept, sketched, disk = run("draws"), run("stats"), run(tmp_path / "draws")
    assert kept.sketch is None
    assert sketched.draws is None
    q = torch.tensor([0.05, 0.5, 0.95])
    exact, near = kept.quantile(q), sketched.quantile(q)
    assert near.shape == (3, 2)
    assert ((near - exact).abs() < 0.01 * torch.tensor([0.5, 2.0])).all()
    assert torch.equal(disk.quantile(q), near)
    assert kept.energy == pytest.approx(-kept.log_density.double().mean().item(), rel=1e-12)
    assert sketched.energy == pytest.approx(kept.energy, rel=1e-12)
    assert disk.energy == sketched.energy
    assert abs(kept.energy - (1 + np.log(2 * np.pi))) < 0.1
    with_covariance = run("stats", covariance=True)  # which looks at every step
    assert torch.equal(with_covariance.quantile(q), near)


@pytest.mark.parametrize("target", TARGETS)
def test_a_sketch_goes_on_from_a_checkpoint(target, tmp_path):
    start = LAW.sample(100, seed=0)

    def run(path, **more):
        return pf.sample(
            TARGETS[target], pf.MALA(0.2), start, n_steps=60, thin=2, store="stats",
            quantiles=True, checkpoint=path, every=1, seed=1, **more,
        )  # fmt: skip

    whole = run(tmp_path / "whole")
    stopped = run(tmp_path / "parts", callback=lambda step, x: step >= 7)
    assert stopped.interrupted
    resumed = run(tmp_path / "parts")
    assert resumed.n_steps == 60
    assert resumed.energy == whole.energy
    assert torch.equal(resumed.quantile(SHARES), whole.quantile(SHARES))


def test_spins_have_quantiles():
    law = pf.lattice.Ising((4, 4), temperature=2.0)
    spins = torch.ones(50, 4, 4, dtype=torch.int8)
    chains = pf.sample(
        law, pf.lattice.Metropolis(), spins, n_steps=40, burn_in=40, thin=2, store="stats",
        quantiles=True, seed=1,
    )  # fmt: skip
    assert chains.quantile(0.5).shape == (4, 4)
    assert chains.quantile(1.0).eq(1).all()
    assert abs(chains.energy / 16 * 2.0 + 1.75538029) < 0.05


def test_quantiles_need_draws_or_a_sketch():
    chains = pf.sample(LAW, pf.MALA(0.2), torch.zeros(3, 2), n_steps=5, store="stats", seed=0)
    assert chains.energy is None
    with pytest.raises(ValueError, match="quantiles=True"):
        chains.quantile(0.5)
