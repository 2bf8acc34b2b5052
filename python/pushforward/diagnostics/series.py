# SPDX-License-Identifier: Apache-2.0
"""Time series of correlated numbers: autocorrelation, and error bars that know of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from pushforward import _ops
from pushforward.diagnostics.arrays import (
    autocovariance,
    by_pieces,
    constant,
    mean_autocovariance,
    real,
    series_of,
)

__all__ = [
    "autocorrelation",
    "block_means",
    "blocking",
    "integrated_autocorrelation_time",
    "jackknife",
]


def autocorrelation(series: Tensor) -> Tensor:
    r"""Return the autocorrelation function of each series along dim 0.

    .. math:: \rho(t) = \sum_{s < n - t} (x_s - \bar x)(x_{s+t} - \bar x)
        \Big/ \sum_s (x_s - \bar x)^2

    Args:
        series: ``(n, ...)`` real numbers in the order of time, n >= 2.

    Returns:
        ``(n, ...)`` float64; ``[t]`` is the autocorrelation at lag t, 1 at lag 0. A series that
        is constant or not finite gives NaN.

    Raises:
        TypeError: ``series`` is not a tensor of real numbers.
        ValueError: it has fewer than two entries.

    Reference: M. B. Priestley (1981), Spectral Analysis and Time Series.

    Example:
        >>> import pushforward as pf, torch
        >>> pf.diagnostics.autocorrelation(torch.tensor([1, -1, 1, -1]))
        tensor([ 1.0000, -0.7500,  0.5000, -0.2500], dtype=torch.float64)

    """
    series = series_of(series, "series", 2)
    n, shape = len(series), tuple(series.shape[1:])

    def rows(x: Tensor) -> Tensor:
        sums = autocovariance(x - x.mean(-1, keepdim=True))
        return torch.where(constant(x, (-1,)), math.nan, sums / sums[:, :1])

    return by_pieces(rows, series.reshape(n, -1).T, 4 * n, shape).movedim(-1, 0)


def integrated_autocorrelation_time(
    series: Tensor, c: float = 5.0, *, average_chains: bool = False
) -> Tensor:
    r"""Return the integrated autocorrelation time in steps, with Sokal's automatic window.

    .. math:: \tau(M) = 1 + 2 \sum_{t=1}^{M-1} \rho(t) + \rho(M), \qquad
        M = \min \{ M : M \ge c\,\tau(M) > 0 \}

    The mean of n steps has the variance ``tau / n`` times that of one, so that they are worth
    ``n / tau`` independent ones; works on lattice fields call tau / 2 by this name. The last
    term counts half, which also settles sums whose terms alternate in sign.

    Args:
        series: ``(n, ...)`` real numbers in the order of time, n >= 2.
        c: width of the window in units of tau; a wider one lowers the bias, about
            ``exp(-c)``-fold, and raises the noise.
        average_chains: dim 1 runs over chains of the same law, whose autocovariances about their
            common mean are averaged before the window is chosen.

    Returns:
        float64, the shape of ``series`` without dim 0, and without dim 1 if chains are averaged.
        A series that is constant or not finite gives NaN.

    Raises:
        TypeError: ``series`` is not a tensor of real numbers.
        ValueError: it has fewer than two entries, no dim 1 to average, or c is not positive.

    Warns:
        RuntimeWarning: a series has fewer than 50 tau terms or is shorter than twice its window,
            where the estimate is noisy and most often too small.

    Reference: A. Sokal (1997), Monte Carlo methods in statistical mechanics; U. Wolff (2004), Monte
    Carlo errors with less errors, Comput. Phys. Commun. 156.

    Example:
        >>> import pushforward as pf, torch
        >>> x = pf.random.normal(1, 200_000, seed=0)[0]
        >>> smooth = (x[:-1] + x[1:]) / 2  # rho(1) = 1/2, then 0
        >>> round(pf.diagnostics.integrated_autocorrelation_time(smooth).item(), 1)
        2.0

    """
    series = series_of(series, "series", 2)
    if isinstance(c, bool) or not isinstance(c, (int, float)):
        raise TypeError(f"c: expected a number, got {type(c).__name__}")
    if not (math.isfinite(c) and c > 0):
        raise ValueError(f"c: expected a positive finite number, got {c}")
    if average_chains and (series.ndim < 2 or series.shape[1] == 0):
        raise ValueError(
            f"series: expected shape (n, n_chains, ...) with at least one chain, "
            f"got {tuple(series.shape)}"
        )
    n, n_chains = len(series), series.shape[1] if average_chains else 1
    shape = tuple(series.shape[2 if average_chains else 1 :])

    def rows(x: Tensor) -> Tensor:
        covariance = mean_autocovariance(x - x.mean((-1, -2), keepdim=True))
        tau = _windowed_time(covariance / covariance[:, :1], float(c))
        return torch.where(constant(x, (-1, -2))[:, 0, 0], math.nan, tau)

    flat = series.reshape(n, n_chains, -1).permute(2, 1, 0)
    tau = by_pieces(rows, flat, 4 * n, shape)
    finite = tau[tau.isfinite()]
    if len(finite) and n < max(2 * c, 50 / n_chains) * finite.max().item():
        warnings.warn(
            f"integrated_autocorrelation_time: {n} steps are too few for the largest time found, "
            f"{finite.max().item():.3g}; the estimate is not to be relied on",
            RuntimeWarning,
            stacklevel=2,
        )
    return tau


def _windowed_time(rho: Tensor, c: float) -> Tensor:
    tau = 2 * rho.cumsum(1) - 1 - rho
    lag = torch.arange(rho.shape[1], device=rho.device)
    inside = (lag >= c * tau) & (tau > 0)
    window = inside.to(torch.int8).argmax(1, keepdim=True)  # the first that fits
    # A window is missing only where the sum stays large up to the last lag; the largest sum is
    # the cautious answer there.
    return torch.where(inside.any(1), tau.gather(1, window)[:, 0], tau.amax(1))


def block_means(series: Tensor, length: int) -> Tensor:
    """Return the means of consecutive blocks along dim 0, as :func:`jackknife` takes them.

    Args:
        series: ``(n, ...)`` real numbers in the order of time.
        length: number of terms a block, at least 1; the first ``n % length`` terms are left out.

    Returns:
        ``(n // length, ...)`` float64.

    Raises:
        TypeError: ``series`` is not a tensor of real numbers or ``length`` not an int.
        ValueError: ``length`` is not positive or above n.

    Example:
        >>> import pushforward as pf, torch
        >>> pf.diagnostics.block_means(torch.arange(7.0), 3)
        tensor([2., 5.], dtype=torch.float64)

    """
    series = series_of(series, "series", 1)
    length = _ops.count(length, "length", 1)
    if length > len(series):
        raise ValueError(f"length: expected at most {len(series)} terms a block, got {length}")
    kept = series[len(series) % length :]
    blocks = kept.reshape(len(kept) // length, length, *series.shape[1:])
    return blocks.mean(1, dtype=torch.float64)


def jackknife(statistic: Callable[..., Tensor], *blocks: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return a function of averages and its standard error by leaving out a block at a time.

    .. math:: \sigma^2 = \frac{B - 1}{B} \sum_{b=1}^{B} \big( f_{(b)} - \bar f \big)^2

    where ``f_(b)`` is the statistic of the averages over all blocks but b. Blocks must be longer
    than several autocorrelation times to count as independent, see :func:`block_means`.

    Args:
        statistic: a smooth function of averages. It is called with one float64 tensor for each
            of ``blocks``, of that one's shape without dim 0, and returns a tensor.
        blocks: one tensor or several with the same number of blocks B >= 2, ``(B, ...)`` each:
            averages over each block.

    Returns:
        ``(value, error)``: the statistic of the averages over all blocks, and its standard error,
        of the same shape.

    Raises:
        TypeError: a block is not a tensor of real numbers, or the statistic returns no tensor.
        ValueError: there are no blocks, fewer than two, or their numbers differ.

    Reference: B. Efron (1982), The jackknife, the bootstrap and other resampling plans, chapter 3.

    Example:
        The error of a mean is the usual one:

        >>> import pushforward as pf, torch
        >>> x = torch.tensor([1.0, 2.0, 3.0, 6.0])
        >>> pf.diagnostics.jackknife(lambda mean: mean, x)
        (tensor(3., dtype=torch.float64), tensor(1.0801, dtype=torch.float64))
        >>> (x.double().std() / 2).item()
        1.0801234497346435

    """
    if not callable(statistic):
        raise TypeError(f"statistic: expected a callable, got {type(statistic).__name__}")
    if not blocks:
        raise ValueError("blocks: expected at least one tensor, got none")
    checked = [series_of(b, "blocks", 2).to(torch.float64) for b in blocks]
    n_blocks = len(checked[0])
    if any(len(b) != n_blocks for b in checked):
        counts = ", ".join(str(len(b)) for b in checked)
        raise ValueError(f"blocks: expected the same number of each tensor, got {counts}")
    means = [b.mean(0) for b in checked]
    value = real(statistic(*means), "the result of statistic").to(torch.float64)
    left_out = []
    for i in range(n_blocks):
        others = [m + (m - b[i]) / (n_blocks - 1) for m, b in zip(means, checked, strict=True)]
        left_out.append(statistic(*others).detach().to(torch.float64))
    replicas = torch.stack(left_out)
    spread = (replicas - replicas.mean(0)).square().sum(0)
    return value, (spread * ((n_blocks - 1) / n_blocks)).sqrt()


def blocking(series: Tensor) -> Tensor:
    r"""Return the standard error of the mean of each correlated series along dim 0, by blocking.

    Neighbours are averaged in pairs, again and again. As the blocks of ``b = 2**k`` terms outgrow
    the correlations, their naive standard error rises to the true one. The shortest blocks are
    taken with

    .. math:: b^3 > 2 n\,(\sigma_b / \sigma_1)^4,

    which balances what is left of the rise against the noise of few blocks.

    Args:
        series: ``(n, ...)`` real numbers in the order of time, n >= 4.

    Returns:
        float64, the shape of ``series`` without dim 0; zero for a constant series and NaN for one
        that is not finite.

    Raises:
        TypeError: ``series`` is not a tensor of real numbers.
        ValueError: it has fewer than four entries.

    Warns:
        RuntimeWarning: a series is so short that no blocks will do; the largest of its naive
            errors is returned then.

    Reference: H. Flyvbjerg and H. G. Petersen (1989), Error estimates on averages of correlated
    data, J. Chem. Phys. 91; the choice of b: R. M. Lee et al. (2011), Strategies for improving
    the efficiency of quantum Monte Carlo calculations, Phys. Rev. E 83.

    Example:
        >>> import pushforward as pf, torch
        >>> x = pf.random.normal(1, 4096, seed=0)[0]
        >>> errors = pf.diagnostics.blocking(torch.stack((x, x.repeat_interleave(4)[:4096]), 1))
        >>> torch.allclose(errors * 64, torch.tensor([1.0, 2.0]).double(), rtol=0.15)
        True

    """
    series = series_of(series, "series", 4)
    n, shape = len(series), tuple(series.shape[1:])
    chosen, missing = by_pieces(_blocking_rows, series.reshape(n, -1).T, 2 * n, shape).unbind(-1)
    if bool(missing.any()):
        warnings.warn(
            f"blocking: {n} steps are too few for the correlations found; the error is a lower "
            "bound",
            RuntimeWarning,
            stacklevel=2,
        )
    return chosen


def _blocking_rows(x: Tensor) -> Tensor:
    if len(x) == 0:  # var warns of nothing to divide by
        return x.new_zeros(0, 2)
    n, still = x.shape[1], constant(x, (-1,))[:, 0]
    errors = []
    while x.shape[1] >= 2:
        errors.append((x.var(1) / x.shape[1]).sqrt())
        even = x.shape[1] // 2 * 2
        x = (x[:, 0:even:2] + x[:, 1:even:2]) / 2
    error = torch.stack(errors, 1)
    block = 2.0 ** torch.arange(len(errors), dtype=torch.float64, device=x.device)
    growth = torch.where(error[:, :1] > 0, error / error[:, :1], 1.0)
    enough = block**3 > 2 * n * growth**4
    first = enough.to(torch.int8).argmax(1, keepdim=True)
    found = enough.any(1)
    chosen = torch.where(found, error.gather(1, first)[:, 0], error.amax(1))
    chosen = torch.where(error.isfinite().all(1), chosen, math.nan)
    chosen = torch.where(still, 0.0, chosen)
    return torch.stack((chosen, (~found & chosen.isfinite()).to(torch.float64)), 1)
