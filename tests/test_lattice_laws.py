# SPDX-License-Identifier: Apache-2.0
"""Laws of the lattice kernels: exact enumeration, Kaufman's and Onsager's values, broken twins.

Seeds are fixed. A statistic is an average over independent lattices in units of its standard error
from the true value; the bound of 5.5 is a false alarm in 3e7 for one comparison, below 2e-5 for the
few hundred here.
"""

import functools
import math

import numpy as np
import pytest
import torch

import pushforward as pf
from lattice_reference import enumerate_ising, ising_sweep, neighbours
from pushforward._ops import lattice as ops
from pushforward.lattice import HeatBath, Ising, Metropolis, Phi4, SwendsenWang, Wolff

SIGMAS = 5.5
CRITICAL = 2 / math.log(1 + math.sqrt(2))
KERNELS = [Metropolis(), HeatBath(), SwendsenWang(), Wolff()]
NAMES = ["metropolis", "heat bath", "swendsen-wang", "wolff"]
exact_of = functools.lru_cache(enumerate_ising)


def run(kernel, x, law, n_steps, seed=0, first_step=0):
    kernel.check(law, x)
    kernel.advance(x, law, seed=seed, first_step=first_step, n_steps=n_steps, chain_offset=0)
    return x


def deviations(x, law, exact):
    """Standard errors between the averages over lattices and the exact ones, largest first."""
    flat = x.double().flatten(1)
    m, e = flat.mean(1), law.energy(x.double()) / law.n_sites
    series = {"e": e, "m": m, "|m|": m.abs(), "m2": m**2, "m4": m**4}
    series["C"] = (e - exact["e"]) ** 2 * law.n_sites / float(law.temperature) ** 2
    worst = [
        abs(v.mean().item() - exact[name]) / (v.std().item() / math.sqrt(len(v)))
        for name, v in series.items()
    ]
    return max(worst)


def draw_exactly(n, shape, temperature, field, seed=0):
    """Independent states of a small lattice by its table of probabilities."""
    volume = int(np.prod(shape))
    spins = (np.arange(2**volume)[:, None] >> np.arange(volume) & 1) * 2 - 1
    grid = spins.reshape(-1, *shape)
    bonds = sum(
        (grid * np.roll(grid, -1, a)).reshape(len(grid), -1).sum(1) for a in range(1, grid.ndim)
    )
    log_weight = (bonds + field * spins.sum(1)) / temperature
    weight = np.exp(log_weight - log_weight.max())
    chosen = np.random.default_rng(seed).choice(len(spins), size=n, p=weight / weight.sum())
    return torch.from_numpy(grid[chosen].astype(np.int8))


def test_the_table_of_the_4x4_torus():
    # T: e, C, <|m|>, U4 by enumeration elsewhere.
    for temperature, e, c, m in (
        (2.0, -1.75538029, 0.60553266, 0.91894327),
        (CRITICAL, -1.56562379, 0.78326683, 0.84386044),
        (2.5, -1.37911648, 0.81251523, 0.76471239),
    ):
        exact = exact_of((4, 4), temperature)
        np.testing.assert_allclose([exact["e"], exact["C"], exact["|m|"]], [e, c, m], atol=1e-8)
    at_critical = exact_of((4, 4), CRITICAL)
    binder = 1 - at_critical["m4"] / (3 * at_critical["m2"] ** 2)
    assert abs(binder - 0.61719932) < 1e-8


CASES = [((4, 4), 2.0, 0.0), ((4, 4), CRITICAL, 0.0), ((4, 4), 2.5, 0.2), ((2, 4), 1.7, -0.3),
         ((2, 2, 2), 4.0, 0.0), ((2, 2, 4), 3.5, 0.5)]  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
