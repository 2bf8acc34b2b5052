# SPDX-License-Identifier: Apache-2.0
"""R-hat, effective sample size and standard errors of chains whose draws were never kept.

A run adds up a few sums a chain, see :class:`Tallies`; the functions here are the formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pushforward import _ops
from pushforward.diagnostics.arrays import real

__all__ = ["Tallies", "batch_size", "streaming_ess", "streaming_mcse", "streaming_rhat", "tally"]


# A chain, before their length is rounded. Of 19 batches the error bar of one chain alone is right
# to 17 percent.
_BATCHES = 30


def batch_size(n_steps: int) -> int:
    """Return how many steps a batch of a run should have.

    A thirtieth of the run, so that the means of batches are as nearly independent as so many can
    be, and at least the square root of it. From 16 steps on it is the next multiple of eight and
    from 32 on of sixteen, which is how many states a native run adds to its sums at a time; from
    500 steps on there are 19 batches at least.

    Args:
        n_steps: number of steps, 0 or more.

    Example:
        >>> import pushforward as pf
        >>> [pf.diagnostics.batch_size(n) for n in (0, 100, 3000)]
        [1, 10, 112]

    """
    size = max(1, math.isqrt(n_steps), n_steps // _BATCHES)
    if size < _ops.GROUP:
        return size
    unit = _ops.GROUP // 2 if size < 2 * _ops.GROUP else _ops.GROUP
    return -(-size // unit) * unit


@dataclass(frozen=True, eq=False)
class Tallies:
    """Sums over the steps of each chain; tensors are float64 ``(n_chains, *event)``.

    A batch is ``batch`` steps in a row, the first one beginning with the first step. A term that
    is not valid, such as a step that was not taken, adds nothing to any sum.

    Attributes:
        n_steps: number of steps.
        half_steps: number of steps in the first half, ``0 < half_steps < n_steps``; the other
            ones are the second half.
        batch: number of steps a batch, at least 1. It should be several autocorrelation times;
            see :func:`batch_size`.
        shift: what was subtracted from each x, near the chain's values to keep digits.
        total: sum of ``x - shift``.
        squares: sum of ``(x - shift)**2``.
        half_total: ``total`` over the first half.
        half_squares: ``squares`` over the first half.
        batch_squares: sum, over the ``n_steps // batch`` batches that are complete, of the square
            of the batch's sum of ``x - shift``.
        open_total: sum of ``x - shift`` over the steps after the last complete batch; None where
            there are none.
        n_valid: number of valid terms, ``(n_chains,)``; None if all are valid.
        half_valid: number of valid terms in the first half, likewise.

    Raises:
        TypeError: a sum is not a tensor of real numbers or a count not an int.
        ValueError: a shape or a count does not fit.

    Example:
        Two steps of one chain, at 1 and at 3:

        >>> import pushforward as pf, torch
        >>> zero, one = torch.zeros(1), torch.ones(1)
        >>> t = pf.diagnostics.Tallies(
        ...     n_steps=2, half_steps=1, batch=1, shift=zero, total=4 * one, squares=10 * one,
        ...     half_total=one, half_squares=one, batch_squares=10 * one)
        >>> pf.diagnostics.streaming_mcse(t)  # the sample variance is 2
        tensor(1., dtype=torch.float64)

    """

    n_steps: int
    half_steps: int
    batch: int
    shift: Tensor
    total: Tensor
    squares: Tensor
    half_total: Tensor
    half_squares: Tensor
    batch_squares: Tensor
    open_total: Tensor | None = None
    n_valid: Tensor | None = None
    half_valid: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies hold what they need: the sums of a run are parts of one block of memory."""
        parts = vars(self).items()
        return {k: v.clone() if isinstance(v, Tensor) else v for k, v in parts}

    def __post_init__(self) -> None:
        for name, least in (("n_steps", 2), ("half_steps", 1), ("batch", 1)):
            object.__setattr__(self, name, _ops.count(getattr(self, name), name, least))
        if self.half_steps >= self.n_steps:
            raise ValueError(
                f"half_steps: expected fewer than the {self.n_steps} steps, got {self.half_steps}"
            )
        if (self.n_valid is None) != (self.half_valid is None):
            raise ValueError("half_valid: expected with n_valid and not without, got one of them")
        if self.open_total is None and self.n_steps % self.batch:
            raise ValueError(
                f"open_total: expected the sum of the last {self.n_steps % self.batch} steps, "
                "got None"
            )
        shape = tuple(real(self.total, "total").shape)
        if not shape:
            raise ValueError("total: expected shape (n_chains, *event), got ()")
        for name, value in vars(self).items():
            if isinstance(value, int) or value is None:
                continue
            expected = shape[:1] if name.endswith("valid") else shape
            value = real(value, name)
            if tuple(value.shape) != expected:
                raise ValueError(f"{name}: expected shape {expected}, got {tuple(value.shape)}")
            object.__setattr__(self, name, value.to(torch.float64))


