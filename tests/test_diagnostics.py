# SPDX-License-Identifier: Apache-2.0
"""Diagnostics against ArviZ, direct sums and the exact autocorrelation time of AR(1) chains.

Seeds are fixed. A statistic is compared in units of its standard error; the bound of 5.5 is a
false alarm in 3e7 for one comparison, below 1e-5 for the few hundred here.
"""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

import pushforward as pf
from autoregressive import ar1, ar1_time
from pushforward import diagnostics
from pushforward.diagnostics import arrays

with warnings.catch_warnings():  # ArviZ announces its next version at import
    warnings.simplefilter("ignore")
    az = pytest.importorskip("arviz")

SIGMAS = 5.5


# ---- against ArviZ -------------------------------------------------------------------------------

SHAPES = [(4, 1), (4, 3), (5, 2), (6, 2), (7, 3), (8, 1), (11, 5), (50, 4), (101, 3), (999, 7), (17, 64)]  # fmt: skip
SHADES = {
    "plain": lambda x: x,
    "heavy": torch.exp,
    "ties": torch.round,
    "apart": lambda x: x + 2 * torch.arange(x.shape[1]),
    "two values": lambda x: (x > 0.3).double(),
}


def theirs(function, x, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = function(x.T.numpy(), **arguments)
        return np.asarray(found).item()  # a number, or an array of any shape with one


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("shade", SHADES)
def test_agrees_with_arviz(shape, shade):
    # Coordinates of one call, one for each correlation, against ArviZ one by one.
    chains = [SHADES[shade](ar1(*shape, phi, seed=9)) for phi in (0.0, 0.5, 0.95, -0.6)]
    draws = torch.stack(chains, 2)
    ours = {kind: diagnostics.ess(draws, kind=kind) for kind in ("bulk", "tail", "mean", "sd")}
    errors = {kind: diagnostics.mcse(draws, kind=kind) for kind in ("mean", "sd")}
    ratio = diagnostics.rhat(draws)
    for i, x in enumerate(chains):
        if x.max() == x.min():
            continue  # conventions differ, see below
        expected = {kind: theirs(az.ess, x, method=kind) for kind in ours}
        # Sums are taken in another order: a few 1e-15 each, times the cancellation in
        # 1 - (W - c) / V and in m4 - m2^2.
        assert {k: v[i].item() for k, v in ours.items()} == pytest.approx(expected, rel=1e-8)
        expected = {kind: theirs(az.mcse, x, method=kind) for kind in errors}
        found = {k: v[i].item() for k, v in errors.items()}
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-9)
        if shape[1] > 1:  # of one chain ArviZ gives none
            assert ratio[i].item() == pytest.approx(theirs(az.rhat, x), rel=1e-9)


def test_pieces_do_not_matter(monkeypatch):
    draws = torch.stack([ar1(60, 3, phi) for phi in (0.0, 0.5, 0.9)], 2)
    whole = diagnostics.summary(draws)
    monkeypatch.setattr(arrays, "CHUNK", 200)  # a coordinate at a time, a few chains an FFT
    pieces = diagnostics.summary(draws)
    for name in ("mean", "ess_bulk", "ess_tail", "mcse_mean", "mcse_sd", "rhat", "q5"):
        assert torch.allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-12)


@pytest.mark.parametrize("shape", [(10, 3), (50, 4), (1000, 2), (8, 1000)], ids=str)
def test_streaming_rhat_is_the_split_rhat(shape):
    x = ar1(*shape, 0.8, seed=2)
    ours = diagnostics.streaming_rhat(diagnostics.tally(x, batch=3)).item()
    assert ours == pytest.approx(theirs(az.rhat, x, method="split"), rel=1e-10)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_any_event_and_type(shape, dtype):
    draws = (10 * pf.random.normal(40, 3 * math.prod(shape), seed=1)).reshape(40, 3, *shape)
    draws = draws.to(dtype)
    for result in (
        diagnostics.rhat(draws),
        diagnostics.ess(draws),
        diagnostics.mcse(draws),
        diagnostics.summary(draws).median,
        diagnostics.streaming_ess(diagnostics.tally(draws, batch=5)),
    ):
        assert result.shape == shape
        assert result.dtype == torch.float64
        assert result.isfinite().all()
    assert diagnostics.rhat(draws[:, :0]).isnan().all()


