# SPDX-License-Identifier: Apache-2.0
"""Markov kernels in the driver: bits, statistics, warm-up."""

import math

import pytest
import torch

import pushforward as pf
from conftest import ZOO

KERNELS = {
    "langevin": pf.Langevin(0.05),
    "annealed": pf.AnnealedLangevin(0.05, torch.linspace(0.5, 2.0, 20)),
    "underdamped": pf.UnderdampedLangevin(0.2, 1.0),
    "random-walk": pf.RandomWalk(0.5),
    "random-walk-dense": pf.RandomWalk(torch.tensor([[0.5, 0.0], [0.2, 0.4]])),
    "autoregressive": pf.MetropolisHastings(pf.mcmc.Autoregressive(0.7, 1.2)),
    "mala": pf.MALA(0.3),
    "hmc": pf.HMC(0.4, 3),
    "hmc-dense": pf.HMC(0.6, 3, metric=torch.tensor([[1.0, 0.2], [0.2, 0.3]])),
}
LAW = ZOO["gaussian-plane"]
TARGETS = {"native": LAW, "torch": pf.Energy(lambda x: -LAW.torch_log_density(x))}


def start(n=37, seed=0):
    return LAW.sample(n, seed=seed)


def same(a, b):
    pairs = [(getattr(a, k), getattr(b, k)) for k in ("x", "draws", "log_density", "mean", "var")]
    pairs += [(a.accept_rate, b.accept_rate), (a.ess, b.ess), (a.mcse, b.mcse)]
    return all(
        (p is None and q is None) or torch.equal(p.nan_to_num(), q.nan_to_num()) for p, q in pairs
    )


@pytest.fixture(params=KERNELS)
def kernel(request):
    return KERNELS[request.param]


@pytest.fixture(params=TARGETS)
def target(request):
    return TARGETS[request.param]


# ---- bits ----------------------------------------------------------------------------------------


def test_runs_go_on_bit_for_bit(target, kernel):
    whole = pf.sample(target, kernel, start(), n_steps=20, seed=3)
    first = pf.sample(target, kernel, start(), n_steps=7, seed=3)
    rest = pf.sample(target, first.kernel, first.x, n_steps=13, seed=3, first_step=first.next_step)
    assert torch.equal(whole.draws, torch.cat((first.draws, rest.draws)))


def test_chains_split_over_calls_bit_for_bit(target, kernel):
    whole = pf.sample(target, kernel, start(), n_steps=9, seed=3)
    parts = [
        pf.sample(target, kernel, start()[a:b], n_steps=9, seed=3, chain_offset=a)
        for a, b in ((0, 16), (16, 37))
    ]
    assert torch.equal(whole.draws, torch.cat([p.draws for p in parts], 1))
    if whole.accept_rate is not None:
        assert torch.equal(whole.accept_rate, torch.cat([p.accept_rate for p in parts]))


@pytest.mark.parametrize("threads", [2, 8])
def test_threads_do_not_change_a_bit(kernel, threads, restore_threads):
    x = start(3000)
    torch.set_num_threads(1)
    one = pf.sample(LAW, kernel, x, n_steps=12, seed=3)
    torch.set_num_threads(threads)
    assert same(one, pf.sample(LAW, kernel, x, n_steps=12, seed=3))


def test_chunks_do_not_change_a_bit(target, kernel, monkeypatch):
    import pushforward.pacing as pacing

    call = {"n_steps": 41, "burn_in": 3, "thin": 3, "covariance": True, "seed": 3}
    whole = pf.sample(target, kernel, start(), **call)
    monkeypatch.setattr(pacing, "SECONDS", 0.0)  # one step a chunk
    pieces = pf.sample(target, kernel, start(), **call)
    assert same(whole, pieces)
    assert torch.equal(whole.cov, pieces.cov)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33])
def test_ragged_numbers_of_chains(kernel, dtype, n):
    x = start(33).to(dtype)
    whole = pf.sample(LAW, kernel, x, n_steps=5, seed=3)
    part = pf.sample(LAW, kernel, x[:n], n_steps=5, seed=3)
    assert torch.equal(part.draws, whole.draws[:, :n])


@pytest.mark.parametrize("name", ["random-walk", "mala", "hmc"])
def test_native_and_torch_targets_accept_alike(name):
    a, b = (
        pf.sample(t, KERNELS[name], start().double(), n_steps=30, seed=2) for t in TARGETS.values()
    )
    assert torch.allclose(a.draws, b.draws, rtol=0, atol=1e-10)
    assert torch.allclose(a.accept_rate, b.accept_rate, atol=1e-10)
    assert torch.allclose(a.accept_var, b.accept_var, atol=1e-10)