@pytest.mark.parametrize(("shape", "temperature", "field"), CASES)
def test_the_exact_law_is_invariant(kernel, shape, temperature, field):
    x = draw_exactly(60_000, shape, temperature, field)
    law, exact = (
        Ising(shape, temperature=temperature, field=field),
        exact_of(shape, temperature, field),
    )
    assert deviations(x, law, exact) < SIGMAS  # the test's own draws
    assert deviations(run(kernel, x, law, 3), law, exact) < SIGMAS


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
@pytest.mark.parametrize(("shape", "temperature", "field"), CASES)
def test_the_law_is_reached_from_order(kernel, shape, temperature, field):
    law, exact = (
        Ising(shape, temperature=temperature, field=field),
        exact_of(shape, temperature, field),
    )
    x = torch.ones(20_000, *shape, dtype=torch.int8)
    local = kernel in KERNELS[:2]  # single spins take long to turn a whole lattice over
    assert deviations(run(kernel, x, law, 4000 if local else 100, seed=1), law, exact) < SIGMAS


@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (3, 2, 2)], ids=str)
def test_clusters_need_no_checkerboard(shape):
    law, exact = Ising(shape, temperature=2.4, field=0.1), exact_of(shape, 2.4, 0.1)
    for kernel in (SwendsenWang(), Wolff()):
        x = draw_exactly(60_000, shape, 2.4, 0.1)
        assert deviations(run(kernel, x, law, 3), law, exact) < SIGMAS


def test_broken_twins_fail():
    shape, temperature = (4, 4), 2.0
    law, exact = Ising(shape, temperature=temperature), exact_of(shape, temperature)
    warmer = Ising(shape, temperature=1.02 * temperature)
    for kernel in KERNELS:  # two percent too warm
        x = draw_exactly(60_000, shape, temperature, 0.0)
        assert deviations(run(kernel, x, warmer, 30), law, exact) > 1.5 * SIGMAS

    def all_at_once(x):  # a heat bath without a checkerboard
        p = 1 / (1 + np.exp(-2 * neighbours(x.astype(int)) / temperature))
        return np.where(np.random.default_rng(1).random(x.shape) < p, 1, -1)

    x = draw_exactly(60_000, shape, temperature, 0.0).numpy()
    assert deviations(torch.from_numpy(all_at_once(x)), law, exact) > 2 * SIGMAS
    # a sweep that forgets the field
    x = draw_exactly(20_000, shape, 2.5, 0.2).numpy()
    x = ising_sweep(x, 2.5, 0.0, heat_bath=True, seed=1, step=0)
    tilted = Ising(shape, temperature=2.5, field=0.2)
    assert deviations(torch.from_numpy(x), tilted, exact_of(shape, 2.5, 0.2)) > 2 * SIGMAS


# ---- finite and infinite lattices ----------------------------------------------------------------

KAUFMAN = {
    2.0: {8: -1.74568317, 16: -1.74553067, 32: -1.74556453, 64: -1.74556457},
    CRITICAL: {8: -1.49158911, 16: -1.45306485, 32: -1.43365846, 64: -1.42393838},
    2.5: {8: -1.22232064, 16: -1.13131799, 32: -1.10729166, 64: -1.10608299},
}


def energy_deviation(kernel, length, temperature, expected, *, n, burn_in, rounds, steps):
    """Means over time of independent lattices, in standard errors from ``expected``."""
    law = Ising((length, length), temperature=temperature)
    x = torch.ones(n, length, length, dtype=torch.int8)
    run(kernel, x, law, burn_in, seed=2)
    total = torch.zeros(n, dtype=torch.float64)
    for i in range(rounds):
        run(kernel, x, law, steps, seed=2, first_step=burn_in + i * steps)
        total += law.energy(x) / law.n_sites / rounds
    return abs(total.mean().item() - expected) / (total.std().item() / math.sqrt(n))