def tally(
    series: Tensor, *, batch: int, shift: Tensor | None = None, valid: Tensor | None = None
) -> Tallies:
    """Return the tallies of a run whose states are at hand.

    Args:
        series: every state in order, ``(n_steps, n_chains, *event)``, n_steps >= 2.
        batch: number of steps a batch.
        shift: ``(n_chains, *event)``; by default the first state.
        valid: which states count, bool ``(n_steps, n_chains)``; by default all.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a shape does not fit.

    Example:
        >>> import pushforward as pf, torch
        >>> pf.diagnostics.tally(torch.tensor([[1.0], [3.0], [2.0]]), batch=2).squares
        tensor([5.], dtype=torch.float64)

    """
    series = real(series, "series")
    if series.ndim < 2 or len(series) < 2:
        raise ValueError(
            "series: expected shape (n_steps, n_chains, *event) with n_steps >= 2, "
            f"got {tuple(series.shape)}"
        )
    n, half, batch = len(series), len(series) // 2, _ops.count(batch, "batch", 1)
    shift = series[0] if shift is None else real(shift, "shift")
    if shift.shape != series.shape[1:]:
        raise ValueError(
            f"shift: expected shape {tuple(series.shape[1:])}, got {tuple(shift.shape)}"
        )
    x = series.to(torch.float64) - shift
    if valid is not None:
        if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
            raise TypeError(f"valid: expected a bool tensor, got {getattr(valid, 'dtype', valid)}")
        if valid.shape != series.shape[:2]:
            raise ValueError(
                f"valid: expected shape {tuple(series.shape[:2])}, got {tuple(valid.shape)}"
            )
        x = x.where(valid.reshape(*valid.shape, *[1] * (x.ndim - 2)), 0.0)
    whole = n // batch * batch
    return Tallies(
        n_steps=n,
        half_steps=half,
        batch=batch,
        shift=shift,
        total=x.sum(0),
        squares=x.square().sum(0),
        half_total=x[:half].sum(0),
        half_squares=x[:half].square().sum(0),
        batch_squares=x[:whole].unflatten(0, (-1, batch)).sum(1).square().sum(0),
        open_total=x[whole:].sum(0),
        n_valid=None if valid is None else valid.sum(0),
        half_valid=None if valid is None else valid[:half].sum(0),
    )


