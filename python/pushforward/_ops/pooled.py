# SPDX-License-Identifier: Apache-2.0
"""Statistics over the chains of whole states: sums, squares and products, and histograms."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import (
    changed,
    implement,
    is_plain,
    library,
    no_grad_in_place,
    refuse_transforms,
    threads,
)

__all__ = ["SKETCH_BINS", "Products", "add_chain_sums_", "count_in_bins_", "width_of"]

Products = Literal["none", "squares", "all"]
_KINDS: tuple[Products, ...] = ("none", "squares", "all")
SKETCH_BINS = _native.sketch_bins


def width_of(dim: int, products: Products) -> int:
    """Return how many sums :func:`add_chain_sums_` takes of states with ``dim`` coordinates."""
    return {"none": dim, "squares": 2 * dim, "all": dim * (dim + 1)}[products]


def add_chain_sums_(
    total: Tensor,
    x: Tensor,
    *,
    shift: Tensor | None = None,
    products: Products = "none",
    chain_offset: int = 0,
) -> Tensor:
    """Add the sums over the chains of one state after another to ``total``.

    Chains are summed in aligned groups of 1024 global chain indices, then the groups in order, in
    float64, so that no number of threads and no split of the states over calls changes a bit.

    Args:
        total: float64 ``(width_of(dim, products),)``: sums of ``x - shift``, and behind them those
            of its squares, or the ``(dim, dim)`` products, of which the lower triangle counts.
        x: states ``(n_states, n_chains, *event)``, float32 or float64.
        shift: float64 ``(dim,)``; by default 0.
        products: what is summed beside the coordinates.
        chain_offset: global index of the first chain.

    Returns:
        ``total``.

    """
    kind = _KINDS.index(products)
    if is_plain(total, x, shift):
        _add_chain_sums_(total, x, shift, kind, chain_offset)
    else:
        no_grad_in_place("add_chain_sums", total)
        refuse_transforms("x")
        torch.ops.pushforward.add_chain_sums_(total, x.detach(), shift, kind, chain_offset)
    return total


library.define(
    "add_chain_sums_(Tensor(a!) total, Tensor x, Tensor? shift, int products, "
    "SymInt chain_offset) -> ()"
)


@implement("add_chain_sums_")
def _add_chain_sums_(
    total: Tensor, x: Tensor, shift: Tensor | None, products: int, chain_offset: int
) -> None:
    of_states = None
    if not x.is_cpu:  # a CPU's memory is the native module's to get
        dim = math.prod(x.shape[2:])
        if shift is None:
            shift = torch.zeros(dim, dtype=torch.float64, device=x.device)
        width = width_of(dim, _KINDS[products])
        of_states = torch.empty((len(x), width), dtype=torch.float64, device=x.device)
    _native.pooled(x, shift, products, chain_offset, of_states, total, threads())
    changed(total)


def count_in_bins_(
    counts: Tensor, extremes: Tensor, x: Tensor, *, centre: Tensor, inverse_scale: Tensor
) -> Tensor:
    """Count values in the bins of a sketch.

    With t the distance from the centre in scales and u = 1 + abs(t), bin ``SKETCH_BINS // 2 + k``
    holds the t >= 0 with floor(32 log2(u)) = k where log2 is linear between powers of two; those
    of negative t mirror them.

    Args:
        counts: int64 ``(n_parts, dim, SKETCH_BINS)``, whose sum over the parts is what counts.
        extremes: int64 ``(n_parts, dim, 2)``, the least and the greatest value as integers in the
            order of the numbers: the bits of a float64, those below the sign turned over where it
            is negative.
        x: finite numbers ``(n, dim)``, float32 or float64.
        centre: float64 ``(dim,)``.
        inverse_scale: likewise.

    Returns:
        ``counts``.

    """
    if is_plain(counts, extremes, x, centre, inverse_scale):
        _count_in_bins_(counts, extremes, x, centre, inverse_scale)
    else:
        given = (t.detach() for t in (x, centre, inverse_scale))
        torch.ops.pushforward.count_in_bins_(counts, extremes, *given)
    return counts


library.define(
    "count_in_bins_(Tensor(a!) counts, Tensor(b!) extremes, Tensor x, Tensor centre, "
    "Tensor inverse_scale) -> ()"
)


@implement("count_in_bins_")
def _count_in_bins_(
    counts: Tensor, extremes: Tensor, x: Tensor, centre: Tensor, inverse_scale: Tensor
) -> None:
    _native.sketch(x, centre, inverse_scale, counts, extremes, threads())
    changed(counts, extremes)
