# SPDX-License-Identifier: Apache-2.0
"""The no-U-turn sampler against exact laws, and its native runs against those of torch.

Seeds are fixed. A statistic is compared in units of its standard error; the bound of 5.5 is a
false alarm in 3e7 for one comparison, below 1e-5 for the hundred or so here.
"""

import pytest
import torch
from scipy import stats

import pushforward as pf
from conftest import AsTorch
from pushforward.mcmc import nuts, trees

SIGMAS = 5.5
DOUBLE = {"dtype": torch.float64}


CORRELATED = pf.targets.Gaussian(
    torch.tensor([1.0, -1.0]), covariance=torch.tensor([[1.0, 0.9], [0.9, 1.0]], **DOUBLE)
)
MODES = pf.targets.GaussianMixture(
    torch.tensor([[-1.5, 0.0], [1.5, 0.5]]), scales=torch.tensor([1.0, 0.6])
)
FUNNEL = pf.targets.Funnel(3, scale=0.8)
LAWS = {"correlated": (CORRELATED, 0.6), "modes": (MODES, 0.9), "funnel": (FUNNEL, 0.5)}


def largest_error(x, exact):
    """Largest error, in standard errors, of moments and of Kolmogorov's statistic."""
    x, exact = x.double(), exact.double()
    center, scale = exact.mean(0), exact.std(0)
    worst = 0.0
    for power in (1, 2, 3):
        a, b = (((v - center) / scale).clamp(-4, 4) ** power for v in (x, exact))
        error = (a.mean(0) - b.mean(0)) / ((a.var(0) + b.var(0)) / len(a)).sqrt()
        worst = max(worst, error.abs().max().item())
    a, b = (((v - center) / scale).clamp(-4, 4).prod(1) for v in (x, exact))
    worst = max(worst, abs((a.mean() - b.mean()) / ((a.var() + b.var()) / len(a)).sqrt()).item())
    for i in range(x.shape[1]):
        p = stats.ks_2samp(x[:, i].numpy(), exact[:, i].numpy()).pvalue
        worst = max(worst, stats.norm.isf(max(p, 1e-300) / 2))
    return worst


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("n_steps", [1, 2])
def test_leaves_the_law_as_it_is(name, n_steps):
    law, h = LAWS[name]
    start = law.sample(25_000, seed=1)
    kernel = pf.NUTS(h, metric="unit")
    end = pf.sample(AsTorch(law), kernel, start, n_steps=n_steps, store="last", seed=2)
    assert 0.5 < end.accept_rate.mean() < 0.97  # so that the weights matter
    assert (end.x != start).any(1).double().mean() > 0.5
    assert largest_error(end.x, law.sample(25_000, seed=3)) < SIGMAS


@pytest.mark.parametrize("name", LAWS)
def test_native_runs_leave_the_law_as_it_is(name):
    law, h = LAWS[name]
    start = law.sample(50_000, seed=1)
    end = pf.sample(law, pf.NUTS(h, metric="unit"), start, n_steps=5, store="last", seed=2)
    assert largest_error(end.x, law.sample(50_000, seed=3)) < SIGMAS


class EqualWeights(trees.Trees):
    """A broken twin: each point of a trajectory is as good as another."""

    def _weigh(self, leaf, momentum, value, score):
        level = self._start - torch.sub(self._kinetic, momentum.square().sum(1), alpha=0.5)
        return super()._weigh(leaf, momentum, level, score)


class OnlyWholes(trees.Trees):
    """A broken twin: only whole trajectories are asked whether they have turned."""

    def _join(self, leaf, block):
        alive = self._alive
        joined = super()._join(leaf, block)
        self._alive = alive
        return joined


@pytest.mark.parametrize(
    ("broken", "name", "h"), [(EqualWeights, "correlated", 0.6), (OnlyWholes, "correlated", 0.6)]
)
def test_a_broken_twin_changes_the_law(broken, name, h, monkeypatch):
    monkeypatch.setattr(nuts, "Trees", broken)
    law, _ = LAWS[name]
    start = law.sample(25_000, seed=1)
    end = pf.sample(AsTorch(law), pf.NUTS(h, metric="unit"), start, n_steps=1, store="last", seed=2)
    assert largest_error(end.x, law.sample(25_000, seed=3)) > 1.5 * SIGMAS


def half_line(x):
    """A standard normal on x > 0; elsewhere there is nothing, or nothing that is a number."""
    inside = -0.5 * x.square().sum(1)
    outside = torch.where(x[:, 0] > -1, -torch.inf, torch.nan)
    return torch.where(x[:, 0] > 0, inside, outside.to(x))