# ---- statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_statistics_are_those_of_the_draws(target, kernel, dtype, atol):
    # States are added up in groups, whose sums are of their type.
    x = start().to(dtype)
    chains = pf.sample(target, kernel, x, n_steps=37, burn_in=2, covariance=True, seed=5)
    draws = chains.draws.double()
    assert torch.allclose(chains.mean, draws.mean((0, 1)), atol=atol)
    assert torch.allclose(chains.var, draws.var((0, 1)), atol=atol)
    assert torch.allclose(chains.cov, torch.cov(draws.flatten(0, 1).T), atol=1e-8)
    expected = pf.diagnostics.tally(
        chains.draws, batch=chains.tallies.batch, shift=chains.tallies.shift
    )
    for name in ("total", "squares", "half_total", "half_squares", "batch_squares", "open_total"):
        ours, theirs = getattr(chains.tallies, name), getattr(expected, name)
        assert torch.allclose(ours, theirs, rtol=atol, atol=atol), name


def test_statistics_without_draws_are_the_same(target, kernel):
    call = {"n_steps": 64, "seed": 5}
    draws = pf.sample(target, kernel, start(), **call)
    stats = pf.sample(target, kernel, start(), store="stats", **call)
    assert stats.draws is None
    assert torch.equal(draws.mean, stats.mean)
    assert torch.equal(draws.mcse, pf.diagnostics.mcse(draws.draws))
    assert torch.equal(stats.mcse, pf.diagnostics.streaming_mcse(draws.tallies))
    assert torch.equal(stats.ess, pf.diagnostics.streaming_ess(draws.tallies))
    assert torch.equal(stats.rhat, pf.diagnostics.streaming_rhat(draws.tallies))
    assert torch.equal(draws.rhat, pf.diagnostics.rhat(draws.draws))
    last = pf.sample(target, kernel, start(), store="last", **call)
    assert last.mean is last.rhat is last.ess is last.mcse is None
    assert torch.equal(last.x, stats.x)


def test_acceptance_is_the_mean_probability():
    # On N(0, 1) with scale s, E min(1, r) = (2 / pi) atan(2 / s).
    law, n = pf.targets.Gaussian(torch.zeros(1), scale=torch.ones(1)), 20_000
    for scale in (0.5, 2.0, 6.0):
        chains = pf.sample(law, pf.RandomWalk(scale), law.sample(n, seed=1), n_steps=20, seed=2)
        error = chains.accept_rate.std() / math.sqrt(n)
        exact = 2 / math.pi * math.atan(2 / scale)
        assert abs(chains.accept_rate.mean() - exact) < 5.5 * error
        moved = (chains.draws[1:] != chains.draws[:-1]).double().mean()
        assert abs(moved - exact) < 0.01
        assert ((chains.accept_var >= 0) & (chains.accept_var <= 0.27)).all()


def test_error_bars_cover_the_truth():
    # z-scores of the mean of 300 independent runs of 4 chains: their spread is 1.
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    z = []
    for seed in range(150):
        x = law.sample(4, seed=seed)
        chains = pf.sample(law, pf.MALA(0.5), x, n_steps=2000, store="stats", seed=seed)
        z.append(chains.mean / chains.mcse)
    z = torch.cat(z)
    assert 0.8 < z.std() < 1.25  # 300 numbers: 4 percent a standard error


def test_to_arviz_summary_and_plot():
    arviz = pytest.importorskip("arviz")
    chains = pf.sample(LAW, pf.MALA(0.3), start(8), n_steps=200, seed=1)
    data = chains.to_arviz()
    assert dict(data.posterior.sizes)["chain"] == 8
    assert dict(data.posterior.sizes)["draw"] == 200
    assert float(arviz.rhat(data)["x"].max()) == pytest.approx(float(chains.rhat.max()), abs=1e-6)
    assert "x[0]" in str(chains.summary()) or "mean" in str(chains.summary())
    assert len(chains.plot().axes) == 4
    with pytest.raises(ValueError, match="draws"):
        pf.sample(LAW, pf.MALA(0.3), start(8), n_steps=9, store="stats", seed=1).to_arviz()


@pytest.mark.parametrize(
    "kernel", [pf.Langevin(0.1), pf.MALA(0.1), pf.UnderdampedLangevin(0.1, 1.0), pf.RandomWalk(1.0)]
)
def test_a_torch_target_is_evaluated_once_a_step(kernel):
    calls = []

    def law(x):
        calls.append(1)
        return -0.5 * x.square().sum(1)

    pf.sample(law, kernel, torch.zeros(5, 2), n_steps=20, store="last", seed=1)
    assert 20 <= len(calls) <= 21


