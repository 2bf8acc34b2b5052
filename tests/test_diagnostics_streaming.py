# SPDX-License-Identifier: Apache-2.0
"""Streaming diagnostics against direct sums and the exact autocorrelation time of AR(1) chains.

Seeds are fixed. A statistic is compared in units of its standard error; the bound of 5.5 is a
false alarm in 3e7 for one comparison, below 1e-5 for the few hundred here.
"""

import itertools
import math

import pytest
import torch

import pushforward as pf
from autoregressive import ar1, ar1_time
from pushforward import diagnostics

SIGMAS = 5.5


@pytest.mark.parametrize(("n", "batch"), [(10, 3), (11, 1), (12, 4), (5, 7)])
def test_tallies_are_their_sums(n, batch):
    x = ar1(n, 3, 0.5, seed=1)[..., None] * torch.tensor([1.0, 2.0]) + 3
    valid = pf.random.uniform(n, 3, seed=1) < 0.7
    t = diagnostics.tally(x, batch=batch, valid=valid, shift=x[1])
    for chain, i in itertools.product(range(3), range(2)):
        terms = [float(x[k, chain, i] - x[1, chain, i]) * bool(valid[k, chain]) for k in range(n)]
        sums = [sum(terms[k : k + batch]) for k in range(0, n // batch * batch, batch)]
        expected = {
            "total": sum(terms),
            "squares": sum(v**2 for v in terms),
            "half_total": sum(terms[: n // 2]),
            "half_squares": sum(v**2 for v in terms[: n // 2]),
            "batch_squares": sum(v**2 for v in sums),
            "open_total": sum(terms[n // batch * batch :]),
        }
        found = {name: getattr(t, name)[chain, i].item() for name in expected}
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert torch.equal(t.n_valid, valid.sum(0).double())
    assert torch.equal(t.half_valid, valid[: n // 2].sum(0).double())


def long_run_variance(x, batch):
    """n_chains * n_steps times the squared standard error of the mean, of each coordinate."""
    t = diagnostics.tally(x, batch=batch)
    return x.shape[0] * x.shape[1] * diagnostics.streaming_mcse(t).square()


def batch_bias(phi, n, batch):
    """What batch means of AR(1) find in expectation, as a part of the truth."""
    within = ar1_time(phi, batch) - ar1_time(phi, n) * batch / n
    return within / (1 - batch / n) / ar1_time(phi, n)


@pytest.mark.parametrize(
    ("n", "chains", "batch", "phi"),
    [(16_000, 1, 400, 0.9), (16_000, 4, 200, 0.5), (4_000, 16, 100, 0.9), (5_000, 4, 50, 0.0)],
)
def test_streaming_error_of_long_chains(n, chains, batch, phi):
    # By batches: short by batch_bias, with sqrt(2 / f) noise. The chains' means, which have one
    # degree of freedom each, may add a tenth, and in a few of a hundred runs much more.
    replicas = 200
    x = ar1(n, chains * replicas, phi, seed=4).reshape(n, chains, replicas) + 5
    ratio = long_run_variance(x, batch) / ar1_time(phi, n)
    noise = math.sqrt(2 / (chains * (n // batch - 1)))
    expected = batch_bias(phi, n, batch)
    assert expected > 0.85
    assert abs(ratio.mean().item() - expected) < 0.1 + SIGMAS * noise / math.sqrt(replicas)
    assert ((ratio - expected).abs() < 4 * noise + 0.1).double().mean() > 0.97
    z = (x.mean((0, 1)) - 5).square().mean() * n * chains / ar1_time(phi, n)
    assert abs(z.item() - 1) < SIGMAS * math.sqrt(2 / replicas)  # of the chains themselves
    ess = diagnostics.streaming_ess(diagnostics.tally(x, batch=batch))
    exact = n * chains / ar1_time(phi, n)
    assert (1 / ess).mean().item() * exact == pytest.approx(ratio.mean().item(), rel=0.05)


@pytest.mark.parametrize(
    ("n", "batch", "phi"), [(100, 10, 0.9), (100, 100, 0.9), (40, 1, 0.9), (3, 1, 0.5)]
)
def test_streaming_error_of_many_short_chains(n, batch, phi):
    # By the chains' means, exact for any n: a batch of one step alone would be wrong by tau.
    chains, replicas = 2000, 20
    x = ar1(n, chains * replicas, phi, seed=5).reshape(n, chains, replicas)
    ratio = long_run_variance(x, batch) / ar1_time(phi, n)
    noise = math.sqrt(2 / (chains - 1))
    # A bias that stays within two sigma of that noise is not seen, hence the last term.
    assert (abs(ratio - 1) < SIGMAS * noise + 2 * noise).all()


def test_steps_taken_for_independent_fail():
    # Batches of one step in one chain: the error bar that does not know of correlations.
    x = ar1(16_000, 200, 0.9, seed=4).reshape(16_000, 1, 200)
    broken = (long_run_variance(x, 1) / ar1_time(0.9)).mean().item()
    assert broken == pytest.approx(1 / ar1_time(0.9), rel=0.05)
    assert abs(broken - batch_bias(0.9, 16_000, 400)) > 0.5


def test_streaming_and_kept_draws_agree_on_chains_that_do_not_mix():
    x = ar1(10_000, 4, 0.5, seed=6) + 3 * torch.arange(4)
    t = diagnostics.tally(x, batch=100)
    assert diagnostics.streaming_rhat(t) > 2
    # A handful of independent draws, whichever way it is counted.
    assert 1 < diagnostics.streaming_ess(t) < 10
    assert 1 < diagnostics.ess(x, kind="mean") < 10


def test_shift_does_not_matter():
    x = ar1(1000, 4, 0.5, seed=7)
    near, far = (diagnostics.tally(x, batch=30, shift=torch.full((4,), s)) for s in (0.0, 1e4))
    for f in (diagnostics.streaming_rhat, diagnostics.streaming_ess, diagnostics.streaming_mcse):
        # (1e4)^2 * 1e3 terms * 1e-16 each: seven digits are left
        assert torch.allclose(f(near), f(far), rtol=1e-5)


def test_terms_that_are_not_valid():
    x = ar1(1000, 5, 0.6, seed=8)
    valid = torch.ones(1000, 5, dtype=torch.bool)
    everything = diagnostics.tally(x, batch=20)
    masked = diagnostics.tally(x, batch=20, valid=valid)
    valid[:, 2] = False
    without = diagnostics.tally(x, batch=20, valid=valid)
    others = diagnostics.tally(x[:, [0, 1, 3, 4]], batch=20)
    for f in (diagnostics.streaming_rhat, diagnostics.streaming_ess, diagnostics.streaming_mcse):
        assert torch.equal(f(masked), f(everything))
        assert torch.allclose(f(without), f(others), rtol=1e-12)
    # One in five left out at random: of independent draws, what is left is worth its number.
    y = ar1(5000, 400, 0.0, seed=9).reshape(5000, 4, 100)
    kept = pf.random.uniform(5000, 4, seed=9) < 0.8
    t = diagnostics.tally(y, batch=50, valid=kept, shift=torch.zeros(4, 100))
    ess = diagnostics.streaming_ess(t)
    assert (1 / ess).mean().item() * kept.sum().item() == pytest.approx(1.0, abs=0.1)


def test_too_little_to_say():
    one = ar1(10, 1, 0.5)
    assert diagnostics.streaming_ess(diagnostics.tally(one, batch=10)).isnan()
    assert diagnostics.streaming_mcse(diagnostics.tally(one, batch=7)).isnan()
    assert diagnostics.streaming_ess(diagnostics.tally(one, batch=5)).isfinite()
    none = diagnostics.tally(one[:, :0], batch=5)
    assert diagnostics.streaming_ess(none).isnan()
    assert diagnostics.streaming_rhat(none).isnan()


@pytest.mark.parametrize(("n_steps", "n_chains", "time"), [(20_000, 4, 500), (20_000, 1, 500)])
def test_errors_of_slow_chains_are_not_far_off(n_steps, n_chains, time):
    # Chains whose autocorrelation time is three square roots of their length, where batches of that
    # square root would show errors twice too small. 100 runs: the rms of z is known to 7 percent.
    phi, runs = (time - 1) / (time + 1), 100
    x = ar1(n_steps, runs * n_chains, phi, seed=5).reshape(n_steps, runs, n_chains)
    z = {}
    for name, batch in (("ours", pf.diagnostics.batch_size(n_steps)), ("root", 141)):
        errors = torch.tensor(
            [
                pf.diagnostics.streaming_mcse(
                    pf.diagnostics.tally(x[:, r, :, None].contiguous(), batch=batch)
                ).item()
                for r in range(runs)
            ]
        )
        z[name] = (x.mean((0, 2)) / errors).square().mean().sqrt().item()
    assert 0.8 < z["ours"] < 1.6
    assert z["root"] > 1.7
