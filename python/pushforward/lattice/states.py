# SPDX-License-Identifier: Apache-2.0
"""States of lattices, from wherever they are kept, and the numbers of each that averages need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from pushforward.lattice.base import LatticeLaw
from pushforward.lattice.ising import Ising, check_spins
from pushforward.storage import DrawStore

_PIECE = 1 << 22  # sites read from a store, or checked, at a time


def series_of(states: Any, target: LatticeLaw) -> Tensor:
    """Return what averages over states are made of, float64 ``(n_kept, n_lattices, 7 + n_lags)``.

    Columns: M, |M|, M^2, M^4, E / V, E^2 / V, the power at the smallest momentum, and G(r).

    Args:
        states: as of :func:`pushforward.lattice.observables`.
        target: the law that they were drawn from.

    Raises:
        TypeError: ``states`` has the wrong type.
        ValueError: a shape is wrong, a result kept no draws, or a spin is not +1 or -1.

    """
    columns = []
    for state in _states(states, target):
        phi = state.to(torch.float64)
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
    return target.energy_of_spins(phi) if isinstance(target, Ising) else -target.log_density(phi)


def _states(states: Any, target: LatticeLaw) -> Iterator[Tensor]:
    """Return the states of all lattices, one after another, checked as they come."""
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
    each = max(1, _PIECE // math.prod(shape[1:]))
    if isinstance(draws, DrawStore):
        return _checked(_read(draws, each), target)
    return _checked((draws[None] if one else draws).split(each), target)


def _read(store: DrawStore, each: int) -> Iterator[Tensor]:
    """Yield the draws of a store, ``each`` in memory at a time."""
    for start in range(0, store.n_written, each):
        yield store.read(start, min(start + each, store.n_written))[0]


def _checked(pieces: Iterable[Tensor], target: LatticeLaw) -> Iterator[Tensor]:
    """Yield the states of the pieces one after another."""
    for piece in pieces:
        if isinstance(target, Ising):
            check_spins(piece, "states")
        elif not piece.is_floating_point():
            raise TypeError(f"states: expected a floating type, got {piece.dtype}")
        yield from piece
