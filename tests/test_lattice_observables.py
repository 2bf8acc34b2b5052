# SPDX-License-Identifier: Apache-2.0
"""Observables of lattice fields against enumeration and plain formulas, and their error bars."""

import math

import pytest
import torch

import pushforward as pf
from lattice_reference import enumerate_ising
from pushforward._ops import lattice as ops
from pushforward.lattice import HeatBath, Ising, Metropolis, Phi4, observables
from pushforward.lattice.observables import _magnetisation

SIGMAS = 5.5
SHORT = "ignore:observables. .* too few:RuntimeWarning"


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


@pytest.mark.filterwarnings(SHORT)
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


@pytest.mark.filterwarnings(SHORT)
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


@pytest.mark.filterwarnings(SHORT)
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
    assert abs(table.magnetisation.value - x.mean()) < 1e-10
    x = x[len(x) % table.block_length :]  # whole blocks only
    flat = x.flatten(2).flatten(0, 1)
    m = flat.mean(1)

    def close(estimate, value):
        return abs(estimate.value.item() - value.item()) < 1e-10

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


@pytest.mark.filterwarnings(SHORT)
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


def autoregressive(rho, n_lattices, n_kept, seed=0):
    """Gaussian AR(1) series of variance 1, as fields of a single site."""
    noise = pf.random.normal(n_lattices, n_kept, seed=seed, dtype=torch.float64)
    kept = [noise[:, 0]]
    for k in range(1, n_kept):
        kept.append(rho * kept[-1] + math.sqrt(1 - rho**2) * noise[:, k])
    return torch.stack(kept)[:, :, None]


def tau_of(r):
    return (1 + r) / (2 * (1 - r))


def test_tau_int_of_an_autoregressive_series():
    # phi^n has autocorrelations by Hermite polynomials: phi^2 is He2, phi^4 / 3 - 2 phi^2 is
    # He4 / 3 up to a constant, and (phi^2 - 1)^2 is He4 + 4 He2, of variances 24 and 32.
    rho = 0.8
    second, fourth = tau_of(rho**2), tau_of(rho**4)
    truth = {
        "magnetisation": tau_of(rho), "energy": second, "two_point": second, "binder": fourth,
        "heat_capacity": (24 * fourth + 32 * second) / 56,
    }  # fmt: skip
    x = autoregressive(rho, 50, 4000)
    for field in (0.0, 0.1):  # M about 0 and about its average
        table = observables(x, Phi4((1,), kappa=0.1, lam=0.0, field=field))
        for name, exact in truth.items():
            if field == 0.0 or name == "magnetisation":
                tau, error = table.tau_int[name]
                assert tau.shape == getattr(table, name).value.shape
                assert abs(tau.item() - exact) < SIGMAS * error.item() < 0.06 * exact * SIGMAS
    assert list(table.tau_int) == [
        "magnetisation", "abs_magnetisation", "susceptibility", "energy", "heat_capacity", "binder",
        "two_point", "correlation_length",
    ]  # fmt: skip


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_errors_of_tau_int_are_as_large_as_the_spread(rho):
    # Parameters of every lattice: 200 series, each with an estimate of its own.
    x = autoregressive(rho, 200, 2000, seed=4)
    table = observables(x, Phi4((1,), kappa=torch.full((200,), 0.1), lam=0.0))
    for name, exact in (("magnetisation", tau_of(rho)), ("energy", tau_of(rho**2))):
        tau, error = table.tau_int[name]
        assert tau.shape == error.shape == (200,)
        assert abs(tau.mean() - exact) < 0.08 * exact
        assert 1 / 1.6 < error.mean() / tau.std() < 1.6
    # tau_int says how much larger an error is than that of as many independent states
    naive = table.abs_magnetisation.error / (2 * table.tau_int["abs_magnetisation"].value).sqrt()
    assert abs(naive.median() * (2000 / (1 - 2 / math.pi)) ** 0.5 - 1) < 0.1


@pytest.mark.filterwarnings(SHORT)
def test_tau_int_where_there_is_none():
    law = Ising((4, 4), temperature=2.4, field=0.1)
    x = series(law, 20, 50, 1)
    table = observables(x, law)
    assert table.tau_int["two_point"].value[0].isnan()  # G(0) is 1 in every state
    assert table.tau_int["two_point"].value[1] > 0.5
    assert "tau_int" in str(table).splitlines()[0]
    for still in (x[:1], torch.ones(50, 2, 4, 4)):
        for value, error in observables(still, law).tau_int.values():
            assert value.isnan().all()
            assert error.isnan().all()


@pytest.mark.filterwarnings(SHORT)
def test_a_lattice_that_is_not_finite_is_named():
    x = pf.random.normal(100, 3 * 16, seed=1).reshape(100, 3, 4, 4)
    apart, one_law = Phi4((4, 4), kappa=[0.1] * 3, lam=0.1), Phi4((4, 4), kappa=0.1, lam=0.1)
    whole = observables(x, apart)
    for value in (math.nan, math.inf):
        x[40, 1, 2, 2] = x[50, 1, 2, 2] = value
        says = "2 of 300 states are not finite, the first being that of lattice 1 at index 40"
        with pytest.warns(RuntimeWarning, match=says):
            table = observables(x, apart)
        for name in whole.tau_int:
            for got, before in zip(getattr(table, name), getattr(whole, name), strict=True):
                assert got[1].isnan().all()
                assert torch.equal(got[[0, 2]].nan_to_num(), before[[0, 2]].nan_to_num())
            assert table.tau_int[name].value[1].isnan().all()
        with pytest.warns(RuntimeWarning, match=says):
            table = observables(x, one_law)
        assert table.magnetisation.value.isnan()
        assert table.energy.error.isnan()


