# SPDX-License-Identifier: Apache-2.0
"""Markov kernels leave their law invariant: exact draws, some steps, the same law; broken twins fail.

A chain that starts in the law stays in it, so that no convergence is waited for. Each coordinate and
the log-density are compared with fresh exact draws by a two-sample Kolmogorov-Smirnov test. Seeds
are fixed; the limit of 1e-8 a comparison is a false alarm in 1e6 for the few hundred here.
"""

import math

import pytest
import torch
from scipy import stats

import pushforward as pf
from conftest import ZOO, ring_of_modes

P_LIMIT = 1e-8
N = 20_000

# A kernel for each target: its name, the zoo's name, the kernel.
CASES = {
    "random-walk plane": ("gaussian-plane", pf.RandomWalk(0.8)),
    "random-walk diagonal": ("gaussian-diagonal", pf.RandomWalk(torch.tensor([1.0, 2.0, 0.5]))),
    "random-walk dense": ("mixture-dense", pf.RandomWalk(torch.tensor([[1.0, 0, 0], [0.5, 1, 0], [0, -0.5, 1]]))),
    "random-walk modes": ("mixture-isotropic", pf.RandomWalk(1.5)),
    "random-walk ring": ("ring", pf.RandomWalk(0.5)),
    "random-walk long": ("gaussian-dense-long", pf.RandomWalk(0.2)),
    "autoregressive": ("double-well", pf.MetropolisHastings(pf.mcmc.Autoregressive(0.6, 1.5, 0.3))),
    "autoregressive vectors": (
        "gaussian-diagonal",
        pf.MetropolisHastings(
            pf.mcmc.Autoregressive(-0.3, torch.tensor([1.0, 2.0, 0.7]), torch.arange(3.0))
        ),
    ),
    "independence": (
        "gaussian-plane",
        pf.Independence(pf.targets.Gaussian(torch.ones(2), scale=torch.tensor([1.5, 0.5]))),
    ),
    "mala plane": ("gaussian-plane", pf.MALA(0.1)),
    "mala modes": ("mixture-diagonal", pf.MALA(0.15)),
    "mala wells": ("double-well-deep", pf.MALA(0.02)),
    "mala banana": ("banana", pf.MALA(0.15)),
    "mala funnel": ("funnel", pf.MALA(0.3)),
    "mala long": ("gaussian-diagonal-long", pf.MALA(0.1)),
    "hmc plane": ("gaussian-plane", pf.HMC(0.4, 4)),
    "hmc diagonal": ("gaussian-diagonal", pf.HMC(0.9, 3, metric=torch.tensor([1.0, 4.0, 0.25]))),
    "hmc dense": ("gaussian-dense", pf.HMC(0.7, 3, metric=ZOO["gaussian-dense"].covariance)),
    "hmc modes": ("mixture-isotropic-odd", pf.HMC(0.4, 5)),
    "hmc wells": ("single-well", pf.HMC(0.5, 3)),
    "hmc banana": ("banana", pf.HMC(0.4, 5)),
    "hmc long": ("gaussian-dense-32", pf.HMC(0.35, 3)),
}  # fmt: skip


def p_value(law, x, seed=1000):
    """The smallest p-value over coordinates and the log-density, against fresh exact draws."""
    fresh = law.sample(len(x), seed=seed, dtype=torch.float64)
    pairs = [(x[:, i].double(), fresh[:, i]) for i in range(x.shape[1])]
    pairs.append((law.log_density(x.double()), law.log_density(fresh)))
    return min(stats.ks_2samp(a.numpy(), b.numpy()).pvalue for a, b in pairs)


def after(law, kernel, *, n=N, n_steps=15, dtype=torch.float32, target=None):
    start = law.sample(n, seed=1).to(dtype)
    chains = pf.sample(target or law, kernel, start, n_steps=n_steps, store="stats", seed=2)
    assert (chains.x != start).any(1).float().mean() > 0.5, "most chains must move at all"
    return chains


@pytest.mark.parametrize("case", CASES)
def test_native_runs_leave_the_law_invariant(case):
    name, kernel = CASES[case]
    law = ZOO[name]
    chains = after(law, kernel)
    assert 0.1 < chains.accept_rate.mean() < 0.995, "an exact test needs refusals"
    assert chains.n_nonfinite.sum() == 0
    assert p_value(law, chains.x) > P_LIMIT


@pytest.mark.parametrize("case", [c for c in CASES if "long" not in c])
def test_torch_targets_take_the_same_steps(case):
    name, kernel = CASES[case]
    law, n = ZOO[name], 200
    start = law.sample(n, seed=3, dtype=torch.float64)
    native = pf.sample(law, kernel, start, n_steps=12, seed=4)
    torch_one = pf.sample(law.torch_log_density, kernel, start, n_steps=12, seed=4)
    # in float64 a decision differs only where log u and log r agree to rounding
    assert torch.allclose(native.draws, torch_one.draws, rtol=1e-9, atol=1e-9)
    assert torch.allclose(native.log_density, torch_one.log_density, rtol=1e-8, atol=1e-8)
    assert torch.allclose(native.accept_rate, torch_one.accept_rate, atol=1e-8)