def test_walls_and_nan_keep_the_law():
    start, exact = (pf.random.normal(25_000, 2, seed=s, **DOUBLE) for s in (1, 3))
    for x in (start, exact):
        x[:, 0].abs_()
    with pytest.warns(RuntimeWarning, match="left the finite numbers"):
        end = pf.sample(half_line, pf.NUTS(0.7), start, n_steps=2, store="last", seed=2)
    assert end.n_divergent.sum() > 5000
    assert (end.n_nonfinite <= end.n_divergent).all()  # a wall is no NaN
    assert 0 < end.n_nonfinite.sum() < end.n_divergent.sum()
    assert (end.x != start).any(1).float().mean() > 0.8
    assert end.x.isfinite().all()
    assert largest_error(end.x, exact) < SIGMAS


# ---- native runs ---------------------------------------------------------------------------------


def test_native_runs_are_those_of_torch_for_hundreds_of_steps():
    law, start = CORRELATED, torch.zeros(50, 2, **DOUBLE)
    kernel = pf.NUTS(0.3, metric=torch.tensor([[1.0, 0.5], [0.5, 1.0]], **DOUBLE))
    a, b = (pf.sample(t, kernel, start, n_steps=300, seed=2) for t in (law, AsTorch(law)))
    assert torch.allclose(a.draws, b.draws, atol=1e-12)
    assert torch.allclose(a.log_density, b.log_density, atol=1e-12)
    assert torch.allclose(a.accept_rate, b.accept_rate, atol=1e-12)
    assert torch.allclose(a.var, b.var, atol=1e-12)


@pytest.mark.parametrize("metric", ["unit", "diagonal"])
def test_native_and_torch_runs_agree_on_every_target(target, metric):
    start = target.sample(37, seed=1, dtype=torch.float64)
    given = torch.linspace(0.5, 2, target.dim, **DOUBLE) if metric == "diagonal" else "unit"
    kernel = pf.NUTS(0.4, max_depth=5, metric=given)
    a, b = (pf.sample(t, kernel, start, n_steps=8, seed=2) for t in (target, AsTorch(target)))
    assert torch.allclose(a.draws, b.draws, atol=1e-9)
    assert torch.equal(a.n_divergent, b.n_divergent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_native_splits_do_not_change_a_bit(target, dtype):
    start = target.sample(70, seed=1, dtype=dtype)
    kernel = pf.NUTS(0.5, max_depth=6, metric="unit")
    whole = pf.sample(target, kernel, start, n_steps=7, seed=4)
    parts = [
        pf.sample(target, kernel, start[i:j], n_steps=7, seed=4, chain_offset=i)
        for i, j in ((0, 1), (1, 35), (35, 70))
    ]
    assert torch.equal(whole.draws, torch.cat([p.draws for p in parts], 1))
    assert torch.equal(whole.accept_rate, torch.cat([p.accept_rate for p in parts]))
    first = pf.sample(target, kernel, start, n_steps=3, seed=4)
    second = pf.sample(target, kernel, first.x, n_steps=4, seed=4, first_step=first.next_step)
    assert torch.equal(whole.draws, torch.cat((first.draws, second.draws)))


def test_a_deep_native_tree():
    # 2**11 points and more do not turn at this step; the draw is far from the start nevertheless.
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    kernel = pf.NUTS(1e-3, max_depth=13, metric="unit")
    start = torch.ones(3, 2, **DOUBLE)
    a, b = (pf.sample(t, kernel, start, n_steps=1, seed=1) for t in (law, AsTorch(law)))
    assert torch.allclose(a.x, b.x, atol=1e-10)
    assert (a.x - start).abs().max() > 0.5


@pytest.mark.parametrize(
    "kernel", [pf.NUTS(0.4), pf.HMC(0.4, 3), pf.MALA(0.1), pf.MALA(0.1, beta=2.0)]
)
def test_an_energy_at_an_inverse_temperature(kernel):
    """exp(-beta U), beta times the kernel's own; the states are not those of twice it."""
    scale = torch.tensor([0.5, 2.0])
    beta = 4 * (kernel.beta if isinstance(kernel, pf.MALA) else 1.0)
    law = pf.targets.Gaussian(torch.zeros(2), scale=scale / beta**0.5)
    start = law.sample(4000, seed=1)
    energy = pf.Energy(lambda x: 0.5 * (x / scale).square().sum(1), beta=4.0)
    x = pf.sample(energy, kernel, start, n_steps=4, seed=2, store="last").x
    for i in range(2):
        assert stats.kstest(x[:, i] * beta**0.5 / scale[i], "norm").pvalue > 1e-6
        assert stats.kstest(x[:, i] * (2 * beta) ** 0.5 / scale[i], "norm").pvalue < 1e-6