@pytest.mark.parametrize("length", [8, 16, 32])
@pytest.mark.parametrize("temperature", list(KAUFMAN))
def test_kaufman_energies(length, temperature):
    expected = KAUFMAN[temperature][length]
    sweeps = {8: 200, 16: 800, 32: 4000}[length]
    for kernel in (Metropolis(), HeatBath()):
        size = {"n": 128, "burn_in": sweeps, "rounds": 20, "steps": sweeps // 20}
        assert energy_deviation(kernel, length, temperature, expected, **size) < SIGMAS
    size = {"n": 128, "burn_in": 30, "rounds": 10, "steps": 1}
    assert energy_deviation(SwendsenWang(), length, temperature, expected, **size) < SIGMAS
    # the infinite lattice's energy is another one where the lattice is small
    if length == 8 and temperature == CRITICAL:
        size = {"n": 128, "burn_in": 200, "rounds": 20, "steps": 10}
        wrong = energy_deviation(Metropolis(), length, temperature, -math.sqrt(2), **size)
        assert wrong > 2 * SIGMAS


@pytest.mark.slow
@pytest.mark.parametrize("temperature", list(KAUFMAN))
def test_kaufman_energies_of_a_larger_lattice(temperature):
    expected = KAUFMAN[temperature][64]
    clusters = {"n": 128, "burn_in": 60, "rounds": 20, "steps": 2}
    assert energy_deviation(SwendsenWang(), 64, temperature, expected, **clusters) < SIGMAS
    sweeps = 20_000 if temperature == CRITICAL else 1000
    size = {"n": 128, "burn_in": sweeps, "rounds": 20, "steps": sweeps // 20}
    assert energy_deviation(Metropolis(), 64, temperature, expected, **size) < SIGMAS


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.5, 2.0, 2.1])
def test_onsager_magnetisation(temperature):
    # m = (1 - sinh(2 / T)^-4)^(1/8); at these temperatures a lattice of 256^2 is infinite.
    exact = (1 - math.sinh(2 / temperature) ** -4) ** 0.125
    law, n = Ising((256, 256), temperature=temperature), 64
    x = torch.ones(n, 256, 256, dtype=torch.int8)
    run(Metropolis(), x, law, 1000, seed=3)
    total = torch.zeros(n, dtype=torch.float64)
    for i in range(20):
        run(Metropolis(), x, law, 20, seed=3, first_step=1000 + 20 * i)
        total += x.double().mean((1, 2)) / 20
    assert abs(total.mean().item() - exact) < SIGMAS * total.std().item() / math.sqrt(n)


# ---- phi^4 on the 3x3 torus ----------------------------------------------------------------------

# (kappa, lambda): <phi^2>, <phi^4>, <phi phi_next>, <M^2> with M the mean of the field over the
# sites, by the transfer matrix.
TORUS = {
    (0.20, 0.02): (0.65842, 1.22682, 0.22645, 0.23732),
    (0.25, 0.02): (1.17284, 3.44212, 0.76361, 0.76706),
    (0.30, 0.02): (5.0910, 34.239, 4.7974, 4.8039),
    (0.25, 0.50): (0.617617, 0.761631, 0.261631, 0.268609),
}
DIGITS = 1e-5  # relative, of the table


def moments(x):
    """Per lattice: phi^2, phi^4, phi phi_next, M^2, ``(n, 4)`` float64."""
    x = x.double()

    def mean(v):
        return v.flatten(1).mean(1)

    nearest = (mean(x * x.roll(1, 1)) + mean(x * x.roll(1, 2))) / 2
    return torch.stack((mean(x**2), mean(x**4), nearest, mean(x) ** 2), 1)


def torus_deviation(series, exact):
    error = series.std(0) / math.sqrt(len(series)) + DIGITS * torch.tensor(exact).double().abs()
    return ((series.mean(0) - torch.tensor(exact).double()).abs() / error).max().item()


def torus_start(n, dtype=torch.float32):
    # Not far out, where moves of this size would be refused for long: the force grows like phi^3.
    return 2 * pf.random.uniform(n, 9, seed=9, dtype=dtype).reshape(n, 3, 3) - 1


def whole_field_moves(x, law, name, n_steps, step_size, **more):
    accepted, squares = torch.zeros(2, len(x), dtype=torch.float64)
    if name != "langevin":
        more |= {"accepted": accepted, "accepted_squares": squares}
    ops.phi4_run(
        name, x, law.native_parameters(x), step_size, seed=4, first_step=0, n_steps=n_steps,
        chain_offset=0, **more,
    )  # fmt: skip
    return accepted / n_steps


