# SPDX-License-Identifier: Apache-2.0
"""From kept draws: R-hat, the effective sample size, Monte Carlo standard errors.

Reference: A. Vehtari, A. Gelman, D. Simpson, B. Carpenter and P.-C. Bürkner (2021),
Rank-normalization, folding, and localization: an improved R-hat for assessing convergence of MCMC,
Bayesian Analysis 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from pushforward.diagnostics.arrays import by_pieces, constant, mean_autocovariance, real
from pushforward.diagnostics.ranks import folded, normal_scores, quantiles, split

__all__ = ["ess", "mcse", "rhat"]

EssKind = Literal["bulk", "tail", "mean", "sd"]
McseKind = Literal["mean", "sd"]


def rhat(draws: Tensor) -> Tensor:
    r"""Return the rank-normalised split R-hat of each coordinate.

    Each chain is cut in two halves of n draws. With W the mean of their variances and B / n the
    variance of their means,

    .. math:: \hat R = \sqrt{\frac{(n - 1) / n\; W + B / n}{W}},

    of the draws' normal scores (chains that differ in place) and of those of their distances from
    the median (chains that differ in spread); the larger one is returned. Chains of one law have
    R-hat near 1. The authors ask for less than 1.01 with four chains or more.

    Args:
        draws: ``(n_kept, n_chains, *event)`` real numbers, n_kept >= 4. One chain will do, whose
            halves are compared.

    Returns:
        float64, shape ``event``. NaN where a draw is not finite or all are equal, and for no
        chains; inf where each half is constant and they differ.

    Raises:
        TypeError: ``draws`` is not a tensor of real numbers.
        ValueError: it has fewer than two dimensions or fewer than four draws.

    Reference: A. Vehtari et al. (2021), Bayesian Analysis 16.

    Example:
        >>> import pushforward as pf, torch
        >>> x = pf.random.normal(1000, 4, seed=0)
        >>> pf.diagnostics.rhat(x).item() < 1.01
        True
        >>> pf.diagnostics.rhat(x + torch.arange(4)).item() > 1.5
        True

    """
    return each_coordinate(_rhat, draws)


def ess(draws: Tensor, *, kind: EssKind = "bulk") -> Tensor:
    r"""Return the effective sample size of each coordinate: independent draws of the same worth.

    .. math:: \mathrm{ESS} = N / \tau, \qquad \tau = -1 + 2 \sum_{k < K} P_k, \qquad
        P_k = \rho_{2k} + \rho_{2k+1},

    with the autocorrelations rho of all half chains together, which count a difference between
    the means of chains as correlation. Following Geyer, the sum ends at the first P_k that is not
    positive and P_k is made non-increasing; then half of the next even term is added. N is the
    number of draws in the halves; the result is at most N log10(N).

    Chains with few draws hide correlations longer than they are: with fewer than about ten draws
    a chain look at :func:`rhat` first.

    Args:
        draws: ``(n_kept, n_chains, *event)`` real numbers, n_kept >= 4.
        kind: ``"bulk"`` for the normal scores of the draws, the overall figure that exists for any
            law; ``"tail"``: the smaller one for the 5 % and the 95 % quantile; ``"mean"`` and
            ``"sd"``: for the mean and the standard deviation, of laws that have them.

    Returns:
        float64, shape ``event``. NaN where a draw is not finite and for no chains; N where all
        are equal.

    Raises:
        TypeError: ``draws`` is not a tensor of real numbers.
        ValueError: it has fewer than two dimensions or fewer than four draws, or ``kind`` is not
            one of these.

    Reference: A. Vehtari et al. (2021), Bayesian Analysis 16; C. J. Geyer (1992), Practical Markov
    chain Monte Carlo, Statistical Science 7.

    Example:
        >>> import pushforward as pf, torch
        >>> x = pf.random.normal(1000, 4, seed=0)
        >>> smooth = x[1:] + x[:-1]  # every mean of such draws has twice the variance
        >>> 1700 < pf.diagnostics.ess(smooth, kind="mean").item() < 2300
        True

    """
    kinds = {"bulk": _ess_bulk, "tail": _ess_tail, "mean": _ess_mean, "sd": _ess_sd}
    return each_coordinate(_choice(kinds, kind), draws)


def mcse(draws: Tensor, *, kind: McseKind = "mean") -> Tensor:
    r"""Return the Monte Carlo standard error of each coordinate's mean or standard deviation.

    .. math:: \sigma_{\mathrm{mean}} = s / \sqrt{\mathrm{ESS}}, \qquad
        \sigma_{s}^2 = \frac{m_4 - m_2^2}{4\, m_2\, \mathrm{ESS}'}

    with the central moments m of the draws, the sample standard deviation s, the ESS of the mean
    and the ESS' of ``(x - mean)**2``.

    Args:
        draws: ``(n_kept, n_chains, *event)`` real numbers, n_kept >= 4.
        kind: ``"mean"`` or ``"sd"``.

    Returns:
        float64, shape ``event``. NaN where a draw is not finite and for no chains; where all are
        equal, 0 for the mean and NaN for the standard deviation.

    Raises:
        TypeError: ``draws`` is not a tensor of real numbers.
        ValueError: it has fewer than two dimensions or fewer than four draws, or ``kind`` is not
            one of these.

    Reference: A. Vehtari et al. (2021), Bayesian Analysis 16.

    Example:
        >>> import pushforward as pf, torch
        >>> x = pf.random.normal(1000, 4, seed=0)
        >>> abs(pf.diagnostics.mcse(x).item() * 4000**0.5 - 1) < 0.1
        True

    """
    kinds = {"mean": _mcse_mean, "sd": _mcse_sd}
    return each_coordinate(_choice(kinds, kind), draws)


def _choice(kinds: Mapping[str, Callable[[Tensor], Tensor]], kind: Any) -> Any:
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"kind: expected one of {', '.join(kinds)}, got {kind!r}")
    return kinds[kind]


def check_draws(draws: Any) -> Tensor:
    """Return ``draws`` checked to be ``(n_kept, n_chains, *event)`` with n_kept >= 4."""
    draws = real(draws, "draws")
    if draws.ndim < 2 or len(draws) < 4:
        raise ValueError(
            "draws: expected shape (n_kept, n_chains, *event) with n_kept >= 4, "
            f"got {tuple(draws.shape)}"
        )
    return draws


def each_coordinate(
    compute: Callable[[Tensor], Tensor], draws: Any, results: tuple[int, ...] = ()
) -> Tensor:
    """Apply a function of ``(d, n_chains, n)``; NaN where a draw of a coordinate is not finite.

    ``results`` is the shape of what it returns for a coordinate.
    """
    draws = check_draws(draws)
    n, n_chains, *event = draws.shape
    if n_chains == 0 or math.prod(event) == 0:
        shape = (*event, *results)
        return torch.full(shape, math.nan, dtype=torch.float64, device=draws.device)

    def guarded(x: Tensor) -> Tensor:
        finite = x.isfinite().all(-1).all(-1).reshape(-1, *[1] * len(results))
        return torch.where(finite, compute(x), math.nan)

    coordinates = draws.reshape(n, n_chains, -1).permute(2, 1, 0)
    return by_pieces(guarded, coordinates, 4 * n * n_chains, tuple(event))


def _rhat(x: Tensor) -> Tensor:
    halves = split(x)
    place = _plain_rhat(normal_scores(halves))
    spread = _plain_rhat(normal_scores(folded(halves)))
    return torch.fmax(place, spread)  # draws of two values may all be as far from the median


def _plain_rhat(x: Tensor) -> Tensor:
    n = x.shape[-1]
    within = x.var(-1).mean(-1)
    between = x.mean(-1).var(-1)  # B / n
    # Equal scores leave rounding errors, which must not pass for a spread.
    still = constant(x, (-1,))[..., 0].all(-1)
    within = torch.where(still, 0.0, within)
    between = torch.where(constant(x, (-1, -2))[:, 0, 0], 0.0, between)
    return ((n - 1) / n + between / within).sqrt()


def _ess_bulk(x: Tensor) -> Tensor:
    return _geyer(normal_scores(split(x)))


def _ess_tail(x: Tensor) -> Tensor:
    low, high = quantiles(x, (0.05, 0.95))[:, :, None, None].unbind(1)
    sizes = [_geyer(split((x <= q).to(torch.float64))) for q in (low, high)]
    return torch.minimum(*sizes)


def _ess_mean(x: Tensor) -> Tensor:
    return _geyer(split(x))


def _ess_sd(x: Tensor) -> Tensor:
    return _geyer(split((x - x.mean((-1, -2), keepdim=True)).square()))


def _mcse_mean(x: Tensor) -> Tensor:
    still = constant(x, (-1, -2))[:, 0, 0]
    sd = torch.where(still, 0.0, x.flatten(1).std(1))
    return sd / _ess_mean(x).sqrt()


def _mcse_sd(x: Tensor) -> Tensor:
    square = (x - x.mean((-1, -2), keepdim=True)).square()
    variance = square.mean((-1, -2))
    spread = square.square().mean((-1, -2)) - variance.square()
    error = (spread.clamp(min=0) / (4 * variance * _geyer(split(square)))).sqrt()
    return torch.where(constant(x, (-1, -2))[:, 0, 0], math.nan, error)


def _geyer(x: Tensor) -> Tensor:
    """Return the effective sample size of ``(d, n_chains, n)`` by Geyer's monotone sequence."""
    _, n_chains, n = x.shape
    mean = x.mean(-1, keepdim=True)
    covariance = mean_autocovariance(x - mean)
    within = covariance[:, :1] * (n / (n - 1))
    total = covariance[:, :1]
    if n_chains > 1:
        total = total + mean[..., 0].var(-1, keepdim=True)
    rho = 1 - (within - covariance) / total
    rho[:, 0] = 1.0

    pairs = rho[:, : n // 2 * 2].unflatten(1, (-1, 2)).sum(-1)
    last = max(0, (n - 3) // 2)  # the last pair looked at: beyond it there are too few terms
    pairs = pairs[:, : last + 1]
    ends = pairs <= 0
    ends[:, last] = True
    stop = ends.to(torch.int8).argmax(1, keepdim=True)
    before = torch.arange(last + 1, device=x.device) < stop
    tau = 2 * (pairs.cummin(1).values * before).sum(1) - 1
    even = rho.gather(1, 2 * stop)[:, 0]
    positive = pairs.gather(1, stop)[:, 0] > 0  # the series ended before the correlations did
    tau = tau + torch.where(positive, even, even.clamp(min=0))

    size = n_chains * n
    result = size / tau.clamp(min=1 / math.log10(size))
    return torch.where(constant(x, (-1, -2))[:, 0, 0], float(size), result)
