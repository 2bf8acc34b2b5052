# SPDX-License-Identifier: Apache-2.0
"""Laws: what the samplers draw, against closed forms, each beside a broken twin that must fail.

Seeds are fixed. A statistic is compared in units of its standard error; the bound of 5.5 is a
false alarm in 3e7 for one comparison, below 1e-6 for the few dozen here.
"""

import itertools
import math

import pytest
import torch
from scipy import stats

import pushforward as pf
from conftest import ring_of_modes

SIGMAS = 5.5


def variance_error(x, expected):
    """(sample variance - expected) over its standard error, for independent normal draws."""
    n = x.numel()
    return (x.double().square().mean().item() / expected - 1) / math.sqrt(2 / n)


def langevin(x, h, *, beta=1.0, n_steps=200, noise=1.0, seed=3):
    """Langevin on U = x^2 / 2 by the update op; ``noise`` != 1 is the broken twin's."""
    for k in range(n_steps):
        # the wrong noise sqrt(2 h) * noise is what temperature 1 / noise**2 would have
        x = pf.ops.langevin(x, -x, step_size=h, beta=beta / noise**2, seed=seed, step=k)
    return x


@pytest.mark.parametrize("h", [0.05, 0.5, 1.5])
@pytest.mark.parametrize("beta", [1.0, 4.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ula_variance_in_closed_form(h, beta, dtype):
    # Stationary variance on U = x^2 / 2 is 1 / (beta (1 - h / 2)); start there, stay there.
    exact = 1 / (beta * (1 - h / 2))
    x = math.sqrt(exact) * pf.random.normal(100_000, 1, seed=1, dtype=dtype)
    assert abs(variance_error(langevin(x, h, beta=beta), exact)) < SIGMAS
    law = pf.targets.Gaussian(torch.zeros(1), scale=torch.ones(1))
    run = pf.ops.langevin_run_(x, law, step_size=h, beta=beta, n_steps=200, seed=3)
    assert abs(variance_error(run, exact)) < SIGMAS


def test_a_wrong_noise_scale_fails_the_same_test():
    # The slip of two public codes: sqrt(h) where sqrt(2 h) belongs samples exp(-2 U).
    x = pf.random.normal(100_000, 1, seed=1)
    broken = langevin(x, 0.05, noise=math.sqrt(0.5))
    assert abs(variance_error(broken, 1 / (1 - 0.025))) > 10 * SIGMAS
    assert abs(variance_error(broken, 0.5 / (1 - 0.025))) < SIGMAS


def test_ula_transient_in_closed_form():
    # From x = 3 the mean after k steps is 3 (1-h)^k, the variance (1-(1-h)^2k) / (1-h/2).
    h, n, law = 0.1, 200_000, pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    for k in (1, 2, 7):
        x = torch.full((n, 2), 3.0)
        pf.ops.langevin_run_(x, law, step_size=h, n_steps=k, seed=5)
        mean, variance = 3 * (1 - h) ** k, (1 - (1 - h) ** (2 * k)) / (1 - h / 2)
        z = (x.double() - mean) / math.sqrt(variance)
        assert abs(z.mean().item()) * math.sqrt(2 * n) < SIGMAS
        assert abs(variance_error(z, 1.0)) < SIGMAS
        assert abs((z[:, 0] * z[:, 1]).mean().item()) * math.sqrt(n) < SIGMAS


def test_correlated_gaussian_in_closed_form():
    # ULA on precision P has stationary covariance P^-1 (1 - h P / 2)^-1.
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
    law, h = pf.targets.Gaussian(torch.tensor([1.0, -2.0]), covariance=covariance), 0.1
    precision = torch.linalg.inv(covariance)
    exact = covariance @ torch.linalg.inv(torch.eye(2, dtype=torch.float64) - h / 2 * precision)
    x = law.sample(100_000, seed=1)
    pf.ops.langevin_run_(x, law, step_size=h, n_steps=300, seed=2)
    factor = torch.linalg.cholesky(exact)
    z = torch.linalg.solve_triangular(factor, (x.double() - law.mean).T, upper=False).T
    assert abs(variance_error(z[:, 0], 1.0)) < SIGMAS
    assert abs(variance_error(z[:, 1], 1.0)) < SIGMAS
    assert abs((z[:, 0] * z[:, 1]).mean().item()) * math.sqrt(len(z)) < SIGMAS


def test_modes_keep_their_weights():
    # Started from exact draws, a small step keeps eight far modes at a quarter and less each.
    weights = torch.arange(1.0, 9.0) / 36
    law = pf.targets.GaussianMixture(
        ring_of_modes().means, scales=torch.full((8,), 0.5), weights=weights
    )
    n = 100_000
    x = pf.sample(
        law, pf.Langevin(0.005), law.sample(n, seed=1), n_steps=200, store="last", seed=2
    ).x
    nearest = torch.cdist(x.double(), law.means).argmin(1)
    counts = torch.bincount(nearest, minlength=8)
    chi2 = ((counts - n * weights) ** 2 / (n * weights)).sum().item()
    assert stats.chi2.sf(chi2, 7) > 1e-6


def test_double_well_to_first_order_in_the_step():
    # ULA's bias in <x^2> is O(h); Richardson extrapolation of two steps removes the first order.
    law = pf.targets.DoubleWell(1, mu=-1.0, b=1.0)
    exact, n = law.covariance.item(), 40_000
    biases = {}
    for h in (0.1, 0.05):
        start = law.sample(n, seed=1)
        chains = pf.sample(
            law, pf.Langevin(h), start, n_steps=2000, burn_in=200, store="stats", seed=2
        )
        biases[h] = (chains.var + chains.mean**2).item() - exact
    assert biases[0.1] / biases[0.05] == pytest.approx(2.0, rel=0.25)
    assert abs(2 * biases[0.05] - biases[0.1]) < 0.1 * abs(biases[0.1])


# ---- Ornstein-Uhlenbeck --------------------------------------------------------------------------


@pytest.mark.parametrize(("kappa", "sigma"), [(1.0, 2**0.5), (0.3, 0.7), (0.0, 1.0)])
def test_forward_law(kappa, sigma):
    process = pf.diffusion.OrnsteinUhlenbeck(kappa, sigma)
    x0 = torch.full((100_000, 2), 1.7)
    for t in (1e-4, 0.3, 2.0):
        x = process.diffuse(x0, t, seed=4).double()
        mean, std = 1.7 * math.exp(-kappa * t), process.std(t)
        variance = sigma**2 * ((1 - math.exp(-2 * kappa * t)) / (2 * kappa) if kappa else t)
        assert std**2 == pytest.approx(variance, rel=1e-9)
        z = (x - mean) / std
        rounding = 1.7 * 6e-8 / std  # a float32 state is that coarse beside a small std
        assert abs(z.mean().item()) * math.sqrt(z.numel()) < SIGMAS + rounding * 450
        assert abs(variance_error(z, 1.0)) < SIGMAS


def test_forward_steps_compose():
    # Two exact transitions are one: the law at s + t from the law at s.
    process, n = pf.diffusion.OrnsteinUhlenbeck(), 200_000
    x = process.diffuse(torch.full((n, 1), 2.0), 0.4, seed=1)
    y = process.diffuse(x, 0.6, seed=2).double()
    z = (y - 2 * process.mean_scale(1.0)) / process.std(1.0)
    assert abs(z.mean().item()) * math.sqrt(n) < SIGMAS
    assert abs(variance_error(z, 1.0)) < SIGMAS


def test_noise_is_what_diffuse_used():
    process, x0 = (
        pf.diffusion.OrnsteinUhlenbeck(),
        pf.random.normal(33, 30, seed=1).reshape(33, 5, 6),
    )
    t = torch.linspace(0.1, 2, 33)
    x = process.diffuse(x0, t, seed=7, chain_offset=4)
    noise = process.noise(x0, seed=7, chain_offset=4)
    t = t.double().reshape(-1, 1, 1)
    rebuilt = process.mean_scale(t) * x0 + process.std(t) * noise
    assert torch.allclose(x.double(), rebuilt.double(), atol=1e-6)  # a few float32 roundings


def gaussian_score(mean, variance, process):
    """Score of x_t for Gaussian data."""

    def score(x, t):
        a, s = process.mean_scale(t), process.std(t)
        return (a * mean - x) / (a * a * variance + s * s)

    return score


def euler_moments(mean, variance, process, times, alpha):
    """Exact mean and variance of Euler-Maruyama from N(0, 1) on Gaussian data."""
    m, v = 0.0, 1.0
    sigma2 = process.diffusion**2
    for t, after in itertools.pairwise(times):
        ds, a = t - after, process.mean_scale(t)
        spread = a * a * variance + process.std(t) ** 2
        pull = (1 + alpha) * sigma2 / 2 * ds / spread
        grow = 1 + process.kappa * ds - pull
        m, v = grow * m + pull * a * mean, grow**2 * v + alpha * sigma2 * ds
    return m, v


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("parameters", [(1.0, 2**0.5), (0.5, 1.0)])
def test_reverse_family_has_the_moments_of_its_recursion(alpha, parameters):
    process = pf.diffusion.OrnsteinUhlenbeck(*parameters)
    mean, variance, n = 1.5, 0.25, 100_000
    times = torch.linspace(4.0, 0.0, 41, dtype=torch.float64).tolist()
    x = pf.random.normal(n, 2, seed=1)
    y = pf.diffusion.reverse(
        gaussian_score(mean, variance, process), process, x, times=times, alpha=alpha, seed=2
    ).double()
    m, v = euler_moments(mean, variance, process, times, alpha)
    z = (y - m) / math.sqrt(v)
    assert abs(z.mean().item()) * math.sqrt(z.numel()) < SIGMAS
    assert abs(variance_error(z, 1.0)) < SIGMAS


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
def test_reverse_family_converges_to_the_data_at_first_order(alpha):
    # The recursion above is exact, so the error of the scheme has no sampling noise.
    process = pf.diffusion.OrnsteinUhlenbeck()
    errors = []
    for n in (500, 1000, 2000):
        times = [12.0 * (1 - k / n) for k in range(n + 1)]
        _, v = euler_moments(1.5, 0.25, process, times, alpha)
        errors.append(abs(v - 0.25))
    slopes = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert slopes == pytest.approx([1.0, 1.0], abs=0.15)


def test_a_reversal_without_its_factor_fails():
    # Dropping the (1 + alpha) of eq 135 is an error that the moments must show.
    process, n = pf.diffusion.OrnsteinUhlenbeck(), 100_000
    times = torch.linspace(4.0, 0.0, 41, dtype=torch.float64).tolist()
    score = gaussian_score(1.5, 0.25, process)
    y = pf.diffusion.reverse(
        lambda x, t: 0.5 * score(x, t), process, pf.random.normal(n, 1, seed=1), times=times, seed=2
    )
    _, v = euler_moments(1.5, 0.25, process, times, 1.0)
    assert abs(variance_error(y.double() - y.double().mean(), v)) > 10 * SIGMAS


def test_reverse_of_a_mixture_recovers_its_modes():
    weights = torch.tensor([0.2, 0.8], dtype=torch.float64)
    means, process, n = torch.tensor([[-2.0], [2.0]]), pf.diffusion.OrnsteinUhlenbeck(), 20_000

    def score(x, t):
        a, s = process.mean_scale(t.item()), process.std(t.item())
        spread = math.sqrt(a * a * 0.09 + s * s)
        return pf.targets.GaussianMixture(a * means, scales=[spread] * 2, weights=weights).score(x)

    levels = torch.logspace(1.5, -2, 150, dtype=torch.float64)
    times = [*process.time_at(levels).tolist(), 0.0]
    y = pf.diffusion.reverse(score, process, pf.random.normal(n, 1, seed=1), times=times, seed=3)
    share = (y > 0).double().mean().item()
    # 150 steps leave a bias below a tenth of this bound of about 2 %
    assert abs(share - 0.8) < SIGMAS * math.sqrt(0.16 / n) + 0.005
    assert y[y > 0].std().item() == pytest.approx(0.3, rel=0.05)


def test_reverse_splits_over_chains_bit_for_bit():
    process = pf.diffusion.OrnsteinUhlenbeck()
    score = gaussian_score(1.0, 0.5, process)
    x = pf.random.normal(10, 3, seed=1)
    kw = {"times": [2.0, 1.0, 0.5, 0.0], "alpha": 0.7, "seed": 5}
    whole = pf.diffusion.reverse(score, process, x, **kw)
    parts = [
        pf.diffusion.reverse(score, process, x[:4], **kw),
        pf.diffusion.reverse(score, process, x[4:], chain_offset=4, **kw),
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(x, pf.random.normal(10, 3, seed=1))
    again = pf.diffusion.reverse(
        score, process, x, times=torch.tensor(kw["times"]), alpha=0.7, seed=5
    )
    assert torch.equal(whole, again)


# ---- denoising -----------------------------------------------------------------------------------


def test_tweedie_score_of_the_optimal_denoiser_is_the_score():
    # Gaussian data: E[x_0 | x_t] is linear and the score of x_t known.
    process, mean, variance = pf.diffusion.OrnsteinUhlenbeck(0.8, 1.1), 1.5, 0.4

    def denoiser(x, t):
        assert t.shape == (50,)
        a, s2 = process.mean_scale(t)[:, None], process.std(t)[:, None] ** 2
        return mean + a * variance / (a * a * variance + s2) * (x - a * mean)

    x = pf.random.normal(50, 3, seed=1, dtype=torch.float64)
    for t in (0.05, 0.7, 3.0):
        time = torch.tensor(t, dtype=torch.float64)
        got = pf.diffusion.tweedie_score(denoiser, process)(x, time)
        assert torch.allclose(got, gaussian_score(mean, variance, process)(x, time), rtol=1e-9)


def test_denoising_loss_is_least_at_the_posterior_mean():
    process, n, t = pf.diffusion.OrnsteinUhlenbeck(), 200_000, 0.5
    x0 = pf.random.normal(n, 1, seed=1)  # N(0, 1) data: the posterior mean is a x, a^2 + s^2 = 1
    a, s = process.mean_scale(t), process.std(t)

    def loss(slope):
        return pf.diffusion.denoising_loss(lambda x, t: slope * x, process, x0, t, seed=2).item()

    assert loss(a) == pytest.approx(
        s * s, rel=SIGMAS * math.sqrt(2 / n)
    )  # the least error, E = s^2
    assert loss(a) < loss(0.9 * a)
    assert loss(a) < loss(1.1 * a)


def test_fit_denoiser_learns_a_gaussian(restore_threads):
    torch.set_num_threads(1)  # layers this small only lose by sharing
    # The preconditioned network starts at the optimum for N(0, data_std^2); data elsewhere must be
    # learnt. After a short training the generated mean and spread are near the data's.
    torch.manual_seed(0)
    process = pf.diffusion.OrnsteinUhlenbeck()
    data = 0.5 + 0.3 * pf.random.normal(2000, 2, seed=1)
    denoiser = pf.diffusion.PreconditionedDenoiser(pf.nets.MLP(2), process, data_std=0.6)
    fitted = pf.diffusion.fit_denoiser(
        denoiser, data, n_steps=1000, batch_size=256, ema=0.99, seed=2
    )
    levels = torch.logspace(1.2, -2, 40, dtype=torch.float64)
    times = [*process.time_at(levels).tolist(), 0.0]
    score = pf.diffusion.tweedie_score(fitted, process)
    y = pf.diffusion.reverse(score, process, pf.random.normal(4000, 2, seed=3), times=times, seed=4)
    assert torch.allclose(y.mean(0), torch.tensor(0.5), atol=0.06)
    assert torch.allclose(y.std(0), torch.tensor(0.3), atol=0.06)


def test_fit_denoiser_is_a_function_of_the_seed():
    def fit():
        torch.manual_seed(0)
        process = pf.diffusion.OrnsteinUhlenbeck()
        denoiser = pf.diffusion.PreconditionedDenoiser(pf.nets.MLP(2), process, data_std=1.0)
        data = pf.random.normal(100, 2, seed=1)
        return pf.diffusion.fit_denoiser(denoiser, data, n_steps=5, seed=2)

    for a, b in zip(fit().parameters(), fit().parameters(), strict=True):
        assert torch.equal(a, b)