@pytest.mark.parametrize("case", ["random-walk plane", "mala plane", "hmc plane", "autoregressive"])
def test_a_slightly_wrong_target_fails(case):
    # The same kernels on a law that is 10 percent too wide: what the tests above would see.
    name, kernel = CASES[case]
    law = ZOO[name]
    chains = after(law, kernel, n_steps=60, target=lambda x: law.torch_log_density(x) / 1.2)
    assert p_value(law, chains.x) < P_LIMIT


def test_an_ignored_asymmetry_fails_and_the_right_one_does_not():
    # y = x exp(s xi) is not symmetric: the ratio needs the factor y / x.
    law = torch.distributions.Gamma(3.0, 1.0)

    class Multiply(torch.nn.Module):
        def __init__(self, right):
            super().__init__()
            self.right = right

        def sample(self, x):
            return x * torch.exp(0.7 * torch.randn_like(x))

        def log_prob(self, y, x):
            value = torch.distributions.Normal(x.log(), 0.7).log_prob(y.log())[:, 0]
            return value - y[:, 0].log() if self.right else value

    start = law.sample((N, 1))

    def p_after(proposal):
        kernel = pf.MetropolisHastings(proposal)
        chains = pf.sample(
            lambda x: law.log_prob(x[:, 0]), kernel, start, n_steps=20, store="last", seed=2
        )
        return stats.kstest(chains.x[:, 0].numpy(), lambda v: stats.gamma.cdf(v, 3)).pvalue

    torch.manual_seed(0)
    start = law.sample((N, 1))
    assert p_after(Multiply(right=True)) > P_LIMIT
    assert p_after(pf.mcmc.LogNormal(0.7)) > P_LIMIT
    assert p_after(Multiply(right=False)) < P_LIMIT


@pytest.mark.parametrize("is_right", [True, False])
def test_independence_needs_the_density_of_its_proposal(is_right):
    law = ZOO["gaussian-plane"]
    wide = torch.distributions.MultivariateNormal(torch.ones(2), 2.0 * torch.eye(2))

    class Proposal:
        def sample(self, n):
            return wide.sample((n,))

        def log_prob(self, x):
            value = wide.log_prob(x)
            return value if is_right else 0.3 * value

    chains = after(law, pf.Independence(Proposal()), n_steps=25)
    assert (p_value(law, chains.x) > P_LIMIT) == is_right


def test_the_log_normal_proposal_natively():
    # A native target cut to the positive numbers: steps stay positive, the law is the half normal.
    law = pf.targets.Gaussian(torch.zeros(1), scale=torch.ones(1))
    start = law.sample(N, seed=1).abs()
    chains = pf.sample(
        law, pf.MetropolisHastings(pf.mcmc.LogNormal(0.9)), start, n_steps=20, store="last", seed=2
    )
    assert (chains.x > 0).all()
    assert stats.kstest(chains.x[:, 0].numpy(), stats.halfnorm.cdf).pvalue > P_LIMIT


def test_without_its_correction_mala_fails():
    law = ZOO["gaussian-plane"]
    langevin = pf.sample(
        law, pf.Langevin(0.1), law.sample(N, seed=1), n_steps=30, store="last", seed=2
    )
    assert p_value(law, langevin.x) < P_LIMIT  # the bias that MALA removes


@pytest.mark.parametrize("beta", [0.5, 2.0])
@pytest.mark.parametrize("kernel", [pf.RandomWalk, pf.MALA])
def test_beta_samples_the_power_of_the_density(kernel, beta):
    law = pf.targets.Gaussian(torch.zeros(3), scale=torch.ones(3))
    start = law.sample(N, seed=1) / math.sqrt(beta)
    chains = pf.sample(law, kernel(0.7, beta=beta), start, n_steps=30, store="last", seed=2)
    for i in range(3):
        z = chains.x[:, i].double() * math.sqrt(beta)
        assert stats.kstest(z.numpy(), "norm").pvalue > P_LIMIT


@pytest.mark.parametrize("friction", [0.3, 5.0])
@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_underdamped_positions_on_a_gaussian(friction, beta):
    # BAOAB samples positions of a harmonic oscillator exactly; velocities have variance
    # (1 - (h w / 2)^2) / beta. Both at stationarity, which starting there shows.
    h, n = 0.5, 100_000
    law = pf.targets.Gaussian(torch.zeros(1), scale=torch.ones(1))
    start = pf.random.normal(n, 1, seed=1, dtype=torch.float64) / math.sqrt(beta)
    velocity = pf.random.normal(n, 1, seed=7, dtype=torch.float64)
    velocity *= math.sqrt((1 - h**2 / 4) / beta)
    kernel = pf.UnderdampedLangevin(h, friction, beta, velocity)
    chains = pf.sample(law, kernel, start, n_steps=40, store="last", seed=2)
    for values, variance in ((chains.x, 1 / beta), (chains.kernel.velocity, (1 - h**2 / 4) / beta)):
        z = (values.square().mean().item() / variance - 1) / math.sqrt(2 / n)
        assert abs(z) < 5.5
    wrong = pf.sample(
        law, pf.UnderdampedLangevin(h, friction, 1.2 * beta, velocity), start, n_steps=40,
        store="last", seed=2,
    )  # fmt: skip
    assert abs(wrong.x.square().mean().item() * beta - 1) / math.sqrt(2 / n) > 11


