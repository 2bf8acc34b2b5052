# SPDX-License-Identifier: Apache-2.0
"""Simulation-based calibration, Gibbs sweeps, and six posteriors with reference means.

Calibration: parameters from the prior, data from the model, and the rank of the parameters among
draws of the posterior is uniform (S. Talts et al., 2018). Every chain has data of its own. The
limit of 1e-7 a histogram is a false alarm in 1e6 for these.
"""

import math

import pytest
import torch
from scipy import stats

import posteriors
import pushforward as pf


@pytest.fixture(autouse=True)
def one_thread(restore_threads):
    torch.set_num_threads(1)  # small tensors: a second thread costs more than it does


N, LEFT = 2000, 19  # data sets, and draws kept of each


def normals(*shape, seed):
    return pf.random.normal(shape[0], math.prod(shape[1:]), seed=seed, dtype=torch.float64).reshape(
        shape
    )


class NormalModel:
    """mu ~ N(0, 2^2), log sigma ~ N(0, 1/2^2), five observations."""

    def __init__(self, prior_scale=2.0):
        self.prior_scale = prior_scale
        self.truth = normals(N, 2, seed=1) * torch.tensor([2.0, 0.5])
        noise = normals(N, 5, seed=2)
        self.data = self.truth[:, :1] + self.truth[:, 1:].exp() * noise

    def log_density(self, x):
        mu, log_sigma = x[:, :1], x[:, 1:]
        z = (self.data - mu) * torch.exp(-log_sigma)
        prior = -0.5 * (mu / self.prior_scale) ** 2 - 2 * log_sigma**2
        return (prior - 5 * log_sigma)[:, 0] - 0.5 * (z * z).sum(1)


class LogisticModel:
    """Two standard normal coefficients, twelve answers."""

    def __init__(self):
        self.truth = normals(N, 2, seed=3)
        self.design = normals(N, 12, 2, seed=4)
        logits = (self.design * self.truth[:, None]).sum(2)
        u = pf.random.uniform(N, 12, seed=5, dtype=torch.float64)
        self.sign = torch.where(u < torch.sigmoid(logits), 1.0, -1.0)

    def log_density(self, x):
        logits = (self.design * x[:, None]).sum(2)
        return torch.nn.functional.logsigmoid(self.sign * logits).sum(1) - 0.5 * (x * x).sum(1)


def rank_p_values(model, kernel):
    chains = pf.sample(
        model, kernel, model.truth, warmup=150, burn_in=50, n_steps=LEFT * 12, thin=12, seed=6
    )
    ranks = (chains.draws < model.truth).sum(0)
    counts = [torch.bincount(ranks[:, i], minlength=LEFT + 1) for i in range(2)]
    return min(stats.chisquare(c.double().numpy()).pvalue for c in counts)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [pf.HMC(n_leapfrog=6), pf.MALA()], ids=["hmc", "mala"])
@pytest.mark.parametrize("model", [NormalModel, LogisticModel])
def test_ranks_are_uniform(model, kernel):
    # started from the truth, which is a draw of the posterior: no burn-in is needed for the law
    assert rank_p_values(model(), kernel) > 1e-7


@pytest.mark.slow
def test_a_wrong_prior_is_not_calibrated():
    assert rank_p_values(NormalModel(prior_scale=1.0), pf.HMC(n_leapfrog=6)) < 1e-7


class Pair:
    """Two standard normals of correlation rho; ``gamma`` makes the first conditional a bad law."""

    def __init__(self, rho, spread=1.0):
        self.rho, self.spread = rho, spread

    def log_density(self, x):
        a, b = x.T
        return -(a * a - 2 * self.rho * a * b + b * b) / (2 * (1 - self.rho**2))

    def conditional(self, i, x):
        scale = math.sqrt(1 - self.rho**2) * self.spread
        return torch.distributions.Normal(self.rho * x[:, 1 - i], scale)


def test_gibbs_sweeps_leave_the_law_invariant():
    n, rho = 20_000, 0.8
    z = pf.random.normal(n, 2, seed=1)
    start = torch.stack((z[:, 0], rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]), 1)

    def p_value(law):
        x = pf.sample(law, pf.mcmc.Gibbs(), start, n_steps=10, store="last", seed=2).x.double()
        whitened = (x[:, 1] - rho * x[:, 0]) / math.sqrt(1 - rho**2)
        return min(stats.kstest(v.numpy(), "norm").pvalue for v in (x[:, 0], x[:, 1], whitened))

    assert p_value(Pair(rho)) > 1e-8
    assert p_value(Pair(rho, spread=1.1)) < 1e-8
    whole = pf.sample(Pair(rho), pf.mcmc.Gibbs(), start[:50], n_steps=5, seed=3)
    part = pf.sample(Pair(rho), pf.mcmc.Gibbs(), start[20:50], n_steps=5, seed=3, chain_offset=20)
    assert torch.equal(whole.draws[:, 20:], part.draws)
    with pytest.raises(TypeError, match="conditional"):
        pf.sample(lambda x: -x.square().sum(1), pf.mcmc.Gibbs(), start, n_steps=1)