# ---- warm-up -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "accept"),
    [(pf.RandomWalk(), 0.234), (pf.MALA(), 0.574), (pf.HMC(n_leapfrog=5, metric="unit"), 0.8)],
    ids=["random-walk", "mala", "hmc"],
)
@pytest.mark.parametrize("kind", TARGETS)
def test_warm_up_reaches_the_target_acceptance(kernel, accept, kind):
    law = pf.targets.Gaussian(torch.zeros(20), scale=torch.linspace(0.5, 2, 20))
    target = law if kind == "native" else law.torch_log_density
    x = torch.zeros(64, 20)
    chains = pf.sample(target, kernel, x, warmup=300, n_steps=100, seed=1)
    assert abs(chains.accept_rate.mean() - accept) < 0.06
    again = pf.sample(target, chains.kernel, chains.x, n_steps=100, seed=2)
    assert abs(again.accept_rate.mean() - accept) < 0.06


@pytest.mark.parametrize("kernel", [pf.RandomWalk, pf.MALA, pf.HMC, pf.NUTS])
def test_the_target_acceptance_may_be_chosen(kernel):
    law = pf.targets.Gaussian(torch.zeros(10), scale=torch.ones(10))
    x = law.sample(100, seed=0)
    chains = pf.sample(law, kernel(target_accept=0.7), x, warmup=300, n_steps=100, seed=1)
    assert abs(chains.accept_rate.mean() - 0.7) < 0.07
    assert chains.kernel.target_accept == 0.7


@pytest.mark.parametrize(
    "kernel", [pf.RandomWalk, pf.MALA, pf.UnderdampedLangevin, pf.HMC, pf.NUTS]
)
def test_a_target_acceptance_is_checked(kernel):
    for wrong in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="target_accept"):
            kernel(target_accept=wrong)
    with pytest.raises(TypeError, match="target_accept"):
        kernel(target_accept="high")


def test_rounding_of_large_log_densities_does_not_shrink_steps():
    found = [
        pf.sample(
            lambda x, c=c: c - x.square().sum(1) / 2, pf.UnderdampedLangevin(), torch.zeros(100, 3),
            warmup=300, n_steps=1, seed=0,
        ).kernel.step_size
        for c in (0.0, 1e6)
    ]  # fmt: skip
    assert found[0] < found[1] < 3 * found[0]


@pytest.mark.parametrize("metric", ["dense", "diagonal"])
def test_warm_up_finds_the_metric(metric):
    scale = torch.logspace(-2, 2, 8)
    law = pf.targets.Gaussian(torch.arange(8.0), scale=scale)
    kernel = pf.HMC(n_leapfrog=4, metric=metric)
    chains = pf.sample(law, kernel, torch.zeros(100, 8), warmup=400, n_steps=100, seed=1)
    found = chains.kernel.metric if metric == "diagonal" else chains.kernel.metric.diagonal()
    assert torch.allclose(found.sqrt(), scale.double(), rtol=0.15)
    assert torch.allclose(chains.var.sqrt(), scale.double(), rtol=0.1)
    assert (chains.rhat < 1.05).all()
    plain = pf.sample(law, pf.HMC(n_leapfrog=4, metric="unit"), torch.zeros(100, 8), warmup=400,
                      n_steps=100, seed=1)  # fmt: skip
    assert plain.rhat.max() > 1.5  # what the metric is for


def test_warm_up_starts_anywhere():
    law = pf.targets.Gaussian(torch.full((3,), 1e4), scale=torch.full((3,), 1e-3))
    chains = pf.sample(law, pf.HMC(n_leapfrog=8), torch.full((50, 3), 1e4).double(), warmup=500,
                       n_steps=200, seed=1)  # fmt: skip
    assert (chains.rhat < 1.05).all()


def test_jitter_breaks_periods():
    # Trajectories of one period of a Gaussian end where they began.
    law = pf.targets.Gaussian(torch.zeros(3), scale=torch.ones(3))
    kernels = [pf.HMC(2 * math.pi / 60, 60, jitter=jitter) for jitter in (0.0, 0.2)]
    still, moving = (
        pf.sample(law, k, law.sample(50, seed=0), n_steps=100, seed=1) for k in kernels
    )
    assert still.ess.max() < 0.2 * moving.ess.min()


def test_warm_up_errors_and_warnings():
    with pytest.raises(ValueError, match=r"warmup: expected 0 for Langevin"):
        pf.sample(LAW, pf.Langevin(0.1), start(), warmup=10, n_steps=5)
    with pytest.raises(ValueError, match=r"step_size: expected one for MALA"):
        pf.sample(LAW, pf.MALA(), start(), n_steps=5)
    with pytest.raises(ValueError, match=r"step_size: expected one for UnderdampedLangevin"):
        pf.sample(LAW, pf.UnderdampedLangevin(), start(), n_steps=5)
    with pytest.raises(ValueError, match=r"scale: expected one for RandomWalk, since warmup"):
        pf.sample(LAW, pf.RandomWalk(), start(), n_steps=5)
    with pytest.warns(RuntimeWarning, match="too few to adapt"):
        pf.sample(LAW, pf.MALA(), start(), warmup=5, n_steps=5)
