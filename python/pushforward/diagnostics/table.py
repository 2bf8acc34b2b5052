# SPDX-License-Identifier: Apache-2.0
"""One table of a run: estimates, their errors, and whether to believe them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from pushforward.diagnostics.convergence import check_draws, each_coordinate, ess, mcse, rhat
from pushforward.diagnostics.ranks import quantiles

__all__ = ["Summary", "summary"]

_ROWS = 40  # that are printed


@dataclass(frozen=True, eq=False)
class Summary:
    """What :func:`summary` returns: float64 tensors of shape ``event``; printed, it is a table.

    Attributes:
        names: of the coordinates, in the order of the flattened event.
        mean: over all chains and kept draws.
        sd: sample standard deviation, likewise.
        mcse_mean: Monte Carlo standard error of the mean.
        mcse_sd: that of the standard deviation; None where no draws were kept.
        q5: 5 % quantile, likewise but for a sketch of them.
        median: the median, likewise.
        q95: 95 % quantile, likewise.
        ess_bulk: effective sample size of the bulk; of the mean where no draws were kept.
        ess_tail: that of the tails, or None.
        rhat: rank-normalised split R-hat; that of the halves' means where no draws were kept.

    Example:
        >>> import pushforward as pf
        >>> draws = pf.random.normal(1000, 4, seed=0)
        >>> lines = str(pf.diagnostics.summary(draws, names=["mu"])).splitlines()
        >>> lines[0].split()[:5], lines[1].split()[0]
        (['mean', 'sd', 'mcse_mean', 'mcse_sd', 'q5'], 'mu')

    """

    names: tuple[str, ...]
    mean: Tensor
    sd: Tensor
    mcse_mean: Tensor
    mcse_sd: Tensor | None
    q5: Tensor | None
    median: Tensor | None
    q95: Tensor | None
    ess_bulk: Tensor
    ess_tail: Tensor | None
    rhat: Tensor

    def __str__(self) -> str:
        columns = [f.name for f in fields(self)[1:] if getattr(self, f.name) is not None]
        head = ["", *columns]
        rows = [head]
        values = [getattr(self, name).reshape(-1)[:_ROWS].tolist() for name in columns]
        for i, name in enumerate(self.names[:_ROWS]):
            rows.append(
                [name, *(_text(column[i], c) for column, c in zip(values, columns, strict=True))]
            )
        width = [max(len(row[j]) for row in rows) for j in range(len(head))]
        lines = [
            "  ".join(
                [row[0].ljust(width[0]), *(row[j].rjust(width[j]) for j in range(1, len(head)))]
            ).rstrip()
            for row in rows
        ]
        if len(self.names) > _ROWS:
            lines.append(f"and {len(self.names) - _ROWS} more")
        return "\n".join(lines)


def _text(value: float, column: str) -> str:
    if column == "rhat":
        return f"{value:.3f}"
    if column.startswith("ess") and math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:.4g}"


def summary(draws: Tensor, *, names: Sequence[str] | None = None) -> Summary:
    """Return estimates, their errors and the convergence diagnostics of each coordinate.

    Args:
        draws: ``(n_kept, n_chains, *event)`` real numbers, n_kept >= 4.
        names: one for each coordinate; by default ``x[i]`` or ``x[i, j]``.

    Returns:
        A :class:`Summary`. NaN where a draw is not finite and for no chains; see :func:`rhat`,
        :func:`ess` and :func:`mcse` for constant draws.

    Raises:
        TypeError: ``draws`` is not a tensor of real numbers, or a name is not a str.
        ValueError: ``draws`` has fewer than two dimensions or fewer than four draws, or the
            number of names differs from that of the coordinates.

    Reference: A. Vehtari et al. (2021), Bayesian Analysis 16.

    Example:
        >>> import pushforward as pf
        >>> table = pf.diagnostics.summary(pf.random.normal(1000, 4, seed=0))
        >>> len(table.names), table.mean.shape, bool(table.rhat < 1.01)
        (1, torch.Size([]), True)

    """
    draws = check_draws(draws)
    moments = each_coordinate(_location, draws, (5,))
    return Summary(
        names=names_of(tuple(draws.shape[2:]), names),
        mean=moments[..., 0],
        sd=moments[..., 1],
        mcse_mean=mcse(draws),
        mcse_sd=mcse(draws, kind="sd"),
        q5=moments[..., 2],
        median=moments[..., 3],
        q95=moments[..., 4],
        ess_bulk=ess(draws),
        ess_tail=ess(draws, kind="tail"),
        rhat=rhat(draws),
    )


def _location(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    location = torch.stack((flat.mean(1), flat.std(1)), 1)
    return torch.cat((location, quantiles(x, (0.05, 0.5, 0.95))), 1)


def names_of(event: tuple[int, ...], names: Any = None, *, variable: str = "x") -> tuple[str, ...]:
    """Return names of the coordinates of an event: those that are given, or ``x[i, j]``."""
    size = math.prod(event)
    if names is None:
        places = itertools.product(*(range(n) for n in event))
        return tuple(variable + (f"[{', '.join(map(str, i))}]" if i else "") for i in places)
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"names: expected a sequence of str, got {type(names).__name__}")
    if not all(isinstance(name, str) for name in names):
        raise TypeError("names: expected a sequence of str, got one of something else")
    if len(names) != size:
        raise ValueError(f"names: expected {size}, one for each coordinate, got {len(names)}")
    return tuple(names)