@pytest.mark.filterwarnings("ignore:.*left the finite numbers:RuntimeWarning")
@pytest.mark.parametrize("written_in_torch", [False, True])
def test_a_warm_up_of_underdamped_langevin_finds_a_step_near_the_law(written_in_torch):
    law = pf.targets.DoubleWell(2, mu=0.0, b=1.0)
    target = law.torch_log_density if written_in_torch else law
    start = law.sample(N, seed=1, dtype=torch.float64)
    how = {"warmup": 60, "n_steps": 100, "store": "last", "seed": 2}
    chains = pf.sample(target, pf.UnderdampedLangevin(friction=1.5), start, **how)
    assert p_value(law, chains.x) > P_LIMIT
    # What a test would say of steps of that size, from what is known of their beginning and end.
    kernel, x, v = chains.kernel, chains.x, chains.kernel.velocity
    h = kernel.step_size
    after = pf.sample(target, kernel, x, n_steps=1, store="last", seed=3)
    y, w = after.x, after.kernel.velocity

    def energy(x, v):
        return v.square().sum(1) / 2 - law.log_density(x)

    kicked, noisy = v + h / 2 * law.score(x), w - h / 2 * law.score(y)
    heat = (noisy.square() - kicked.square()).sum(1) / 2
    accept = (energy(x, v) + heat - energy(y, w)).exp().clamp(max=1).mean()
    assert abs(accept - 0.99) < 0.004
    loose = pf.sample(
        target, pf.UnderdampedLangevin(friction=1.5, target_accept=0.75), start, **how
    )
    assert loose.kernel.step_size > 2 * h
    assert p_value(law, loose.x) < P_LIMIT


@pytest.mark.filterwarnings("ignore:.*left the finite numbers:RuntimeWarning")
def test_a_warm_up_of_underdamped_langevin_itself_leaves_the_law():
    # It refuses what a Metropolis test does: of steps so long, half. What the few steps leave in
    # which each chain has a step size of its own is gone at the end.
    law = ZOO["double-well"]
    start = law.sample(N, seed=1, dtype=torch.float64)
    kernel = pf.UnderdampedLangevin(target_accept=0.5)
    states = []
    warm = pf.sample(
        law, kernel, start, warmup=200, n_steps=80, store="last", seed=2,
        callback=lambda step, x: states.append(x.clone()) if step == 200 else None,
    )  # fmt: skip
    assert p_value(law, states[0]) > P_LIMIT
    assert p_value(law, warm.x) < P_LIMIT  # without the test


def test_annealing_follows_the_exact_variance():
    # On U = x^2 / 2 the variance obeys v' = (1 - h)^2 v + 2 h / beta_k.
    h, n, betas = 0.2, 200_000, torch.linspace(0.2, 4.0, 25)
    law = pf.targets.Gaussian(torch.zeros(1), scale=torch.ones(1))
    kernels = [pf.AnnealedLangevin(h, betas), pf.AnnealedLangevin(h, lambda k: float(betas[k]))]
    runs = [
        pf.sample(t, k, torch.zeros(n, 1), n_steps=25, store="last", seed=2).x
        for t in (law, law.torch_log_density)
        for k in kernels
    ]
    v = 0.0
    for beta in betas.tolist():
        v = (1 - h) ** 2 * v + 2 * h / beta

    def z(x):
        return abs(x.double().square().mean().item() / v - 1) / math.sqrt(2 / n)

    assert z(runs[0]) < 5.5
    late = torch.cat((betas[:1], betas[:-1]))  # each temperature a step too late
    wrong = pf.AnnealedLangevin(h, late)
    assert z(pf.sample(law, wrong, torch.zeros(n, 1), n_steps=25, store="last", seed=2).x) > 5.5
    assert torch.equal(runs[0], runs[1])
    assert all(torch.allclose(runs[0], r, atol=1e-5) for r in runs[2:])
    later = pf.sample(law, kernels[0], runs[0], n_steps=3, first_step=25, store="last", seed=2).x
    last = pf.sample(law, pf.Langevin(h, float(betas[-1])), runs[0], n_steps=3, first_step=25,
                     store="last", seed=2).x  # fmt: skip
    assert torch.equal(later, last)  # the last temperature goes on


def test_rotating_modes_are_all_found():
    # Weights of eight modes from one point, by proposals that know where they are.
    law = ring_of_modes()
    wide = pf.targets.Gaussian(torch.zeros(2), scale=torch.full((2,), 3.0))
    chains = pf.sample(
        law, pf.Independence(wide), torch.zeros(N, 2) + 4.0, n_steps=120, store="last", seed=3
    )
    nearest = torch.cdist(chains.x.double(), law.means).argmin(1)
    counts = torch.bincount(nearest, minlength=8).double()
    assert stats.chisquare(counts.numpy()).pvalue > 1e-6
