# SPDX-License-Identifier: Apache-2.0
"""Observables of lattice fields with error bars: jackknife over blocks of correlated states."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pushforward.diagnostics import block_means, integrated_autocorrelation_time, jackknife
from pushforward.lattice.base import LatticeLaw
from pushforward.lattice.ising import Ising
from pushforward.storage import DrawStore

_BLOCK_TIMES = 5  # autocorrelation times a block
_MOST_BLOCKS = 200
_PIECE = 1 << 22  # spins read from a store at a time


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
    block_length: int
    n_blocks: int

    def __str__(self) -> str:
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Estimate) and field.name != "two_point":
                pairs = zip(value.value.reshape(-1), value.error.reshape(-1), strict=True)
                for i, (v, e) in enumerate(pairs):
                    index = f"[{i}]" if value.value.ndim else ""
                    lines.append(f"{field.name + index:24s} {v.item():14.6g} +- {e.item():.2g}")
        return "\n".join(lines)


def observables(states: Any, target: LatticeLaw) -> Observables:
    """Return averages over a time series of lattice states, with standard errors.

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

    Args:
        states: ``(n_kept, n_lattices, *shape)``, one state ``(n_lattices, *shape)``, a result with
            such ``.draws`` or with a ``.path`` to read them from, or a
            :class:`pushforward.storage.DrawStore`.
        target: the :class:`Ising` or :class:`Phi4` that they were drawn from.

    Returns:
        The averages. An error is NaN where there is nothing to take it from.

    Raises:
        TypeError: ``states`` or ``target`` has the wrong type.
        ValueError: a shape is wrong, or a result kept no draws.

    Warns:
        RuntimeWarning: the series is shorter than ten autocorrelation times, or all lattices of a
            law together than fifty, so that errors are rough. With fewer than two blocks they are
            NaN.

    Reference: M. E. J. Newman and G. T. Barkema (1999), Monte Carlo methods in statistical physics,
    chapter 3; K. Binder (1981), Z. Phys. B 43; U. Wolff (2004), Monte Carlo errors with less
    errors, Comput. Phys. Commun. 156.

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

    """
    if not isinstance(target, LatticeLaw):
        raise TypeError(f"target: expected Ising or Phi4, got {type(target).__name__}")
    series = _series(_states(states, target), target)
    pooled = all(p.ndim == 0 for p in target.parameters.values())
    m, time_of_m = _magnetisation(series[:, :, 0], target, pooled)
    time = _longest(_times(series[:, :, [2, 4]], average_chains=pooled))
    shape = series.shape[:2]
    for name, tau in (("M", _longest(time_of_m)), ("M^2 or E", time)):
        text = _complaint(name, tau, shape, pooled)
        if text:
            warnings.warn(text, RuntimeWarning, stacklevel=2)
    length = _block_length(len(series), time, pooled)
    return _estimates(_blocks(series, length, pooled), target, length, m)


def _states(states: Any, target: LatticeLaw) -> Iterable[Tensor]:
    """Return the states of all lattices, one after another."""
    draws = getattr(states, "draws", states)
    if draws is None and getattr(states, "path", None) is not None:
        draws = DrawStore.open(states.path)
    if draws is None:
        raise ValueError(
            'states: expected draws, got a result that kept none (run with store="draws" or a '
            "pathlib.Path)"
        )
    if isinstance(draws, DrawStore):
        given: tuple[int, ...] = (draws.n_written, draws.n_chains, *draws.event)
    elif isinstance(draws, Tensor):
        given, draws = tuple(draws.shape), draws.detach()
    else:
        raise TypeError(
            f"states: expected a tensor or a result with draws, got {type(draws).__name__}"
        )
    one = len(given) == len(target.shape) + 1 and isinstance(draws, Tensor)
    shape = (1, *given) if one else given
    if shape[2:] != target.shape or 0 in shape[:2]:
        raise ValueError(
            f"states: expected shape (n_kept, n_lattices, *{target.shape}) or (n_lattices, "
            f"*{target.shape}), got {given}"
        )
    if isinstance(draws, DrawStore):
        return _read(draws)
    return iter(draws[None] if one else draws)


def _read(store: DrawStore) -> Iterator[Tensor]:
    """Yield the draws of a store, a piece in memory at a time."""
    each = max(1, _PIECE // (store.n_chains * math.prod(store.event)))
    for start in range(0, store.n_written, each):
        yield from store.read(start, min(start + each, store.n_written))[0]


def _series(draws: Iterable[Tensor], target: LatticeLaw) -> Tensor:
    """Return what the averages are made of, float64 ``(n_kept, n_lattices, 6 + n_lags + 1)``.

    Columns: M, |M|, M^2, M^4, E / V, E^2 / V, the power at the smallest momentum, and G(r).
    """
    columns = []
    for states in draws:
        phi = states.to(torch.float64)
        flat = phi.flatten(1)
        m, energy = flat.mean(1), _energy(target, phi) / target.n_sites
        rows = torch.fft.rfft(phi, dim=-1)
        power = rows.real.square() + rows.imag.square()
        axes = tuple(range(1, phi.ndim - 1))
        line = power.mean(axes) if axes else power
        length = phi.shape[-1]
        lags = torch.fft.irfft(line, n=length)[:, : length // 2 + 1] / length
        whole = rows.sum(axes) if axes else rows
        first = whole[:, min(1, whole.shape[1] - 1)]
        smallest = (first.real.square() + first.imag.square()) / target.n_sites
        sums = (m, m.abs(), m**2, m**4, energy, energy**2 * target.n_sites, smallest)
        columns.append(torch.cat((torch.stack(sums, 1), lags), 1))
    return torch.stack(columns)


def _energy(target: LatticeLaw, phi: Tensor) -> Tensor:
    return target.energy(phi) if isinstance(target, Ising) else -target.log_density(phi)


def _times(series: Tensor, *, average_chains: bool) -> Tensor:
    """Return autocorrelation times; 1 where there is none."""
    if len(series) < 2:
        return torch.ones_like(series[0, 0] if average_chains else series[0])
    with warnings.catch_warnings():  # _complaint names what is too short
        warnings.simplefilter("ignore", RuntimeWarning)
        times = integrated_autocorrelation_time(series, average_chains=average_chains)
    return torch.where(times.isfinite(), times, 1.0).clamp(min=1 / len(series))


def _longest(times: Tensor) -> float:
    return max(1.0, float(times.max()))


def _magnetisation(m: Tensor, target: LatticeLaw, pooled: bool) -> tuple[Estimate, Tensor]:
    """Return <M> from ``m``, ``(n_kept, n_lattices)``, and the autocorrelation times of M."""
    n, n_chains = len(m), m.shape[1] if pooled else 1
    dims = (0, 1) if pooled else (0,)
    value = m.mean(dims)
    even = (target.parameters["field"] == 0).to(m.device)  # then M and -M are alike
    away = m - torch.where(even, 0.0, value)
    both = torch.stack((away, -away), 1)  # whose mean is 0
    times = _times(both.flatten(1) if pooled else both, average_chains=True)
    share = times / (n * n_chains)  # of the variance of M: that of the mean
    share = torch.where(even, share, share / (1 - share))  # a mean that was fitted
    error = (away.square().mean(dims) * share).sqrt()
    # One series that is too short for its window says nothing of its mean.
    unknown = n_chains == 1 and (n == 1 or (~even & (n < 2 * _BLOCK_TIMES * times)))
    return Estimate(value, torch.where(torch.as_tensor(unknown), math.nan, error)), times


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


def _estimates(blocks: Tensor, target: LatticeLaw, length: int, m: Estimate) -> Observables:
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
        block_length=length,
        n_blocks=len(blocks),
    )