def streaming_rhat(tallies: Tallies) -> Tensor:
    r"""Return the split R-hat of each coordinate from the halves of each chain.

    With the mean variance W of the half chains, of n_j terms each, and the variance V of their
    means,

    .. math:: \hat R^2 = \frac{\big(1 - \overline{1 / n_j}\big) W + V}{W}.

    It sees chains that differ in place; without draws there are no ranks, so that the law must
    have a variance and a difference in spread alone is not seen, see :func:`rhat`.

    Args:
        tallies: of any number of chains.

    Returns:
        float64, shape ``event``. Halves with fewer than two valid terms are left out; NaN where
        fewer than two are left or all are constant and equal, inf where constant halves differ.

    Raises:
        TypeError: ``tallies`` is no :class:`Tallies`.

    Reference: A. Gelman et al. (2013), Bayesian Data Analysis, third edition, section 11.4.

    Example:
        >>> import pushforward as pf
        >>> t = pf.diagnostics.tally(pf.random.normal(1000, 4, seed=0), batch=30)
        >>> pf.diagnostics.streaming_rhat(t).item() < 1.01
        True

    """
    t = _checked(tallies)
    n, first = _valid(t), _half_valid(t)
    count = torch.cat((first, n - first))
    total = torch.cat((t.half_total, t.total - t.half_total))
    squares = torch.cat((t.half_squares, t.squares - t.half_squares))
    shift = torch.cat((t.shift, t.shift))
    used = (count >= 2).reshape(-1)
    count, total, squares, shift = (v[used] for v in (count, total, squares, shift))
    if len(count) < 2:
        return torch.full_like(t.total.sum(0), math.nan)
    return _rhat(count, shift, total, squares)


