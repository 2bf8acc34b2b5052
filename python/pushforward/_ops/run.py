# SPDX-License-Identifier: Apache-2.0
"""Many steps of a Markov kernel on a native target in one call, and accepting a proposal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import Moments, changed, threads
from pushforward._ops.memory import zeros

_KINDS = {name: number for number, name in enumerate(_native.run_kinds)}


@dataclass(frozen=True, eq=False)
class Counts:
    """What a run counts of each chain; all ``(n_chains,)``.

    Attributes:
        n_nonfinite: int64, steps that left the finite numbers.
        n_divergent: int64, trajectories whose energy grew without bound.
        accepted: float64, sum of the acceptance probabilities.
        accepted_squares: float64, sum of their squares.

    """

    n_nonfinite: Tensor
    n_divergent: Tensor
    accepted: Tensor
    accepted_squares: Tensor

    @classmethod
    def zeros(cls, n_chains: int, device: torch.device) -> Counts:
        """Return counts of a run that has not begun."""
        counts = zeros((2, n_chains), dtype=torch.int64, device=device)
        sums = zeros((2, n_chains), dtype=torch.float64, device=device)
        return cls(counts[0], counts[1], sums[0], sums[1])

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four tensors in the order of the native module."""
        return self.n_nonfinite, self.n_divergent, self.accepted, self.accepted_squares


def run_chunk(
    kind: str,
    x: Tensor,
    target: _native.Target,
    parameters: Mapping[str, Any],
    *,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
    counts: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None],
    steps_done: int = 0,
    thin: int = 1,
    draws: Tensor | None = None,
    log_density: Tensor | None = None,
    moments: Moments | None = None,
) -> None:
    """Take ``n_steps`` of the kernel ``kind`` on a native target, in place.

    Args:
        kind: one of ``langevin random_walk mala underdamped hmc nuts``.
        x: state ``(n_chains, *event)``, contiguous, changed in place.
        target: the kernels' handle of a native target, ``target.native(x)``.
        parameters: the kernel's, by the names of ``RunParams`` in ``csrc/ops/ops.hpp``.
        seed: ``0 <= seed < 2**63``.
        first_step: index of the first step.
        n_steps: number of steps.
        chain_offset: global index of the first chain.
        counts: ``Counts.tensors()``, added to.
        steps_done: steps recorded before this call.
        thin: a draw is kept after steps ``thin, 2 thin, ...`` of those recorded.
        draws: where kept states go, ``(n_kept, n_chains, *event)``.
        log_density: where their log-densities go, ``(n_kept, n_chains)``.
        moments: streaming sums, added to.

    """
    _native.run(
        _KINDS[kind],
        x,
        target,
        dict(parameters),
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


def accept_(
    x: Tensor,
    proposed: Tensor,
    log_density: Tensor,
    proposed_log_density: Tensor,
    *,
    seed: int,
    step: int | Tensor,
    counts: Counts,
    chain_offset: int = 0,
    score: Tensor | None = None,
    proposed_score: Tensor | None = None,
    correction: Tensor | None = None,
    step_size: Tensor | float | None = None,
    beta: Tensor | float = 1.0,
    moments: Moments | None = None,
) -> Tensor:
    """Accept or refuse proposals of Metropolis-Hastings (algorithm 1), in place.

    A proposal is taken where ``log u <= beta * (proposed_log_density - log_density) +
    correction``; a ratio that is NaN or infinite refuses and is counted.

    Args:
        x: state ``(n_chains, *event)``, contiguous.
        proposed: the proposals, like ``x``.
        log_density: ``(n_chains,)`` at ``x``; becomes that of the new state.
        proposed_log_density: at ``proposed``.
        seed: ``0 <= seed < 2**63``.
        step: index of the step, which chooses the uniforms.
        counts: added to.
        chain_offset: global index of the first chain.
        score: at ``x``, likewise replaced, or None.
        proposed_score: at ``proposed``.
        correction: ``log q(x | y) - log q(y | x)``, ``(n_chains,)``, or None for 0.
        step_size: given, the correction is that of Langevin proposals and needs both scores.
        beta: inverse temperature, a number or one value a chain.
        moments: streaming sums, added to.

    Returns:
        ``x``.

    """
    _native.accept(
        x,
        proposed,
        log_density,
        proposed_log_density,
        score,
        proposed_score,
        correction,
        step_size,
        beta,
        seed,
        step,
        chain_offset,
        counts.tensors(),
        moments,
        threads(),
    )
    return changed(x)


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
    _native.diffuse(out, x, 1.0, scale, seed, purpose, step, chain_offset, threads())
    return changed(out)
