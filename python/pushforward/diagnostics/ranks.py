# SPDX-License-Identifier: Apache-2.0
"""Chains in halves, ranks in place of values: the groundwork of R-hat and of the bulk ESS.

Everything here takes ``(d, n_chains, n)`` float64: d coordinates, worked on side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def split(x: Tensor) -> Tensor:
    """Return the first and the last half of each chain as chains of their own.

    Of an odd number of draws the one in the middle is left out.
    """
    half = x.shape[-1] // 2
    return torch.cat((x[..., :half], x[..., x.shape[-1] - half :]), 1)


def normal_scores(x: Tensor) -> Tensor:
    """Return each value's normal score: the normal quantile of its rank among all chains.

    Equal values share the mean of their ranks r; the quantile is that of (r - 3/8) / (N + 1/4)
    of N values.
    """
    flat = x.flatten(1)
    n = flat.shape[1]
    ordered, order = flat.sort(1)
    place = torch.arange(n, device=x.device).expand_as(order)
    first = torch.ones_like(order, dtype=torch.bool)  # of a run of equal values
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    start = place.where(first, 0).cummax(1).values
    last = first.roll(-1, 1)
    last[:, -1:] = True
    end = place.where(last, n).flip(1).cummin(1).values.flip(1)
    rank = (start + end).to(torch.float64) / 2 + 1
    score = torch.special.ndtri((rank - 0.375) / (n + 0.25))
    return torch.empty_like(flat).scatter_(1, order, score).reshape(x.shape)


def quantiles(x: Tensor, probabilities: tuple[float, ...]) -> Tensor:
    """Return quantiles over all chains, linear between order statistics, ``(d, n_quantiles)``."""
    ordered = x.flatten(1).sort(1).values
    last = ordered.shape[1] - 1
    at = torch.tensor(probabilities, dtype=torch.float64, device=x.device) * last
    low = at.floor().long()
    below, above = ordered[:, low], ordered[:, (low + 1).clamp(max=last)]
    return torch.lerp(below, above, at - low)


def folded(x: Tensor) -> Tensor:
    """Return the distances from the median over all chains."""
    n = x[0].numel() if len(x) else 1
    ordered = x.flatten(1).sort(1).values
    median = (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2
    return (x - median[:, None, None]).abs()
