# SPDX-License-Identifier: Apache-2.0
"""Stretches of the sequences of the noise contract."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import (
    changed,
    implement,
    is_plain,
    library,
    no_grad_in_place,
    threads,
)


def fill_(
    out: Tensor, *, uniform: bool, seed: int, purpose: int, chain_offset: int, start: int | Tensor
) -> Tensor:
    """Fill ``out`` (n_chains, n) with a stretch of each chain's sequence.

    It begins at entry ``start``; a tensor on the GPU counts stretches: entry ``n * start``.
    """
    if is_plain(out):
        _native.fill(out, uniform, seed, purpose, chain_offset, start, threads())
        changed(out)
    else:
        no_grad_in_place("fill", out)
        torch.ops.pushforward.fill_(out, uniform, seed, purpose, chain_offset, int(start))
    return out


library.define(
    "fill_(Tensor(a!) out, bool uniform, SymInt seed, SymInt purpose, SymInt chain_offset, "
    "SymInt start) -> ()"
)


@implement("fill_")
def _fill_cpu(
    out: Tensor, uniform: bool, seed: int, purpose: int, chain_offset: int, start: int
) -> None:
    _native.fill(out, uniform, seed, purpose, chain_offset, start, threads())
    changed(out)
