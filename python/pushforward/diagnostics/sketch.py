# SPDX-License-Identifier: Apache-2.0
"""Quantiles of kept draws, and of a stream of draws that nobody keeps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.diagnostics.arrays import by_pieces, real
from pushforward.diagnostics.ranks import quantiles

__all__ = ["QuantileSketch", "quantile"]

_BINS = 2048
_REACH = 28.0  # in units of asinh: values 7e11 scales from the centre still have bins of their own
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

    A value x falls in the bin of :math:`\operatorname{asinh}((x - c) / s)`; the centre c and the
    scale s are the median and the interquartile range of the first values. Near the centre the bins
    are s/37 wide, far from it 2.7 % of the distance, so that laws with heavy tails, or whose
    first values were far from the rest, are resolved too. Quantiles are interpolated linearly
    within a bin: for a smooth density their error is near 1e-3 s.

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
        self._counts = torch.zeros((dim, _BINS), dtype=torch.int64, device=device)
        ones = torch.ones(dim, dtype=torch.float64, device=device)
        self._centre, self._scale = 0 * ones, ones
        self._least, self._most = torch.inf * ones, -torch.inf * ones

    def add(self, values: Tensor) -> None:
        """Take in values.

        Args:
            values: ``(n, dim)`` real finite numbers.

        Raises:
            TypeError: they are no tensor of real numbers.
            ValueError: the shape is wrong or a value is not finite.

        """
        rows = real(values, "values")
        if rows.ndim != 2 or rows.shape[1] != len(self._counts):
            raise ValueError(
                f"values: expected shape (n, {len(self._counts)}), got {tuple(rows.shape)}"
            )
        rows = rows.double()
        if not bool(rows.isfinite().all()):
            raise ValueError("values: expected finite numbers, got inf or nan")
        if len(rows) == 0:
            return
        self.n += len(rows)
        self._least = torch.minimum(self._least, rows.amin(0))
        self._most = torch.maximum(self._most, rows.amax(0))
        if self._first is None:
            self._count(rows)
            return
        self._first = torch.cat([self._first, rows])
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
        at = torch.asinh((rows - self._centre) / self._scale)
        bins = ((at + _REACH) * (_BINS / (2 * _REACH))).long().clamp(0, _BINS - 1)
        flat = bins + torch.arange(len(self._counts), device=bins.device) * _BINS
        counted = torch.bincount(flat.flatten(), minlength=self._counts.numel())
        self._counts += counted.reshape(self._counts.shape)

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
            out = torch.full((len(wanted), len(self._counts)), torch.nan, dtype=torch.float64)
        elif self._first is not None:
            out = quantiles(self._first.mT, tuple(wanted.tolist())).mT
        else:
            out = self._interpolated(wanted)
        return out.reshape(*shares.shape, len(self._counts))

    def _interpolated(self, shares: Tensor) -> Tensor:
        below = self._counts.cumsum(1).double()  # values in the bins up to each one's end
        rank = (shares * self.n).expand(len(below), -1).contiguous()
        at = torch.searchsorted(below, rank).clamp(max=_BINS - 1)
        inside = self._counts.gather(1, at).double()
        before = below.gather(1, at) - inside
        part = ((rank - before) / inside.clamp(min=1)).clamp(0, 1)
        width = 2 * _REACH / _BINS
        start, end = at * width - _REACH, (at + 1) * width - _REACH
        left, right = (
            self._centre[:, None] + self._scale[:, None] * torch.sinh(edge) for edge in (start, end)
        )
        values = left + part * (right - left)
        least, most = self._least[:, None], self._most[:, None]
        return torch.minimum(torch.maximum(values, least), most).mT

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds."""
        first = self._first if self._first is not None else self._counts.new_empty((0, 0)).double()
        edges = torch.stack([self._centre, self._scale, self._least, self._most])
        done = torch.tensor([self.n, self._first is None], dtype=torch.int64)
        return {"first": first, "counts": self._counts, "edges": edges, "done": done}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what a checkpoint held."""
        device = self._counts.device
        n, settled = tensors["done"].tolist()
        self.n, self._first = n, None if settled else tensors["first"].to(device)
        self._counts = tensors["counts"].to(device).clone()
        self._centre, self._scale, self._least, self._most = tensors["edges"].to(device).unbind(0)