# ---- what the numbers mean -----------------------------------------------------------------------


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_ess_and_its_error_are_those_of_ar1(phi):
    # Of 100 coordinates with four chains of 2000 draws: the mean of the ESS is right to 6 %, the
    # bias of Geyer's sum, and the means scatter by what the standard errors say.
    n, chains, replicas = 2000, 4, 100
    draws = ar1(n, chains * replicas, phi, seed=3).reshape(n, chains, replicas)
    exact = n * chains / ar1_time(phi)
    assert diagnostics.ess(draws, kind="mean").mean().item() == pytest.approx(exact, rel=0.06)
    assert diagnostics.ess(draws).mean().item() == pytest.approx(exact, rel=0.06)
    z = draws.mean((0, 1)) / diagnostics.mcse(draws)
    assert abs(z.square().mean().item() - 1) < SIGMAS * math.sqrt(2 / replicas)
    # The ESS of the sd is that of x^2, whose correlations are phi^2.
    of_squares = n * chains / ar1_time(phi**2)
    assert diagnostics.ess(draws, kind="sd").mean().item() == pytest.approx(of_squares, rel=0.06)
    z = (draws.flatten(0, 1).std(0) - 1) / diagnostics.mcse(draws, kind="sd")
    assert abs(z.square().mean().item() - 1) < SIGMAS * math.sqrt(2 / replicas)


def test_draws_taken_for_independent_fail_the_same_test():
    draws = ar1(2000, 4 * 100, 0.9, seed=3).reshape(2000, 4, 100)
    z = draws.mean((0, 1)) / (draws.flatten(0, 1).std(0) / math.sqrt(8000))
    assert abs(z.square().mean().item() - 1) > 10 * SIGMAS * math.sqrt(2 / 100)


def test_rhat_sees_place_and_spread_and_drift():
    x = ar1(1000, 4, 0.3, seed=1)
    apart = x + torch.tensor([0.0, 0.0, 0.0, 1.0])
    wide = x * torch.tensor([1.0, 1.0, 1.0, 3.0])
    drift = x + torch.linspace(0, 2, 1000)[:, None]
    ratios = diagnostics.rhat(torch.stack((x, apart, wide, drift), 2))
    assert ratios[0] < 1.01
    assert (ratios[1:] > 1.05).all()
    # The plain split R-hat of the streaming sums is blind to spread: the twin that folding cures.
    plain = [diagnostics.streaming_rhat(diagnostics.tally(v, batch=30)) for v in (apart, wide)]
    assert plain[0] > 1.05 > 1.01 > plain[1]


def test_rhat_of_cauchy_chains_is_near_one():
    x = torch.tan(math.pi * (pf.random.uniform(4, 2000, seed=2).double() - 0.5)).T
    assert abs(diagnostics.rhat(x).item() - 1) < 0.01


def test_constant_draws():
    still = torch.full((100, 4), 0.1)
    stuck = still + torch.arange(4)
    draws = torch.stack((still, stuck), 2)
    assert diagnostics.rhat(draws)[0].isnan()
    assert diagnostics.rhat(draws)[1] == math.inf
    assert diagnostics.ess(draws)[0] == 400
    assert diagnostics.ess(draws)[1] < 8
    assert diagnostics.mcse(draws)[0] == 0
    assert diagnostics.mcse(draws, kind="sd")[0].isnan()
    tallies = diagnostics.tally(draws, batch=10)
    assert diagnostics.streaming_rhat(tallies)[0].isnan()
    assert diagnostics.streaming_rhat(tallies)[1] == math.inf
    assert diagnostics.streaming_ess(tallies)[0] == 400
    assert diagnostics.streaming_ess(tallies)[1] < 8
    assert diagnostics.streaming_mcse(tallies)[0] == 0
    assert diagnostics.autocorrelation(still).isnan().all()
    assert diagnostics.integrated_autocorrelation_time(still).isnan().all()
    assert (diagnostics.blocking(still) == 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_draw_that_is_not_finite_spoils_its_own_coordinate(bad):
    draws = pf.random.normal(50, 12, seed=1).reshape(50, 4, 3)
    good = diagnostics.summary(draws)
    draws[7, 2, 1] = bad
    for name in ("mean", "sd", "q5", "rhat", "ess_bulk", "ess_tail", "mcse_mean", "mcse_sd"):
        values = getattr(diagnostics.summary(draws), name)
        assert values[1].isnan()
        assert torch.equal(values[::2], getattr(good, name)[::2])
    assert diagnostics.streaming_ess(diagnostics.tally(draws, batch=5))[1].isnan()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fifty steps are few
        assert diagnostics.integrated_autocorrelation_time(draws)[2, 1].isnan()
        assert diagnostics.blocking(draws)[2, 1].isnan()


def test_table():
    draws = pf.random.normal(100, 4 * 6, seed=1).reshape(100, 4, 2, 3)
    lines = str(diagnostics.summary(draws)).splitlines()
    assert lines[0].split()[:3] == ["mean", "sd", "mcse_mean"]
    assert [line.split("  ")[0] for line in lines[1:3]] == ["x[0, 0]", "x[0, 1]"]
    assert len({len(line) for line in lines}) == 1
    named = diagnostics.summary(draws[..., 0, 0], names=["mu"])
    assert str(named).splitlines()[1].startswith("mu ")
    expected = np.quantile(draws[..., 0, 0], [0.05, 0.5, 0.95])
    found = [named.q5.item(), named.median.item(), named.q95.item()]
    assert found == pytest.approx(list(expected), rel=1e-6)
    assert str(diagnostics.summary(torch.randn(5, 2, 100))).endswith("and 60 more")


# ---- time series ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 10, 257])
def test_autocorrelation_is_its_sum(n):
    x = ar1(n, 3, 0.7, seed=5) + 100
    centred = x - x.mean(0)
    sums = torch.stack([(centred[: n - t] * centred[t:]).sum(0) for t in range(n)])
    assert torch.allclose(diagnostics.autocorrelation(x), sums / sums[0], atol=1e-12)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, 0.98])