def rhat_of_sums(n_steps: int, shift: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """Return the R-hat of whole chains of ``n_steps >= 2`` from their sums, as in :class:`Tallies`.

    What :func:`streaming_rhat` is before the first half of a run is over. NaN for one chain.
    """
    if len(total) < 2:
        return torch.full_like(total.sum(0), math.nan)
    count = total.new_full((len(total), *[1] * (total.ndim - 1)), float(n_steps))
    return _rhat(count, shift.double(), total, squares)


def _rhat(count: Tensor, shift: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """Return the R-hat of stretches of ``count`` terms each."""
    within = _centred_squares(squares, total, count).sum(0) / (count - 1).sum()
    between = (shift + total / count).var(0)
    return (1 - (1 / count).mean() + between / within).sqrt()


def streaming_ess(tallies: Tallies) -> Tensor:
    r"""Return the effective sample size of the mean of each coordinate.

    .. math:: \mathrm{ESS} = N\, s^2 / \lambda, \qquad
        \lambda = w\, \lambda_b + (1 - w)\, \lambda_n

    where s^2 estimates the variance of the law and the two lambdas N times that of the mean over
    N steps: lambda_b from the means of batches of b steps about their chain's, which is precise
    and short by about tau / b, and lambda_n from the means of whole chains about the common one,
    which has little of that bias but only n_chains - 1 degrees of freedom. They are weighted by
    the inverse of their mean squared errors, in which the bias of lambda_b is what lambda_n
    exceeds it by beyond two standard deviations of their noise. Thus few long chains go by their
    batches, with a relative standard error of about ``sqrt(2 b / N)``; many chains with short
    batches, and chains that have not mixed, go by their means, with ``sqrt(2 / n_chains)``.

    Args:
        tallies: of two complete batches or two chains at least.

    Returns:
        float64, shape ``event``, at most N log10(N) for N valid terms. NaN where there are
        neither two batches nor two chains with valid terms; N where all states are equal. Terms
        that are not valid are taken to be spread evenly over the batches.

    Raises:
        TypeError: ``tallies`` is no :class:`Tallies`.

    Reference: N. T. Argon and S. Andradóttir (2006), Replicated batch means for steady-state
    simulations, Naval Research Logistics 53.

    Example:
        >>> import pushforward as pf, torch
        >>> x = pf.random.normal(10_001, 4, seed=0)
        >>> smooth = x[1:] + x[:-1]  # every mean of such draws has twice the variance
        >>> t = pf.diagnostics.tally(smooth, batch=100)
        >>> 16_000 < pf.diagnostics.streaming_ess(t).item() < 25_000
        True

    """
    return _mean_quality(_checked(tallies))[0]


def streaming_mcse(tallies: Tallies) -> Tensor:
    r"""Return the Monte Carlo standard error of the mean over all chains and steps.

    .. math:: \sigma = s / \sqrt{\mathrm{ESS}}

    Args:
        tallies: of two complete batches or two chains at least.

    Returns:
        float64, shape ``event``; NaN as in :func:`streaming_ess`, 0 where all states are equal.

    Raises:
        TypeError: ``tallies`` is no :class:`Tallies`.

    Reference: as for :func:`streaming_ess`.

    Example:
        >>> import pushforward as pf
        >>> t = pf.diagnostics.tally(pf.random.normal(10_000, 4, seed=0), batch=100)
        >>> abs(pf.diagnostics.streaming_mcse(t).item() * 40_000**0.5 - 1) < 0.2
        True

    """
    ess, variance = _mean_quality(_checked(tallies))
    return (variance / ess).sqrt()


def _mean_quality(t: Tallies) -> tuple[Tensor, Tensor]:
    """Return the effective sample size of the mean and the variance of the law."""
    n = _valid(t)
    n_chains = int((n > 0).sum())
    n_batches = t.n_steps // t.batch
    size = n.sum().item()
    if size < 2 or (n_chains < 2 and n_batches < 2):
        nothing = torch.full_like(t.total.sum(0), math.nan)
        return nothing, nothing

    place = t.shift + t.total / n.clamp(min=1)
    mean = (n * place).sum(0) / size
    spread = (n * (place - mean).square()).sum(0)
    inside = _centred_squares(t.squares, t.total, n).sum(0)
    if n_chains > 1:
        variance = (inside + spread * (n_chains / (n_chains - 1))) / size
    else:
        variance = inside / (size - 1)

    batched = t.total if t.open_total is None else t.total - t.open_total
    apart = _centred_squares(t.batch_squares, batched, torch.full_like(n, max(1, n_batches)))
    by_batches = apart.sum(0) / (max(1, n_batches - 1) * t.batch * (size / t.n_steps))
    by_chains = spread / max(1, n_chains - 1)
    rate = _weighted(by_batches, n_chains * (n_batches - 1), by_chains, n_chains - 1)
    rate = torch.maximum(rate, variance / math.log10(max(size, 10)))
    ess = torch.where(variance > 0, size * variance / rate, float(size))
    return torch.where(variance.isfinite(), ess, math.nan), variance


def _weighted(batches: Tensor, f_batches: int, chains: Tensor, f_chains: int) -> Tensor:
    """Return the mean of two variances, weighted by their inverse mean squared errors.

    Errors are those of the logarithms, near to normal even at few degrees of freedom. Batches are
    taken to be short by what the chains exceed them by, past two standard deviations of noise.
    """
    if f_chains < 1:
        return batches
    if f_batches < 1:
        return chains
    degrees = torch.tensor([f_batches / 2, f_chains / 2], dtype=torch.float64)
    noise_batches, noise_chains = torch.special.polygamma(1, degrees).tolist()
    excess = (chains / batches).log().clamp(min=0)
    bias = (excess.square() - 4 * (noise_batches + noise_chains)).clamp(min=0)
    weight = (noise_batches + bias) / (noise_batches + bias + noise_chains)
    mean = torch.lerp(batches, chains, weight.nan_to_num(nan=0.0, posinf=1.0))
    return torch.where(batches > 0, mean, chains)


def _centred_squares(squares: Tensor, total: Tensor, count: Tensor) -> Tensor:
    """Return the sum of squares about the mean; zero where rounding is all that is left."""
    centred = squares - total.square() / count.clamp(min=1)
    nothing = centred <= 8 * torch.finfo(torch.float64).eps * squares
    return torch.where(nothing & squares.isfinite(), 0.0, centred)


def _checked(tallies: Any) -> Tallies:
    if not isinstance(tallies, Tallies):
        raise TypeError(f"tallies: expected Tallies, got {type(tallies).__name__}")
    return tallies


def _valid(t: Tallies) -> Tensor:
    return _column(t, t.n_valid, t.n_steps)


def _half_valid(t: Tallies) -> Tensor:
    return _column(t, t.half_valid, t.half_steps)


def _column(t: Tallies, count: Tensor | None, steps: int) -> Tensor:
    """Return a count a chain so that it broadcasts over the event."""
    if count is None:
        count = t.total.new_full(t.total.shape[:1], float(steps))
    return count.reshape(-1, *[1] * (t.total.ndim - 1))
