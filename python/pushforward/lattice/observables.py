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

_BLOCK_TIMES = 5  # autocorrelation times a block
_MOST_BLOCKS = 200


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
        n_blocks: their number.

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

    Blocks are at least five integrated autocorrelation times long (of M^2 and E, the slower one),
    and the error is the jackknife's over blocks. Lattices of one law are independent and averaged
    over; where parameters differ between lattices, each has its own estimates.

    Args:
        states: ``(n_kept, n_lattices, *shape)``, or a result with such ``.draws``.
        target: the :class:`Ising` or :class:`Phi4` that they were drawn from.

    Raises:
        TypeError: ``states`` or ``target`` has the wrong type.
        ValueError: a shape is wrong, or there are fewer than two blocks for an error bar.

    Reference: M. E. J. Newman and G. T. Barkema (1999), Monte Carlo methods in statistical physics,
    chapter 3; K. Binder (1981), Z. Phys. B 43.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.lattice.Ising((4, 4), temperature=2.0)
        >>> x, kept = torch.ones(500, 4, 4, dtype=torch.int8), []
        >>> for k in range(40):
        ...     pf.lattice.HeatBath().advance(
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
    draws = getattr(states, "draws", states)
    if not isinstance(draws, Tensor):
        raise TypeError(
            f"states: expected a tensor or a result with draws, got {type(draws).__name__}"
        )
    n_dims = len(target.shape)
    if draws.ndim != n_dims + 2 or tuple(draws.shape[2:]) != target.shape or 0 in draws.shape[:2]:
        raise ValueError(
            f"states: expected shape (n_kept, n_lattices, *{target.shape}), got "
            f"{tuple(draws.shape)}"
        )
    series = _series(draws.detach(), target)
    pooled = all(p.ndim == 0 for p in target.parameters.values())
    length = _block_length(series, pooled)
    blocks = _blocks(series, length, pooled)
    return _estimates(blocks, target, length)


def _series(draws: Tensor, target: LatticeLaw) -> Tensor:
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


def _block_length(series: Tensor, pooled: bool) -> int:
    n = len(series)
    if n < 2:
        return n
    with warnings.catch_warnings():  # too short a series ends with one block a lattice
        warnings.simplefilter("ignore", RuntimeWarning)
        times = integrated_autocorrelation_time(series[:, :, [2, 4]], average_chains=pooled)
    finite = times[times.isfinite()]
    slowest = float(finite.max()) if len(finite) else 1.0
    return min(n, math.ceil(_BLOCK_TIMES * max(1.0, slowest)))


def _blocks(series: Tensor, length: int, pooled: bool) -> Tensor:
    """Return block averages ``(n_blocks, columns)`` or ``(n_blocks, n_lattices, columns)``."""
    if not pooled:
        length = max(length, len(series) // _MOST_BLOCKS)
        blocks = block_means(series, length)
    else:
        blocks = block_means(series, length).flatten(0, 1)
        if len(blocks) > _MOST_BLOCKS:
            blocks = block_means(blocks, len(blocks) // _MOST_BLOCKS)
    if len(blocks) < 2:
        raise ValueError(
            f"states: expected at least two blocks of {length} states (five autocorrelation "
            f"times), got {len(series)} states"
        )
    return blocks


def _estimates(blocks: Tensor, target: LatticeLaw, length: int) -> Observables:
    volume = target.n_sites
    if isinstance(target, Ising):
        temperature = target.temperature.to(blocks.device)
    else:
        temperature = torch.ones((), dtype=torch.float64, device=blocks.device)
    k1 = 2 * math.sin(math.pi / target.shape[-1])

    def of(statistic: Callable[[Tensor], Tensor]) -> Estimate:
        return Estimate(*jackknife(lambda mean: statistic(mean.movedim(-1, 0)), blocks))

    def correlation_length(c: Tensor) -> Tensor:
        ratio = volume * c[2] / c[6] - 1
        return torch.where(ratio > 0, ratio, math.nan).sqrt() / k1

    return Observables(
        magnetisation=of(lambda c: c[0]),
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