@pytest.mark.parametrize(("kappa", "lam"), list(TORUS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_moments_of_phi4(kappa, lam, dtype):
    law = Phi4((3, 3), kappa=kappa, lam=lam)
    exact, n = TORUS[kappa, lam], 10_000
    hmc, mala = ((0.25, 6), 0.1) if lam < 0.1 else ((0.12, 12), 0.03)
    x = torus_start(n, dtype)
    rate = whole_field_moves(x, law, "hmc", 60, step_size=hmc[0], n_leapfrog=hmc[1])
    assert 0.6 < rate.mean() < 0.9999
    assert torus_deviation(moments(x), exact) < SIGMAS
    x = torus_start(n, dtype)
    rate = whole_field_moves(x, law, "mala", 1000, step_size=mala)
    assert 0.6 < rate.mean() < 0.9999
    assert torus_deviation(moments(x), exact) < SIGMAS


def test_langevin_on_phi4_extrapolates_to_the_exact_moments():
    # The bias is of first order in h: 2 f(h / 2) - f(h) is free of it.
    kappa, lam, h, n = 0.2, 0.02, 0.02, 10_000
    law, exact = Phi4((3, 3), kappa=kappa, lam=lam), TORUS[0.2, 0.02]
    coarse, fine = torus_start(n), torus_start(n)
    whole_field_moves(coarse, law, "langevin", 500, step_size=h)
    whole_field_moves(fine, law, "langevin", 1000, step_size=h / 2)
    assert torus_deviation(2 * moments(fine) - moments(coarse), exact) < SIGMAS
    # sqrt(h) where sqrt(2 h) belongs draws from exp(-2 S)
    broken = torus_start(n)
    for step in range(500):
        noise = pf.random.normal(n, 9, seed=4, start=9 * step).reshape(n, 3, 3)
        broken = broken + h * law.torch_score(broken) + math.sqrt(h) * noise
    assert torus_deviation(moments(broken), exact) > 10 * SIGMAS


def test_moves_without_a_decision_are_biased():
    # What MALA and HMC would be if they took every proposal.
    law, exact = Phi4((3, 3), kappa=0.25, lam=0.5), TORUS[0.25, 0.5]
    x = torus_start(20_000)
    whole_field_moves(x, law, "langevin", 300, step_size=0.05)
    assert torus_deviation(moments(x), exact) > 2 * SIGMAS


@pytest.mark.parametrize(("kappa", "lam", "field"), [(0.2, 0.1, 0.0), (0.12, 0.5, 0.4)])
@pytest.mark.parametrize("shape", [(4,), (4, 4), (2, 2, 4), (2, 2, 2, 2)], ids=str)
def test_metropolis_and_hmc_agree_on_phi4(kappa, lam, field, shape):
    # Two samplers with nothing in common but the law, on odd numbers of dimensions.
    law = Phi4(shape, kappa=kappa / len(shape) * 2, lam=lam, field=field)
    results = []
    for name in ("metropolis", "hmc"):
        x = pf.random.normal(6_000, law.n_sites, seed=5).reshape(-1, *shape)
        if name == "metropolis":
            run(Metropolis(width=1.2), x, law, 400, seed=6)
        else:
            whole_field_moves(x, law, "hmc", 60, step_size=0.2, n_leapfrog=6)
        flat = x.double().flatten(1)
        m = flat.mean(1)
        results.append(torch.stack(((flat**2).mean(1), (flat**4).mean(1), m, m**2,
                                    law.action(x.double())), 1))  # fmt: skip
    error = (sum(r.var(0) / len(r) for r in results)).sqrt()
    gap = (results[0].mean(0) - results[1].mean(0)).abs() / error
    assert gap.max() < SIGMAS
    if field == 0.0 and len(shape) == 2:  # and the comparison can fail: another hopping
        x = pf.random.normal(6_000, law.n_sites, seed=5).reshape(-1, *shape)
        run(Metropolis(width=1.2), x, Phi4(shape, kappa=1.15 * kappa, lam=lam), 400, seed=6)
        squares = (x.double() ** 2).flatten(1).mean(1)
        assert abs(squares.mean() - results[1][:, 0].mean()) / error[0] > 1.5 * SIGMAS
