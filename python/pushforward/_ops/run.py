# SPDX-License-Identifier: Apache-2.0
"""Many steps of a Markov kernel on a native target in one call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import (
    Moments,
    changed,
    coefficient,
    implement,
    is_plain,
    library,
    no_grad_in_place,
    refuse_transforms,
    threads,
)

RUN_KINDS = {name: number for number, name in enumerate(_native.run_kinds)}


def run_chunk(
    kind: str,
    x: Tensor,
    target: _native.Target,
    parameters: dict[str, Any],
    *,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
    counts: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None] | None,
    steps_done: int = 0,
    thin: int = 1,
    draws: Tensor | None = None,
    log_density: Tensor | None = None,
    moments: Moments | None = None,
) -> None:
    """Take ``n_steps`` of the kernel ``kind`` on a native target, in place, and record them.

    A plain function: see :mod:`pushforward._ops`.

    Args:
        kind: one of ``langevin random_walk mala underdamped hmc nuts``.
        x: state ``(n_chains, *event)``, contiguous, changed in place.
        target: the kernels' handle of a native target, ``target.native(x)``.
        parameters: the kernel's, by the names of ``RunParams`` in ``csrc/ops/ops.hpp``.
        seed: ``0 <= seed < 2**63``.
        first_step: index of the first step.
        n_steps: number of steps.
        chain_offset: global index of the first chain.
        counts: ``Counts.tensors()``, added to; None, on a CPU alone, where nobody asks.
        steps_done: steps recorded before this call.
        thin: a draw is kept after steps ``thin, 2 thin, ...`` of those recorded.
        draws: where kept states go, ``(n_kept, n_chains, *event)``.
        log_density: where their log-densities go, ``(n_kept, n_chains)``.
        moments: streaming sums, added to.

    """
    _native.run(
        RUN_KINDS[kind],
        x,
        target,
        parameters,
        seed,
        first_step,
        n_steps,
        chain_offset,
        steps_done,
        thin,
        draws,
        log_density,
        counts,
        moments,
        threads(),
    )


def proposal_(
    out: Tensor,
    x: Tensor,
    *,
    scale: Tensor | float,
    seed: int,
    step: int | Tensor,
    purpose: int,
    chain_offset: int = 0,
) -> Tensor:
    """Write ``x + scale xi`` into ``out``, with the normals of a step of ``purpose``."""
    if is_plain(out, x, scale):
        _native.diffuse(out, x, 1.0, scale, seed, purpose, step, chain_offset, threads())
        return changed(out)
    no_grad_in_place("proposal", out)
    refuse_transforms("x")
    h = coefficient(scale, x, "scale")
    torch.ops.pushforward.proposal_(out, x.detach(), h, seed, step, purpose, chain_offset)
    return out


library.define(
    "proposal_(Tensor(a!) out, Tensor x, Tensor scale, SymInt seed, SymInt step, SymInt purpose, "
    "SymInt chain_offset) -> ()"
)


@implement("proposal_")
def _proposal_(
    out: Tensor, x: Tensor, scale: Tensor, seed: int, step: int, purpose: int, chain_offset: int
) -> None:
    _native.diffuse(out, x, 1.0, scale, seed, purpose, step, chain_offset, threads())
    changed(out)
