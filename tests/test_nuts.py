# SPDX-License-Identifier: Apache-2.0
"""The no-U-turn sampler: against a plain one for a single chain; splits, warm-up, limits.

Seeds are fixed. A statistic is compared in units of its standard error; the bound of 5.5 is a
false alarm in 3e7 for one comparison, below 1e-5 for the hundred or so here.
"""

import math

import pytest
import torch

import pushforward as pf
from conftest import AsTorch
from posteriors import posterior
from pushforward.mcmc.adaptation import windows
from pushforward.mcmc.nuts import EARLY_DEEPEST

SIGMAS = 5.5
DOUBLE = {"dtype": torch.float64}


# ---- a plain sampler for one chain ---------------------------------------------------------------


def turns(momenta, half):
    """Whether a stretch of momenta has turned, within or across its two halves."""

    def turned(stretch):
        total = sum(stretch)
        return not (total @ stretch[0] > 0 and total @ stretch[-1] > 0)

    return turned(momenta) or turned(momenta[: half + 1]) or turned(momenta[half - 1 :])


def add_logs(a, b):
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def plain_step(law, x, h, factor, depth, *, seed, step, chain):
    """One step, with all points of the trajectory in lists: state, acceptance, divergence."""
    where = {"seed": seed, "chain_offset": chain, **DOUBLE}
    r = pf.random.normal(1, len(x), purpose="momentum", start=step * len(x), **where)[0]
    u = pf.random.uniform(1, 2**depth, purpose="tree", start=step * 2**depth, **where)[0].tolist()

    def pulled(x):
        return factor.T @ law.score(x[None])[0]

    def energy(x, r):
        return (-law.log_density(x[None])[0] + 0.5 * r @ r).item()

    start, weight, accepted, bits = energy(x, r), 0.0, [], u[0]
    points, chosen = [(x, r)], x
    for d in range(depth):
        bits = 2 * bits
        forward = bits > 1
        bits -= forward
        e, (y, q) = (h, points[-1]) if forward else (-h, points[0])
        new, new_weight, candidate = [], None, None
        for i in range(2**d):
            q = q + 0.5 * e * pulled(y)
            y = y + e * factor @ q
            q = q + 0.5 * e * pulled(y)
            gain = start - energy(y, q)
            accepted.append(math.exp(min(gain, 0)) if gain < math.inf else 0.0)
            if not -1000 <= gain < math.inf:
                return chosen, sum(accepted) / len(accepted), True
            new_weight = gain if i == 0 else add_logs(new_weight, gain)
            if i == 0 or math.log(u[2**d + i]) <= gain - new_weight:
                candidate = y
            new.append((y, q))
            for size in (2**j for j in range(1, d + 1) if (i + 1) % 2**j == 0):
                if turns([q for _, q in new[-size:]], size // 2):
                    return chosen, sum(accepted) / len(accepted), False
        if math.log(u[2**d]) <= new_weight - weight:
            chosen = candidate
        weight = add_logs(weight, new_weight)
        points = points + new if forward else new[::-1] + points
        if turns([q for _, q in points], len(points) // 2):
            break
    return chosen, sum(accepted) / len(accepted), False


class Quartic:
    """A law that is not Gaussian, in three coordinates."""

    def log_density(self, x):
        return -0.5 * (x[:, :1] - x).square().sum(1) - 0.1 * x.pow(4).sum(1)

    def score(self, x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(self.log_density(x).sum(), x)[0]


@pytest.mark.parametrize("h", [0.07, 0.3, 1.5])
@pytest.mark.parametrize("metric", ["unit", "diagonal", "dense"])
def test_agrees_with_the_plain_sampler(h, metric):
    covariance = torch.tensor([1.0, 2.0, 0.5], **DOUBLE)
    if metric == "dense":
        covariance = covariance.diag() + 0.3
    factor = torch.eye(3, **DOUBLE)
    if metric != "unit":
        factor = covariance.sqrt().diag() if metric == "diagonal" else torch.linalg.cholesky(covariance)  # fmt: skip
    law, n = Quartic(), 8
    kernel = pf.NUTS(h, max_depth=6, metric="unit" if metric == "unit" else covariance)
    x = pf.random.normal(n, 3, seed=1, **DOUBLE) * 2
    chains = pf.sample(law, kernel, x, n_steps=4, seed=3, chain_offset=5, first_step=2)
    for c in range(n):
        y, accept = x[c], 0.0
        for k in range(4):
            y, a, _ = plain_step(law, y, h, factor, 6, seed=3, step=2 + k, chain=5 + c)
            accept += a / 4
            assert torch.allclose(chains.draws[k, c], y, atol=1e-9), (c, k)
        assert chains.accept_rate[c].item() == pytest.approx(accept, abs=1e-9)


def test_each_chain_has_its_own_step_size():
    h = torch.tensor([0.1, 0.9, 0.3], **DOUBLE)
    x = torch.ones(3, 3, **DOUBLE)
    got = pf.sample(Quartic(), pf.NUTS(h, metric="unit"), x, n_steps=3, seed=1).x
    for c in range(3):
        y = x[c]
        for k in range(3):
            y = plain_step(Quartic(), y, h[c].item(), torch.eye(3, **DOUBLE), 10, seed=1, step=k, chain=c)[0]  # fmt: skip
        assert torch.allclose(got[c], y, atol=1e-9)


# ---- splits, phases, limits ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", ["unit", "dense"])
def test_splits_do_not_change_a_bit(dtype, metric):
    dim, n = 5, 37
    a = pf.random.normal(dim, dim, seed=9, **DOUBLE)
    kernel = pf.NUTS(0.4, metric="unit" if metric == "unit" else a @ a.T + torch.eye(dim))
    x = pf.random.normal(n, dim, seed=1, dtype=dtype)

    def law(x):  # sums and products, whose bits do not depend on the place in a tensor
        terms = -0.25 * (x * x) * (x * x) - 0.3 * x * x.roll(1, 1)
        return terms[:, 0] + terms[:, 1] + terms[:, 2] + terms[:, 3] + terms[:, 4]

    whole = pf.sample(law, kernel, x, n_steps=6, seed=4)
    parts = [
        pf.sample(law, kernel, x[i:j], n_steps=6, seed=4, chain_offset=i)
        for i, j in ((0, 1), (1, 20), (20, n))
    ]
    assert torch.equal(whole.draws, torch.cat([p.draws for p in parts], 1))
    assert torch.equal(whole.accept_rate, torch.cat([p.accept_rate for p in parts]))
    first = pf.sample(law, kernel, x, n_steps=2, seed=4)
    second = pf.sample(law, first.kernel, first.x, n_steps=4, seed=4, first_step=first.next_step)
    assert torch.equal(whole.draws, torch.cat((first.draws, second.draws)))
    assert torch.equal(whole.log_density, torch.cat((first.log_density, second.log_density)))


def test_warm_up_finds_the_acceptance_that_it_aims_at():
    scale = torch.linspace(0.1, 3, 12)
    law = pf.targets.Gaussian(torch.zeros(12), scale=scale)
    start = 5 * pf.random.normal(100, 12, seed=1)
    chains = pf.sample(AsTorch(law), pf.NUTS(), start, warmup=150, n_steps=40, seed=2)
    assert abs(chains.accept_rate.mean().item() - 0.8) < 0.05
    assert torch.allclose(chains.kernel.metric.diagonal().sqrt(), scale.double(), rtol=0.1)
    error = (chains.mean / scale).abs() * math.sqrt(100 * 40 / 2)
    assert error.max() < SIGMAS


def test_a_long_energy_error_is_counted_as_divergent():
    law = posterior("eight-schools-centered")  # a funnel
    x = law.draw(200, 1)
    small = pf.sample(law.log_density, pf.NUTS(0.02, max_depth=4), x, n_steps=2, seed=1)
    large = pf.sample(law.log_density, pf.NUTS(1.0, max_depth=4), x, n_steps=2, seed=1)
    assert small.n_divergent.sum() < 5
    assert large.n_divergent.sum() > 100
    assert (large.n_divergent <= 2).all()


@pytest.mark.parametrize("depth", [1, 3])
def test_max_depth_is_honoured(depth):
    seen = []

    def law(x):
        seen.append(len(x))
        return -0.5 * x.square().sum(1)

    pf.sample(law, pf.NUTS(1e-3, max_depth=depth), torch.ones(3, 2), n_steps=2, seed=1)
    assert seen == [3] * (1 + 2 * (2**depth - 1))


def test_the_target_sees_all_chains_at_every_leaf():
    # It may hold data of each, here a centre: trees of most chains end long before the eighth's.
    centre, seen = torch.linspace(-3, 3, 8)[:, None] * torch.ones(2), []

    def law(x):
        seen.append(len(x))
        return -0.5 * (x - centre).square().sum(1)

    h = torch.full((8,), 1.2)
    h[7] = 0.01
    chains = pf.sample(law, pf.NUTS(h), centre + 0.5, n_steps=30, seed=1)
    assert set(seen) == {8}
    away = pf.sample(
        lambda x: -0.5 * x.square().sum(1), pf.NUTS(h), torch.full((8, 2), 0.5), n_steps=30, seed=1
    )
    assert torch.allclose(chains.draws - centre, away.draws, atol=1e-3)
    assert len(seen) > 200


def test_a_chain_without_a_density_leaves_the_others_alone():
    def law(x):
        value = -0.5 * x.square().sum(1)
        return value.where(torch.arange(len(x)) != 2, torch.nan)

    with pytest.warns(RuntimeWarning, match="1 of 5 chains"):
        chains = pf.sample(law, pf.NUTS(0.3), torch.full((5, 2), 3.0), n_steps=100, seed=1)
    assert chains.n_nonfinite.tolist() == [0, 0, 100, 0, 0]
    assert chains.held.tolist() == [False, False, True, False, False]


def test_eight_schools():
    law = posterior("eight-schools-noncentered")
    start = 0.5 * pf.random.normal(128, law.dim, seed=1)
    chains = pf.sample(law.log_density, pf.NUTS(), start, warmup=120, n_steps=60, seed=2)
    draws = law.quantities(chains.draws.double().flatten(0, 1)).unflatten(0, (60, 128))
    spread = draws.mean(0).std(0) / math.sqrt(128)  # chains are independent of each other
    error = (draws.mean((0, 1)) - law.reference_mean) / spread
    assert error.abs().max() < SIGMAS
    # spread between chains against the law's own: more than a tenth of the draws are effective
    assert (spread / law.reference_sd).max() < 1 / math.sqrt(0.1 * 60 * 128)


def test_trajectories_are_short_until_there_is_a_metric():
    calls = []

    def law(x):
        calls.append(len(x))
        return -0.5 * (x.square() * torch.tensor([1.0, 1e8])).sum(1)

    def leapfrogs(warmup, **more):
        calls.clear()
        pf.sample(law, pf.NUTS(**more), torch.ones(4, 2), warmup=warmup, n_steps=0, seed=1)
        return len(calls)

    early = windows(75)[1][0]  # steps until the first metric, after which there may be 2**10
    assert early == 55
    assert leapfrogs(75) < early * 2**EARLY_DEEPEST + (75 - early) * 2**10 + 75
    assert leapfrogs(75, max_depth=3) < 75 * 2**3 + 75
    assert pf.sample(law, pf.NUTS(), torch.ones(4, 2), warmup=75, n_steps=0).kernel.max_depth == 10


def test_resumes_from_a_checkpoint(tmp_path):
    law, start = Quartic(), pf.random.normal(20, 3, seed=1)
    arguments = {"warmup": 30, "n_steps": 10, "seed": 3}
    whole = pf.sample(law, pf.NUTS(), start, **arguments)
    file, chunks = tmp_path / "run.ckpt", []

    def stop(*_):
        chunks.append(1)
        return len(chunks) % 3 == 0

    keep = {"checkpoint": file, "every": 7}
    for _ in range(2):
        pf.sample(law, pf.NUTS(), start, callback=stop, **keep, **arguments)
    part = pf.sample(law, pf.NUTS(), start, **keep, **arguments)
    assert torch.equal(part.draws, whole.draws)
    assert part.kernel.step_size == whole.kernel.step_size


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ({"max_depth": 0}, ValueError, "max_depth"),
        ({"max_depth": 21}, ValueError, "max_depth"),
        ({"max_depth": 2.0}, TypeError, "max_depth"),
        ({"step_size": -1.0}, ValueError, "step_size"),
        ({"metric": "round"}, ValueError, "metric"),
    ],
)
def test_bad_arguments_are_named(arguments, error, word):
    with pytest.raises(error, match=word):
        pf.NUTS(**{"step_size": 0.1, **arguments})


def test_no_chains_and_events_of_any_shape():
    law = pf.Energy(lambda x: 0.5 * x.square().sum((1, 2)))
    assert pf.sample(law, pf.NUTS(0.5), torch.zeros(0, 2, 3), n_steps=2, seed=1).x.shape == (
        0,
        2,
        3,
    )
    flat = pf.Energy(lambda x: 0.5 * x.square().sum(1))
    x = pf.random.normal(6, 4, seed=1)
    a = pf.sample(flat, pf.NUTS(0.5), x, n_steps=3, seed=1).draws
    b = pf.sample(law, pf.NUTS(0.5), x.reshape(6, 2, 2), n_steps=3, seed=1).draws
    assert torch.allclose(a, b.flatten(2), atol=1e-6)