def test_autocorrelation_time_of_ar1(phi):
    # Madras and Sokal: with the window M, var(tau) is about 2 (2 M + 1) / n tau^2. What the
    # window cuts off, about exp(-5) tau, is a thirtieth of that for one chain.
    n, chains, tau = 100_000, 20, ar1_time(phi)
    x = ar1(n, chains, phi, seed=6)
    error = tau * math.sqrt(2 * (10 * tau + 1) / n)
    found = diagnostics.integrated_autocorrelation_time(x)
    assert (abs(found - tau) < SIGMAS * error).all()
    common = diagnostics.integrated_autocorrelation_time(x, average_chains=True).item()
    assert abs(common - tau) < SIGMAS * error / math.sqrt(chains) + 2 * math.exp(-5) * tau
    assert abs(common - 1.5 * tau) > SIGMAS * error / math.sqrt(chains)  # no idle bound


def test_autocorrelation_time_of_alternating_chains():
    # 1/3 and 1/19 exactly; the halved last term keeps it positive and within a factor of two.
    for phi in (-0.5, -0.9):
        x = ar1(100_000, 4, phi, seed=7)
        ratio = diagnostics.integrated_autocorrelation_time(x) / ar1_time(phi)
        assert (ratio > 0.5).all()
        assert (ratio < 2.0).all()


def test_short_series_are_reported():
    x = ar1(100, 1, 0.95, seed=1)[:, 0]
    with pytest.warns(RuntimeWarning, match="100 steps are too few"):
        diagnostics.integrated_autocorrelation_time(x)
    with pytest.warns(RuntimeWarning, match="16 steps are too few"):
        diagnostics.blocking(torch.arange(16.0))


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_blocking_is_the_true_error(phi):
    # 400 series: their means scatter by what blocking says, to 5 %, and not by the naive error.
    n, replicas = 16_384, 400
    x = ar1(n, replicas, phi, seed=8)
    error = diagnostics.blocking(x)
    exact = math.sqrt(ar1_time(phi, n) / n)
    assert error.mean().item() == pytest.approx(exact, rel=0.05)
    z = x.mean(0) / error
    assert abs(z.square().mean().item() - 1) < 0.1 + SIGMAS * math.sqrt(2 / replicas)
    if phi > 0:
        naive = x.mean(0) / (x.std(0) / math.sqrt(n))
        assert abs(naive.square().mean().item() - 1) > 0.1 + SIGMAS * math.sqrt(2 / replicas)


def test_block_means():
    x = torch.arange(22.0).reshape(11, 2)
    assert torch.equal(diagnostics.block_means(x, 5), x[1:].reshape(2, 5, 2).mean(1).double())
    assert torch.equal(diagnostics.block_means(x, 1), x.double())


def test_jackknife_of_a_ratio_is_the_delta_method():
    # 4000 blocks: the two differ at order 1 / B.
    a = pf.random.normal(4000, 3, seed=1, dtype=torch.float64) + 5
    b = 0.5 * a + pf.random.normal(4000, 3, seed=2, dtype=torch.float64) + 7
    value, error = diagnostics.jackknife(lambda x, y: x / y, a, b)
    assert torch.allclose(value, a.mean(0) / b.mean(0))
    linear = (a - value * b) / b.mean(0)
    assert torch.allclose(error, linear.std(0) / math.sqrt(4000), rtol=3 / 4000**0.5)
    # As if the two were independent: the twin that ignores what they share.
    ignorant = ((a.var(0) + value**2 * b.var(0)) / 4000).sqrt() / b.mean(0)
    assert not torch.allclose(error, ignorant, rtol=3 / 4000**0.5)


def test_jackknife_of_a_mean_and_of_a_variance():
    x = pf.random.normal(50, 4, seed=3, dtype=torch.float64)
    value, error = diagnostics.jackknife(lambda mean: mean, x)
    assert torch.allclose(value, x.mean(0))
    assert torch.allclose(error, x.std(0) / math.sqrt(50))
    both = torch.stack((x, x**2), 1)
    value, _ = diagnostics.jackknife(lambda m: m[1] - m[0] ** 2, both)
    assert torch.allclose(value, x.var(0, correction=0))


