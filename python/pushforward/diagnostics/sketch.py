# SPDX-License-Identifier: Apache-2.0
"""Quantiles of kept draws, and of a stream of draws that nobody keeps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward import _ops
from pushforward.diagnostics.arrays import by_pieces, real
from pushforward.diagnostics.ranks import quantiles

__all__ = ["QuantileSketch", "quantile"]

_PER_DOUBLING = 32  # bins of one width
_MOST_SHARED = 16  # coordinates that several threads count at once
_FIRST = 512  # values of a coordinate from which its centre and scale are taken


def quantile(draws: Tensor, q: Tensor | float) -> Tensor:
    """Return quantiles of each coordinate over all chains, linear between order statistics.

    Args:
        draws: ``(n_kept, n_chains, *event)`` real numbers, at least one draw.
        q: probabilities, a number or a tensor of any shape.

    Returns:
        float64, ``(*q.shape, *event)``; NaN where a draw is not finite.

    Raises:
        TypeError: ``draws`` is not a tensor of real numbers.
        ValueError: it has fewer than two dimensions or no draws, or a probability is not between
            0 and 1.

    Example:
        >>> import pushforward as pf, torch
        >>> draws = torch.arange(101.0).reshape(101, 1)
        >>> pf.diagnostics.quantile(draws, torch.tensor([0.25, 0.5]))
        tensor([25., 50.], dtype=torch.float64)

    """
    draws = real(draws, "draws")
    if draws.ndim < 2 or draws.shape[0] * draws.shape[1] == 0:
        raise ValueError(
            "draws: expected shape (n_kept, n_chains, *event) with at least one draw, got "
            f"{tuple(draws.shape)}"
        )
    shares, event = _shares(q, draws.device), draws.shape[2:]
    probabilities = tuple(shares.flatten().tolist())

    def of_rows(x: Tensor) -> Tensor:
        return torch.where(x.isfinite().all(1)[:, None], quantiles(x, probabilities), torch.nan)

    rows = draws.reshape(draws.shape[0] * draws.shape[1], math.prod(event)).mT
    out = by_pieces(of_rows, rows, 4 * rows.shape[1], (len(rows),))
    return out.mT.reshape(*shares.shape, *event)


def _shares(q: Tensor | float, device: torch.device) -> Tensor:
    """Return probabilities as float64, checked."""
    shares = torch.as_tensor(q, dtype=torch.float64, device=device)
    if not bool(((shares >= 0) & (shares <= 1)).all()):
        raise ValueError(f"q: expected probabilities between 0 and 1, got {q}")
    return shares


class QuantileSketch:
    r"""A histogram of each coordinate whose bins widen with the distance from its centre.

    With :math:`u = 1 + |x - c| / s`, every doubling of u is cut into 32 bins of equal width; the
    centre c and the scale s are the median and the interquartile range of the first values. Near
    the centre the bins are s/32 wide, far from it 1.6 to 3.1 % of the distance, out to 4e9 scales,
    so that laws with heavy tails, or whose first values were far from the rest, are resolved too.
    Quantiles are interpolated linearly within a bin: for a smooth density their error is near
    1e-3 s.

    The counts are integers: the order in which values come, and any split of them over calls
    after the first 512, give the same result.

    Args:
        dim: number of coordinates.
        device: where the counts live, 16 KiB a coordinate.

    Example:
        >>> import pushforward as pf, torch
        >>> sketch = pf.diagnostics.QuantileSketch(1)
        >>> for seed in range(10):
        ...     sketch.add(pf.random.normal(10_000, 1, seed=seed))
        >>> round(sketch.quantile(torch.tensor([0.8413])).item(), 1)
        1.0

    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.n = 0
        self._first: Tensor | None = torch.empty((0, dim), dtype=torch.float64, device=device)
        n_parts = torch.get_num_threads() if dim <= _MOST_SHARED else 1
        self._counts, self._ends = _nothing(n_parts, dim, torch.device(device))
        ones = torch.ones(dim, dtype=torch.float64, device=device)
        self._centre, self._scale = 0 * ones, ones
        self._dim = dim

    def add(self, values: Tensor) -> None:
        """Take in values.

        Args:
            values: ``(n, dim)`` real finite numbers.

        Raises:
            TypeError: they are no tensor of real numbers.
            ValueError: the shape is wrong or a value is not finite.

        """
        rows = real(values, "values")
        if rows.ndim != 2 or rows.shape[1] != self._dim:
            raise ValueError(f"values: expected shape (n, {self._dim}), got {tuple(rows.shape)}")
        if rows.dtype not in (torch.float32, torch.float64):
            rows = rows.double()
        if not _ops.is_finite(rows):
            raise ValueError("values: expected finite numbers, got inf or nan")
        if len(rows) == 0:
            return
        self.n += len(rows)
        if self._first is None:
            self._count(rows)
            return
        self._first = torch.cat([self._first, rows.double()])
        if len(self._first) >= _FIRST:
            self._settle(self._first)

    def _settle(self, first: Tensor) -> None:
        low, self._centre, high = quantiles(first[:_FIRST].mT, (0.25, 0.5, 0.75)).unbind(1)
        spread = high - low
        smallest = self._centre.abs() * 1e-6
        self._scale = torch.where(spread > smallest, spread, smallest.clamp(min=1e-30))
        self._first = None
        self._count(first)

    def _count(self, rows: Tensor) -> None:
        _ops.count_in_bins_(
            self._counts,
            self._ends,
            rows,
            centre=self._centre.contiguous(),
            inverse_scale=1 / self._scale,
        )

    def quantile(self, q: Tensor | float) -> Tensor:
        """Return quantiles of each coordinate.

        Args:
            q: probabilities, a number or a tensor of any shape.

        Returns:
            float64, ``(*q.shape, dim)``; NaN while there are no values.

        Raises:
            ValueError: a probability is not between 0 and 1.

        """
        shares = _shares(q, self._counts.device)
        wanted = shares.flatten()
        if self.n == 0:
            out = torch.full((len(wanted), self._dim), torch.nan, dtype=torch.float64)
        elif self._first is not None:
            out = quantiles(self._first.mT, tuple(wanted.tolist())).mT
        else:
            out = self._interpolated(wanted)
        return out.reshape(*shares.shape, self._dim)

    def _interpolated(self, shares: Tensor) -> Tensor:
        counts, ends = self._together()
        below = counts.cumsum(1).double()  # values in the bins up to each one's end
        rank = (shares * self.n).expand(len(below), -1).contiguous()
        at = torch.searchsorted(below, rank).clamp(max=_ops.SKETCH_BINS - 1)
        inside = counts.gather(1, at).double()
        before = below.gather(1, at) - inside
        part = ((rank - before) / inside.clamp(min=1)).clamp(0, 1)
        left, right = (
            self._centre[:, None] + self._scale[:, None] * _edge(at + step) for step in (0, 1)
        )
        values = left + part * (right - left)
        least, most = _numbers(ends).unbind(1)
        return torch.minimum(torch.maximum(values, least[:, None]), most[:, None]).mT

    def _together(self) -> tuple[Tensor, Tensor]:
        """Return the counts and the extremes of all parts."""
        least, most = self._ends.unbind(2)
        return self._counts.sum(0), torch.stack((least.amin(0), most.amax(0)), 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds."""
        first = self._first if self._first is not None else self._centre.new_empty((0, 0))
        counts, ends = self._together()
        edges = torch.stack([self._centre, self._scale])
        done = torch.tensor([self.n, self._first is None], dtype=torch.int64)
        return {"first": first, "counts": counts, "ends": ends, "edges": edges, "done": done}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what a checkpoint held."""
        device = self._counts.device
        n, settled = tensors["done"].tolist()
        self.n, self._first = n, None if settled else tensors["first"].to(device)
        self._counts, self._ends = _nothing(len(self._counts), self._dim, device)
        self._counts[0], self._ends[0] = tensors["counts"].to(device), tensors["ends"].to(device)
        self._centre, self._scale = tensors["edges"].to(device).unbind(0)


def _nothing(n_parts: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return counts and extremes of no values."""
    counts = torch.zeros((n_parts, dim, _ops.SKETCH_BINS), dtype=torch.int64, device=device)
    limits = torch.iinfo(torch.int64)
    ends = torch.tensor([limits.max, limits.min], device=device).repeat(n_parts, dim, 1)
    return counts, ends


def _edge(bins: Tensor) -> Tensor:
    """Return where bins begin, in scales from the centre; the bin past the last one's end too."""
    away = bins - _ops.SKETCH_BINS // 2
    doublings, rest = away.abs() // _PER_DOUBLING, away.abs() % _PER_DOUBLING
    return (torch.exp2(doublings.double()) * (1 + rest / _PER_DOUBLING) - 1) * away.sign()


def _numbers(ends: Tensor) -> Tensor:
    """Return the numbers whose order these integers have."""
    return torch.where(ends < 0, ends ^ torch.iinfo(torch.int64).max, ends).view(torch.float64)