def test_gibbs_without_quantiles_reads_the_seed():
    class Gamma:
        def log_density(self, x):
            return torch.distributions.Gamma(3.0, 1.0).log_prob(x).sum(1)

        def conditional(self, i, x):
            return torch.distributions.Gamma(torch.full((len(x),), 3.0), 1.0)

    runs = [
        pf.sample(Gamma(), pf.mcmc.Gibbs(), torch.ones(5000, 2), n_steps=2, seed=4) for _ in "ab"
    ]
    assert torch.equal(runs[0].draws, runs[1].draws)
    assert stats.kstest(runs[0].x.flatten().numpy(), stats.gamma(3).cdf).pvalue > 1e-8


def assert_reaches_the_reference(p, kernel, x, **run):
    chains = pf.sample(p.log_density, kernel, x, seed=1, **run)
    values = torch.stack([p.quantities(d) for d in chains.draws])
    z = (values.mean((0, 1)) - p.reference_mean) / pf.diagnostics.mcse(values)
    assert (pf.diagnostics.rhat(values) < 1.01).all()
    assert (z.abs() < 5.5).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in posteriors.NAMES if n != "eight-schools-centered"])
def test_posteriors_reach_their_reference_means(name):
    # From far out: Kilpisjärvi's summers are then thousands of degrees away from the line.
    p = posteriors.posterior(name)
    x = 4 * pf.random.uniform(64, p.dim, seed=3, dtype=torch.float64) - 2
    assert_reaches_the_reference(p, pf.NUTS(), x, warmup=300, n_steps=400)


class Hierarchical:
    """A proposal for the centred eight schools: the effects from their law given the other two."""

    log_tau = torch.distributions.StudentT(4.0, 1.2, 1.4)
    mu = torch.distributions.Normal(4.4, 4.5)

    def effects(self, mu, log_tau):
        effect, error = (torch.tensor(v) for v in (posteriors.EFFECT, posteriors.ERROR))
        between = (-2 * log_tau)[:, None].exp()
        precision = error**-2 + between
        mean = (effect * error**-2 + mu[:, None] * between) / precision
        return torch.distributions.Normal(mean, precision.rsqrt())

    def sample(self, n):
        mu, log_tau = (law.sample((n,)).double() for law in (self.mu, self.log_tau))
        return torch.cat((self.effects(mu, log_tau).sample(), mu[:, None], log_tau[:, None]), 1)

    def log_prob(self, x):
        theta, mu, log_tau = x[:, :8], x[:, 8], x[:, 9]
        effects = self.effects(mu, log_tau).log_prob(theta).sum(1)
        return effects + self.mu.log_prob(mu) + self.log_tau.log_prob(log_tau)


def test_a_proposal_made_for_it_reaches_the_means_of_the_centred_eight_schools():
    p = posteriors.posterior("eight-schools-centered")
    assert_reaches_the_reference(
        p, pf.Independence(Hierarchical()), p.draw(64, 0).double(), n_steps=2000, burn_in=100
    )


@pytest.mark.soak  # what a kernel needs that knows nothing of the neck
@pytest.mark.filterwarnings("ignore:.*left the finite numbers")  # where it is narrowest
def test_hmc_reaches_the_means_of_the_centred_eight_schools():
    p = posteriors.posterior("eight-schools-centered")
    kernel = pf.HMC(n_leapfrog=8, jitter=0.99)
    assert_reaches_the_reference(
        p, kernel, p.draw(64, 0).double(), warmup=500, n_steps=40_000, thin=10
    )


@pytest.mark.slow
def test_the_centred_eight_schools_says_that_it_is_hard():
    # No step size follows its neck: divergences are counted, and R-hat stays above 1.01.
    p = posteriors.posterior("eight-schools-centered")
    start = p.draw(64, 0).double()
    chains = pf.sample(p.log_density, pf.NUTS(max_depth=7), start, warmup=100, n_steps=50, seed=1)
    assert chains.n_divergent.sum() > 20
    assert chains.rhat.max() > 1.01