@pytest.mark.filterwarnings(SHORT)
@pytest.mark.parametrize("n_kept", [100, 400])
def test_errors_of_magnetisation_of_one_short_series_cover_the_truth(n_kept):
    # Whole lattices turn over now and then, once in some 40 sweeps, and <M> = 0.
    law = Ising((4, 4), temperature=torch.full((100,), 2.3))  # each has estimates of its own
    value, error = observables(series(law, 100, n_kept, 1, 7), law).magnetisation
    assert 0.6 < (value / error).square().mean().sqrt() < 1.6


@pytest.mark.parametrize(
    ("n_lattices", "n_kept", "field"), [(4, 60, 0.0), (20, 30, 0.0), (8, 120, 0.05)]
)
def test_errors_of_magnetisation_of_several_series_cover_the_truth(n_lattices, n_kept, field):
    law, z = Ising((4, 4), temperature=2.3, field=field), []
    truth = enumerate_ising((4, 4), 2.3, field)["m"] if field else 0.0
    m = series(law, 60 * n_lattices, n_kept, 1, 7).double().mean((2, 3))
    for one in m.split(n_lattices, 1):
        (value, error), _ = _magnetisation(one, law, pooled=True)
        z.append((value.item() - truth) / error.item())
    assert 0.6 < torch.tensor(z).square().mean().sqrt() < 1.6


def test_a_lattice_that_never_turns_has_no_small_error():
    x, kept = torch.ones(1, 16, 16, dtype=torch.int8), []
    law = Ising((16, 16), temperature=2.0)
    for k in range(300):
        Metropolis().advance(x, law, seed=0, first_step=k, n_steps=1, chain_offset=0)
        kept.append(x.clone())
    with pytest.warns(RuntimeWarning, match=r"300 states of a lattice are too few .* of M,"):
        table = observables(torch.stack(kept), law)
    assert table.magnetisation.value > 0.8
    assert table.magnetisation.error > 0.8
    assert table.energy.error < 0.1


@pytest.mark.filterwarnings(SHORT)
def test_series_of_less_than_two_blocks_have_no_error():
    law = Ising((4, 4), temperature=2.0, field=0.1)
    drift = torch.ones(6, 1, 4, 4)
    drift[:3, :, :2] = -1
    with pytest.warns(RuntimeWarning, match="too few"):
        table = observables(drift, law)
    assert table.n_blocks == 1
    assert table.energy.value.isfinite()
    assert table.energy.error.isnan()
    assert table.magnetisation.error.isnan()


def test_one_state_of_each_lattice():
    law = Ising((4, 4), temperature=2.4)
    x = series(law, 300, 1, 1)[0]
    table, same = observables(x, law), observables(x[None], law)
    exact = enumerate_ising((4, 4), 2.4)
    for name, truth in (("energy", exact["e"]), ("abs_magnetisation", exact["|m|"])):
        value, error = getattr(table, name)
        assert abs(value.item() - truth) < SIGMAS * error.item() < 0.5
        assert torch.equal(value, getattr(same, name).value)
    m = x.double().mean((1, 2))
    assert torch.allclose(table.magnetisation.error, m.square().mean().sqrt() / 300**0.5)
    in_field = observables(x, Ising((4, 4), temperature=2.4, field=0.1))
    assert torch.allclose(in_field.magnetisation.error, m.std() / 300**0.5)
    scan = Ising((4, 4), temperature=torch.full((300,), 2.4))
    for alone in (observables(x[:1], law), observables(x, scan)):
        assert alone.energy.value.isfinite().all()
        assert alone.energy.error.isnan().all()
        assert alone.magnetisation.error.isnan().all()


def test_draws_on_disk_are_read_and_none_is_an_error(tmp_path):
    law, x = Ising((4, 4), temperature=3.0), torch.ones(20, 4, 4, dtype=torch.int8)
    call = {"n_steps": 200, "burn_in": 50, "seed": 6}
    with pytest.raises(ValueError, match="states: expected draws, got a result that kept none"):
        observables(pf.sample(law, HeatBath(), x, store="stats", **call), law)
    pytest.importorskip("zarr")
    memory = observables(pf.sample(law, HeatBath(), x, **call), law)
    disk = pf.sample(law, HeatBath(), x, store=tmp_path / "draws.zarr", **call)
    for states in (disk, pf.storage.DrawStore.open(tmp_path / "draws.zarr")):
        assert str(observables(states, law)) == str(memory)


def test_what_cannot_be_averaged_is_an_error():
    law = Ising((4, 4), temperature=2.0)
    for shape in ((3, 2, 4, 5), (0, 2, 4, 4), (3, 0, 4, 4), (0, 4, 4), (4, 4)):
        with pytest.raises(ValueError, match="expected shape"):
            observables(torch.ones(shape), law)
    with pytest.raises(TypeError, match="target"):
        observables(torch.ones(3, 2, 4, 4), "law")
    with pytest.raises(TypeError, match="states"):
        observables([1], law)
