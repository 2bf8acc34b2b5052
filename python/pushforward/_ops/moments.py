# SPDX-License-Identifier: Apache-2.0
"""Taking a proposed state where it is finite, and the statistics of many steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import (
    BatchMoments,
    Moments,
    changed,
    implement,
    is_compiling,
    is_plain,
    library,
    moments_of,
    no_grad_in_place,
    refuse_transforms,
    threads,
)
from pushforward._ops.arrays import holds_array, takes_arrays


def commit_(
    x: Tensor,
    proposed: Tensor,
    n_nonfinite: Tensor,
    moments: Moments | None = None,
    *,
    taken: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """Set ``x`` to ``proposed`` for the chains whose proposal is finite; count the others.

    Args:
        x: state ``(n_chains, *event)``, changed in place.
        proposed: the next state, same shape, memory apart from ``x``.
        n_nonfinite: int64 ``(n_chains,)``, incremented where the proposal was not finite.
        moments: ``(shift, sum, sum_of_squares)``, each shaped like ``x``, the last two float64:
            sums of ``x - shift`` and its square, updated for the chains that moved.
        taken: uint8 ``(n_chains,)``, becomes 1 for the chains that moved and 0 for the others.
        kept: like ``x``, where the next states of chains that moved are written, too.

    Returns:
        ``x``.

    Example:
        >>> import pushforward as pf, torch
        >>> x, bad = torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)
        >>> pf.ops.commit_(x, torch.tensor([[1.0], [float("nan")]]), bad), bad
        (tensor([[1.],
                [0.]]), tensor([0, 1]))

    """
    if moments is not None and not (isinstance(moments, tuple) and len(moments) == 3):
        raise TypeError("moments: expected (shift, sum, sum_of_squares) or None")
    if is_plain(x, proposed, (n_nonfinite,), moments, taken, kept):
        _native.commit(x, proposed, n_nonfinite, taken, kept, moments, threads())
        return changed(x, n_nonfinite, taken, kept, moments=moments)
    if not is_compiling() and holds_array(locals()):
        return takes_arrays(commit_, "n_nonfinite", "taken", "kept")(**locals())
    no_grad_in_place("commit", x, kept)
    shift, total, squares = moments if moments is not None else (None, None, None)
    torch.ops.pushforward.commit_(
        x, proposed.detach(), n_nonfinite, taken, kept, shift, total, squares
    )
    return x


library.define(
    "commit_(Tensor(a!) x, Tensor proposed, Tensor(b!) n_nonfinite, Tensor(c!)? taken, "
    "Tensor(d!)? kept, Tensor? shift, Tensor(e!)? sum, Tensor(f!)? sum_of_squares) -> ()"
)


@implement("commit_")
def _commit_cpu(
    x: Tensor,
    proposed: Tensor,
    n_nonfinite: Tensor,
    taken: Tensor | None,
    kept: Tensor | None,
    shift: Tensor | None,
    total: Tensor | None,
    squares: Tensor | None,
) -> None:
    moments = moments_of(shift, total, squares)
    _native.commit(x, proposed, n_nonfinite, taken, kept, moments, threads())
    changed(x, n_nonfinite, taken, kept, moments=moments)


TAKEN, LEFT_OUT = 1, 2
"""Marks of a chain's step, which are added up: it took what was proposed; it does not count."""

Place = tuple[Tensor, Tensor] | tuple[None, None]
"""Where a step marks the chains that take its proposal, and where it keeps a copy."""


def add_states(
    x: Tensor,
    states: Sequence[Tensor],
    moments: BatchMoments,
    steps_done: int,
    before: Tensor | None = None,
    marks: Tensor | None = None,
) -> None:
    """Add states that have waited to streaming sums with an open group.

    Args:
        x: like each state, ``(n_chains, *event)``.
        states: what each step took; as many as the open group has room for at most. No batch ends
            before the last of them.
        moments: the sums, added to.
        steps_done: recorded steps before these.
        before: the state before these steps, given together with ``marks``.
        marks: uint8 ``(n_states, n_chains)``: a chain's state is that of the last step marked
            ``TAKEN``, or the one before them, and does not count in steps marked ``LEFT_OUT``.
            None where all are taken, and all of the open group count.

    """
    _native.add_states(x, states, before, marks, moments, steps_done, threads())


def totals(
    x: Tensor,
    moments: BatchMoments,
    total: Tensor,
    squares: Tensor,
    open_batch: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Write the sums of all states, those of the open group too, to ``total`` and ``squares``.

    Args:
        x: the state ``(n_chains, *event)``.
        moments: the streaming sums; the others may be their ``sum``, ``sum_of_squares`` and
            ``sum_at_batch``.
        total: float64, like ``x``, as are the others.
        squares: for the sum of squares.
        open_batch: for the sum over the steps after the last complete batch, if it is wanted.

    """
    _native.totals(x, moments, total, squares, open_batch, threads())
    return total, squares


def pooled_moments(
    x: Tensor, n_steps: int, n_left_out: Tensor, moments: Moments
) -> tuple[Tensor, Tensor]:
    """Return mean and variance over all chains and steps, float64, shape ``event`` each."""
    shift, total, squares = moments[:3]
    if is_plain(x):
        return _pooled_moments(x, n_steps, n_left_out, shift, total, squares)
    refuse_transforms("x")
    return torch.ops.pushforward.pooled_moments(
        x.detach(), n_steps, n_left_out, shift, total, squares
    )


library.define(
    "pooled_moments(Tensor x, SymInt n_steps, Tensor n_left_out, Tensor shift, Tensor sum, "
    "Tensor sum_of_squares) -> (Tensor, Tensor)"
)


@implement("pooled_moments")
def _pooled_moments(
    x: Tensor, n_steps: int, n_left_out: Tensor, shift: Tensor, total: Tensor, squares: Tensor
) -> tuple[Tensor, Tensor]:
    mean, var = _pooled_moments_fake(x)
    _native.pool(x, n_steps, n_left_out, (shift, total, squares), mean, var, threads())
    return mean, var


@torch.library.register_fake("pushforward::pooled_moments", lib=library)
def _pooled_moments_fake(x: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    mean = torch.empty(x.shape[1:], dtype=torch.float64, device=x.device)
    return mean, torch.empty_like(mean)
