# SPDX-License-Identifier: Apache-2.0
"""Observables of lattice fields with error bars: jackknife over blocks of correlated states."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pushforward.diagnostics import block_means, integrated_autocorrelation_time, jackknife
from pushforward.lattice.base import LatticeLaw
from pushforward.lattice.ising import Ising
from pushforward.lattice.states import series_of

_BLOCK_TIMES = 5  # autocorrelation times a block
_WINDOW_TIMES = 5.0  # autocorrelation times in the window of their own sum
_MOST_BLOCKS = 200
_ROUNDING = 1e-12  # of a number: series that move by less stand still


class Estimate(NamedTuple):
    """A number, or one a lattice, and its standard error; float64."""

    value: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class Observables:
    """What :func:`observables` returns; printed, it is a table.

    Each is an :class:`Estimate` of shape ``()``, or ``(n_lattices,)`` where the law's parameters
    differ between lattices; ``two_point`` has a further dim. M is the mean of the field over a
    lattice of V sites, E its energy (Ising) or action (phi^4).

    Attributes:
        magnetisation: <M>.
        abs_magnetisation: <|M|>.
        susceptibility: chi = V (<M^2> - <|M|>^2) / T, with T = 1 for phi^4.
        energy: <E> / V.
        heat_capacity: (<E^2> - <E>^2) / (V T^2).
        binder: U4 = 1 - <M^4> / (3 <M^2>^2).
        two_point: G(r) = <phi_s phi_{s + r}> for r = 0 ... along the last dimension, averaged over
            sites; not connected.
        correlation_length: second moment, sqrt(G~(0) / G~(k1) - 1) / (2 sin(k1 / 2)) with k1 the
            smallest momentum along the last dimension and G~ the Fourier transform of G over the
            lattice; NaN where the ratio is below 1, and meant for the symmetric phase.
        tau_int: the integrated autocorrelation time of each of these, by name: 1/2 + sum over
            t >= 1 of rho(t), in kept states, in the shape of the value, with its own standard
            error; NaN where a series stands still and for one state.
        block_length: kept states in a block of the jackknife.
        n_blocks: their number. The error of <M> needs no blocks.

    """

    magnetisation: Estimate
    abs_magnetisation: Estimate
    susceptibility: Estimate
    energy: Estimate
    heat_capacity: Estimate
    binder: Estimate
    two_point: Estimate
    correlation_length: Estimate
    tau_int: dict[str, Estimate]
    block_length: int
    n_blocks: int

    def __str__(self) -> str:
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Estimate) and field.name != "two_point":
                columns = [t.reshape(-1).tolist() for t in (*value, *self.tau_int[field.name])]
                for i, (v, e, tau, of_tau) in enumerate(zip(*columns, strict=True)):
                    index = f"[{i}]" if value.value.ndim else ""
                    lines.append(
                        f"{field.name + index:24s} {v:14.6g} +- {e:<9.2g} "
                        f"tau_int {tau:.3g} +- {of_tau:.2g}"
                    )
        return "\n".join(lines)


def observables(states: Any, target: LatticeLaw) -> Observables:
    r"""Return averages over a time series of lattice states, with standard errors.

    Lattices of one law are independent and averaged over; where parameters differ between
    lattices, each has its own estimates. The error of <M> follows from M's own autocorrelation
    time tau, which is the time between turns of the whole lattice and often far longer than all
    others: var(M) tau over the number of states. Without a field the variance and tau are those
    about the mean 0 that symmetry gives, so that a lattice that never turned has an error as large
    as its M. The other errors are the jackknife's over blocks of at least five autocorrelation
    times (of M^2 and E, the slower one). Where a series is shorter than two blocks, what is left
    is the spread between lattices of one law.

    One state of each lattice has the spread between lattices of one law as its errors, and NaN
    for one lattice or for parameters that differ.

    Beside each observable stands its integrated autocorrelation time in kept states,

    .. math:: \tau_{int} = \tfrac12 + \sum_{t \ge 1} \rho(t),

    so that n states are worth ``n / (2 tau_int)`` independent ones: tau above is ``2 tau_int``,
    which :func:`pushforward.diagnostics.integrated_autocorrelation_time` returns. rho is the
    autocorrelation of the observable in a single state; of a function of averages, that of its
    linear part: (|M| - <|M|>)^2 for the susceptibility, (E - <E>)^2 for the heat capacity,
    M^4 / <M^4> - 2 M^2 / <M^2> for U4, M^2 / <M^2> less the same at momentum k1 for the
    correlation length. The sum ends at the first lag ``W >= 10 tau_int(W)``, and the error of
    tau_int is ``tau_int sqrt(4 (W + 1/2 - tau_int) / n)``, n the number of states of all lattices
    that are averaged over. Such a window suits sums that rise; tau_int is rough where rho
    alternates in sign.

    Args:
        states: ``(n_kept, n_lattices, *shape)``, one state ``(n_lattices, *shape)``, a result with
            such ``.draws`` or with a ``.path`` to read them from, or a
            :class:`pushforward.storage.DrawStore`.
        target: the :class:`Ising` or :class:`Phi4` that they were drawn from.

    Returns:
        The averages. An error is NaN where there is nothing to take it from. A phi^4 field that is
        not finite makes NaN of the estimates of its lattice, or of all lattices of one law.

    Raises:
        TypeError: ``states`` or ``target`` has the wrong type; spins are int8 or floating, fields
            floating.
        ValueError: a shape is wrong, a result kept no draws, or a spin is not +1 or -1.

    Warns:
        RuntimeWarning: the series is shorter than ten autocorrelation times, or all lattices of a
            law together than fifty, so that errors are rough. With fewer than two blocks they are
            NaN. Or a phi^4 field is not finite; the warning names the first.

    Reference: M. E. J. Newman and G. T. Barkema (1999), Monte Carlo methods in statistical physics,
    chapter 3; K. Binder (1981), Z. Phys. B 43; N. Madras and A. D. Sokal (1988), The pivot
    algorithm, J. Stat. Phys. 50; U. Wolff (2004), Monte Carlo errors with less errors, Comput.
    Phys. Commun. 156.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.lattice.Ising((4, 4), temperature=2.0)
        >>> x, kept = torch.ones(500, 4, 4, dtype=torch.int8), []
        >>> for k in range(40):
        ...     pf.lattice.SwendsenWang().advance(
        ...         x, law, seed=0, first_step=5 * k, n_steps=5, chain_offset=0
        ...     )
        ...     kept.append(x.clone())
        >>> table = pf.lattice.observables(torch.stack(kept[10:]), law)
        >>> value, error = table.energy
        >>> bool((value + 1.75538).abs() < 5 * error < 0.05)
        True
        >>> bool(table.tau_int["energy"].value < 1)  # kept 5 cluster steps apart
        True

    """
    if not isinstance(target, LatticeLaw):
        raise TypeError(f"target: expected Ising or Phi4, got {type(target).__name__}")
    series = _without_nonfinite(series_of(states, target))
    pooled = all(p.ndim == 0 for p in target.parameters.values())
    m, time_of_m = _magnetisation(series[:, :, 0], target, pooled)
    time = _longest(_times(series[:, :, [2, 4]], average_chains=pooled))
    shape = series.shape[:2]
    for name, tau in (("M", _longest(time_of_m)), ("M^2 or E", time)):
        text = _complaint(name, tau, shape, pooled)
        if text:
            warnings.warn(text, RuntimeWarning, stacklevel=2)
    length = _block_length(len(series), time, pooled)
    tau_int = _tau_int(series, time_of_m, pooled)
    return _estimates(_blocks(series, length, pooled), target, length, m, tau_int)


def _without_nonfinite(series: Tensor) -> Tensor:
    """Return the series with NaN for all of a state that is not finite, and say which is."""
    bad = ~series[:, :, 0].isfinite()
    if not bool(bad.any()):
        return series
    k, lattice = bad.nonzero()[0].tolist()
    warnings.warn(
        f"observables: {int(bad.sum())} of {bad.numel()} states are not finite, the first being "
        f"that of lattice {lattice} at index {k}; what is averaged over them is NaN",
        RuntimeWarning,
        stacklevel=3,
    )
    return series.masked_fill(bad[:, :, None], math.nan)


def _times(series: Tensor, *, average_chains: bool) -> Tensor:
    """Return autocorrelation times, ``2 tau_int``; NaN where there is none."""
    if len(series) < 2:
        return torch.full_like(series[0, 0] if average_chains else series[0], math.nan)
    with warnings.catch_warnings():  # _complaint names what is too short
        warnings.simplefilter("ignore", RuntimeWarning)
        times = integrated_autocorrelation_time(
            series, _WINDOW_TIMES, average_chains=average_chains
        )
    return times.clamp(min=1 / len(series))


def _stands_still(series: Tensor, dims: tuple[int, ...]) -> Tensor:
    return series.amax(dims) - series.amin(dims) <= _ROUNDING * series.abs().amax(dims)


def _or_one(times: Tensor) -> Tensor:
    return torch.where(times.isnan(), 1.0, times)


def _longest(times: Tensor) -> float:
    return max(1.0, float(_or_one(times).max()))


def _tau_int(series: Tensor, time_of_m: Tensor, pooled: bool) -> dict[str, Estimate]:
    """Return the autocorrelation times of the linear part of each observable."""
    dims = (0, 1) if pooled else (0,)
    c = series.movedim(-1, 0)
    mean = series.mean(dims, keepdim=True).movedim(-1, 0)
    parts = {
        "abs_magnetisation": c[1],
        "susceptibility": (c[1] - mean[1]).square(),
        "energy": c[4],
        "heat_capacity": (c[4] - mean[4]).square(),
        "binder": c[3] / mean[3] - 2 * c[2] / mean[2],
        "correlation_length": c[2] / mean[2] - c[6] / mean[6],
    }
    both = torch.cat((torch.stack([*parts.values()], -1), series[:, :, 7:]), -1)
    times = _times(both, average_chains=pooled)
    times = torch.where(_stands_still(both, dims), math.nan, times)
    n, n_states = len(series), math.prod(series.shape[:2]) if pooled else len(series)

    def of(tau: Tensor) -> Estimate:
        window, half = (_WINDOW_TIMES * tau).ceil().clamp(max=n - 1), tau / 2
        return Estimate(half, half * (4 * (window + 0.5 - half) / n_states).sqrt())

    found = {name: of(times[..., i]) for i, name in enumerate(parts)}
    found |= {"magnetisation": of(time_of_m), "two_point": of(times[..., len(parts) :])}
    return {f.name: found[f.name] for f in fields(Observables) if f.name in found}


def _magnetisation(m: Tensor, target: LatticeLaw, pooled: bool) -> tuple[Estimate, Tensor]:
    """Return <M> from ``m``, ``(n_kept, n_lattices)``, and the autocorrelation times of M."""
    n, n_chains = len(m), m.shape[1] if pooled else 1
    dims = (0, 1) if pooled else (0,)
    value = m.mean(dims)
    even = (target.parameters["field"] == 0).to(m.device)  # then M and -M are alike
    away = m - torch.where(even, 0.0, value)
    both = torch.stack((away, -away), 1)  # whose mean is 0
    found = _times(both.flatten(1) if pooled else both, average_chains=True)
    found = torch.where(~even & _stands_still(m, dims), math.nan, found)
    times = _or_one(found)
    share = times / (n * n_chains)  # of the variance of M: that of the mean
    share = torch.where(even, share, share / (1 - share))  # a mean that was fitted
    error = (away.square().mean(dims) * share).sqrt()
    # One series that is too short for its window says nothing of its mean.
    unknown = n_chains == 1 and (n == 1 or (~even & (n < 2 * _BLOCK_TIMES * times)))
    return Estimate(value, torch.where(torch.as_tensor(unknown), math.nan, error)), found


def _complaint(name: str, tau: float, shape: torch.Size, pooled: bool) -> str:
    """Return what to say of a series that is too short for an autocorrelation time, if it is."""
    n, n_chains = shape[0], shape[1] if pooled else 1
    spread = n_chains >= 2 * _BLOCK_TIMES and n < 2 * _BLOCK_TIMES * tau
    if n == 1 or n >= max(2 * _BLOCK_TIMES, 10 * _BLOCK_TIMES / n_chains) * tau:
        return ""
    return (
        f"observables: {n} states of {'a' if n_chains == 1 else n_chains} "
        f"lattice{'' if n_chains == 1 else 's'} are too few for the autocorrelation time of "
        f"{name}, {tau:.3g} states; errors "
        + ("are the spread between lattices" if spread else "are not to be relied on")
    )


def _block_length(n: int, tau: float, pooled: bool) -> int:
    """Return the length of blocks that leave out as few states as can be."""
    length = math.ceil(_BLOCK_TIMES * tau)
    if not pooled:
        length = max(length, n // _MOST_BLOCKS)
    return n // max(1, n // length)


def _blocks(series: Tensor, length: int, pooled: bool) -> Tensor:
    """Return block averages ``(n_blocks, columns)`` or ``(n_blocks, n_lattices, columns)``."""
    blocks = block_means(series, length)
    if pooled:
        blocks = blocks.flatten(0, 1)
        if len(blocks) > _MOST_BLOCKS:
            blocks = block_means(blocks, len(blocks) // _MOST_BLOCKS)
    return blocks


def _estimates(
    blocks: Tensor,
    target: LatticeLaw,
    length: int,
    m: Estimate,
    tau_int: dict[str, Estimate],
) -> Observables:
    volume = target.n_sites
    if isinstance(target, Ising):
        temperature = target.temperature.to(blocks.device)
    else:
        temperature = torch.ones((), dtype=torch.float64, device=blocks.device)
    k1 = 2 * math.sin(math.pi / target.shape[-1])

    def of(statistic: Callable[[Tensor], Tensor]) -> Estimate:
        if len(blocks) < 2:
            value = statistic(blocks[0].movedim(-1, 0))
            return Estimate(value, torch.full_like(value, math.nan))
        return Estimate(*jackknife(lambda mean: statistic(mean.movedim(-1, 0)), blocks))

    def correlation_length(c: Tensor) -> Tensor:
        ratio = volume * c[2] / c[6] - 1
        return torch.where(ratio > 0, ratio, math.nan).sqrt() / k1

    return Observables(
        magnetisation=m,
        abs_magnetisation=of(lambda c: c[1]),
        susceptibility=of(lambda c: volume * (c[2] - c[1] ** 2) / temperature),
        energy=of(lambda c: c[4]),
        heat_capacity=of(lambda c: (c[5] - volume * c[4] ** 2) / temperature**2),
        binder=of(lambda c: 1 - c[3] / (3 * c[2] ** 2)),
        two_point=of(lambda c: c[7:].movedim(0, -1)),
        correlation_length=of(correlation_length),
        tau_int=tau_int,
        block_length=length,
        n_blocks=len(blocks),
    )