# ---- bad input -----------------------------------------------------------------------------------

X = torch.zeros(6, 2)
T = diagnostics.tally(X, batch=2)
BAD = [
    (lambda: diagnostics.rhat([1.0]), TypeError, "draws: expected a torch.Tensor, got list"),
    (lambda: diagnostics.rhat(X.to(torch.complex64)), TypeError, "draws: expected real numbers"),
    (lambda: diagnostics.rhat(X[:3]), ValueError, "n_kept >= 4, got (3, 2)"),
    (lambda: diagnostics.ess(X[:, 0]), ValueError, "(n_kept, n_chains, *event)"),
    (lambda: diagnostics.ess(X, kind="median"), ValueError, "kind: expected one of bulk, tail"),
    (lambda: diagnostics.mcse(X, kind=3), ValueError, "kind: expected one of mean, sd, got 3"),
    (lambda: diagnostics.summary(X, names="a"), TypeError, "names: expected a sequence of str"),
    (lambda: diagnostics.summary(X, names=[1]), TypeError, "names: expected a sequence of str"),
    (lambda: diagnostics.summary(X, names=["a", "b"]), ValueError, "names: expected 1"),
    (lambda: diagnostics.autocorrelation(X[:1]), ValueError, "series: expected at least 2"),
    (lambda: diagnostics.blocking(X[:3]), ValueError, "series: expected at least 4"),
    (lambda: diagnostics.integrated_autocorrelation_time(X, "5"), TypeError, "c: expected a number"),
    (lambda: diagnostics.integrated_autocorrelation_time(X, 0), ValueError, "c: expected a positive"),
    (lambda: diagnostics.integrated_autocorrelation_time(X[:, 0], average_chains=True), ValueError, "(n, n_chains, ...)"),
    (lambda: diagnostics.block_means(X, 0), ValueError, "length: expected an int >= 1"),
    (lambda: diagnostics.block_means(X, 7), ValueError, "length: expected at most 6"),
    (lambda: diagnostics.jackknife(1, X), TypeError, "statistic: expected a callable"),
    (lambda: diagnostics.jackknife(torch.sum), ValueError, "blocks: expected at least one"),
    (lambda: diagnostics.jackknife(torch.sum, X[:1]), ValueError, "blocks: expected at least 2"),
    (lambda: diagnostics.jackknife(torch.add, X, X[:4]), ValueError, "got 6, 4"),
    (lambda: diagnostics.jackknife(lambda m: 1.0, X), TypeError, "result of statistic"),
    (lambda: diagnostics.tally(X[:, 0], batch=1), ValueError, "series: expected shape"),
    (lambda: diagnostics.tally(X, batch=0), ValueError, "batch: expected an int >= 1"),
    (lambda: diagnostics.tally(X, batch=1, shift=X), ValueError, "shift: expected shape (2,)"),
    (lambda: diagnostics.tally(X, batch=1, valid=X), TypeError, "valid: expected a bool tensor"),
    (lambda: diagnostics.tally(X, batch=1, valid=X[:2] > 0), ValueError, "valid: expected shape (6, 2)"),
    (lambda: diagnostics.streaming_rhat(X), TypeError, "tallies: expected Tallies, got Tensor"),
    (lambda: diagnostics.Tallies(6, 6, 2, *[X[0]] * 6), ValueError, "half_steps: expected fewer"),
    (lambda: diagnostics.Tallies(6, 3, 4, *[X[0]] * 6), ValueError, "open_total: expected the sum"),
    (lambda: diagnostics.Tallies(6, 3, 2, *[X[0]] * 5, X), ValueError, "batch_squares: expected shape"),
    (lambda: diagnostics.Tallies(6, 3, 2, *[X[0]] * 6, n_valid=X[0]), ValueError, "half_valid: expected"),
    (lambda: diagnostics.Tallies(6, 3, 2, *[X[0, 0]] * 6), ValueError, "total: expected shape"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


def test_a_gradient_is_dropped():
    x = ar1(20, 3, 0.5).requires_grad_()
    assert not diagnostics.ess(x).requires_grad
    assert not diagnostics.autocorrelation(x).requires_grad


def test_normal_scores_are_scipys():
    # Through the bulk: draws and their ranks are the same thing to it.
    x = ar1(100, 4, 0.5, seed=1).round(decimals=1)
    ranks = torch.from_numpy(stats.rankdata(x.numpy().ravel())).reshape(100, 4)
    assert diagnostics.ess(x).item() == diagnostics.ess(ranks).item()
    assert diagnostics.ess(x).item() == diagnostics.ess(torch.exp(x)).item()
