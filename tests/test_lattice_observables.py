# SPDX-License-Identifier: Apache-2.0
"""Observables of lattice fields against enumeration and plain formulas, and their error bars."""

import math

import pytest
import torch

import pushforward as pf
from lattice_reference import enumerate_ising
from pushforward._ops import lattice as ops
from pushforward.lattice import HeatBath, Ising, Phi4, observables

SIGMAS = 5.5


def series(law, n_lattices, n_kept, thin, seed=0):
    x = torch.ones(n_lattices, *law.shape, dtype=torch.int8)
    HeatBath().advance(x, law, seed=seed, first_step=0, n_steps=3000, chain_offset=0)
    kept = []
    for k in range(n_kept):
        HeatBath().advance(
            x, law, seed=seed, first_step=3000 + k * thin, n_steps=thin, chain_offset=0
        )
        kept.append(x.clone())
    return torch.stack(kept)


@pytest.mark.parametrize("field", [0.0, 0.1])
def test_estimates_equal_enumeration(field):
    law, exact = Ising((4, 4), temperature=2.4, field=field), enumerate_ising((4, 4), 2.4, field)
    table = observables(series(law, 200, 100, 3), law)
    binder = 1 - exact["m4"] / (3 * exact["m2"] ** 2)
    chi = 16 * (exact["m2"] - exact["|m|"] ** 2) / 2.4
    truth = {
        "magnetisation": exact["m"], "abs_magnetisation": exact["|m|"], "energy": exact["e"],
        "heat_capacity": exact["C"], "binder": binder, "susceptibility": chi,
    }  # fmt: skip
    for name, value in truth.items():
        got, error = getattr(table, name)
        assert abs(got.item() - value) < SIGMAS * error.item(), name
        assert error < 0.05, name
    if field == 0.0:
        # nearest neighbours carry the energy: e = -2 G(1), up to the noise of the two directions
        assert abs(table.two_point.value[0] - 1) < 1e-12
        assert abs(-2 * table.two_point.value[1] - table.energy.value) < 0.01


def test_errors_are_as_large_as_the_spread():
    # 60 series of one law: the errors claimed are those found between the series.
    law, claimed, found = Ising((4, 4), temperature=2.3), [], []
    for seed in range(60):
        table = observables(series(law, 4, 400, 1, seed), law)
        claimed.append(table.energy.error.item())
        found.append(table.energy.value.item())
    claimed, found = torch.tensor(claimed), torch.tensor(found)
    ratio = claimed.square().mean().sqrt() / found.std()
    assert 1 / 1.6 < ratio < 1.6  # the standard deviation of 60 has an error of 9 %
    naive = 0.42 / math.sqrt(4 * 400)  # as if the steps were independent; sd of e is 0.42 here
    assert found.std() > 1.6 * naive


def test_parameters_of_every_lattice_have_estimates_of_their_own():
    t = torch.tensor([2.0, 3.0, 2.0])
    law = Ising((4, 4), temperature=t)
    table = observables(series(law, 3, 400, 10), law)
    assert table.energy.value.shape == table.binder.error.shape == (3,)
    assert table.two_point.value.shape == (3, 3)
    for i, temperature in enumerate(t.tolist()):
        exact = enumerate_ising((4, 4), temperature)
        for name, value in (("energy", exact["e"]), ("heat_capacity", exact["C"])):
            got, error = getattr(table, name)
            assert abs(got[i].item() - value) < SIGMAS * error[i].item()
    assert "energy[2]" in str(table)


@pytest.mark.parametrize("shape", [(12,), (6, 8), (4, 2, 5)], ids=str)
def test_plain_formulas(shape):
    law = Phi4(shape, kappa=0.1, lam=0.1)
    x = pf.random.normal(200, law.n_sites, seed=3, dtype=torch.float64).reshape(50, 4, *shape)
    table = observables(x, law)
    x = x[len(x) % table.block_length :]  # whole blocks only
    flat = x.flatten(2).flatten(0, 1)
    m = flat.mean(1)

    def close(estimate, value):
        return abs(estimate.value.item() - value.item()) < 1e-10

    assert close(table.magnetisation, m.mean())
    assert close(table.abs_magnetisation, m.abs().mean())
    assert close(table.susceptibility, law.n_sites * ((m**2).mean() - m.abs().mean() ** 2))
    assert close(table.binder, 1 - (m**4).mean() / (3 * (m**2).mean() ** 2))
    action = law.action(x.flatten(0, 1))
    assert close(table.energy, action.mean() / law.n_sites)
    assert close(
        table.heat_capacity, (action**2).mean() / law.n_sites - action.mean() ** 2 / law.n_sites
    )
    for r in range(shape[-1] // 2 + 1):
        pair = (x * x.roll(-r, -1)).mean()
        assert abs(table.two_point.value[r] - pair) < 1e-10
    k1 = 2 * math.pi / shape[-1]
    wave = torch.exp(1j * k1 * torch.arange(shape[-1]))
    ratio = (m**2).mean() * law.n_sites**2 / ((x * wave).flatten(2).sum(2).abs() ** 2).mean() - 1
    expected = ratio.sqrt() / (2 * math.sin(k1 / 2)) if ratio > 0 else torch.tensor(math.nan)
    got = table.correlation_length.value
    assert torch.allclose(got, expected.double(), equal_nan=True)


def test_correlation_length_of_a_free_field():
    # lambda = 0 is Gaussian: G~(k) = 1 / (2 - 4 kappa sum cos k), so xi^2 = kappa / (1 - 4 kappa).
    kappa, length = 0.23, 12
    law = Phi4((length, length), kappa=kappa, lam=0.0)
    x = pf.random.normal(96, length**2, seed=1).reshape(96, length, length)
    kept = []
    for k in range(40):
        ops.phi4_run(
            "hmc", x, law.native_parameters(x), 0.15, n_leapfrog=10, seed=2, first_step=5 * k,
            n_steps=5, chain_offset=0,
        )  # fmt: skip
        kept.append(x.clone())
    table = observables(torch.stack(kept[10:]), law)
    value, error = table.correlation_length
    assert abs(value.item() - math.sqrt(kappa / (1 - 4 * kappa))) < SIGMAS * error.item() < 0.6


def test_what_cannot_be_averaged_is_an_error():
    law = Ising((4, 4), temperature=2.0)
    with pytest.raises(ValueError, match="two blocks"):
        observables(torch.ones(1, 1, 4, 4), law)
    with pytest.raises(ValueError, match="expected shape"):
        observables(torch.ones(3, 2, 4, 5), law)
    with pytest.raises(TypeError, match="target"):
        observables(torch.ones(3, 2, 4, 4), "law")
    with pytest.raises(TypeError, match="states"):
        observables([1], law)
