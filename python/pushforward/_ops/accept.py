# SPDX-License-Identifier: Apache-2.0
"""Accepting or refusing proposals, and what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import (
    Moments,
    changed,
    check_call,
    check_device,
    check_tensor,
    implement,
    is_compiling,
    is_plain,
    library,
    moments_of,
    no_grad_in_place,
    threads,
)
from pushforward._ops.arrays import holds_array, takes_arrays
from pushforward._ops.memory import zeros


@dataclass(frozen=True, eq=False)
class Counts:
    """What a run counts of each chain; all ``(n_chains,)``, added to in place.

    Attributes:
        n_nonfinite: int64, steps that left the finite numbers.
        n_divergent: int64, trajectories whose energy grew without bound.
        accepted: float64, sum of the acceptance probabilities.
        accepted_squares: float64, sum of their squares.

    Example:
        >>> import pushforward as pf
        >>> pf.ops.Counts.zeros(3).accepted
        tensor([0., 0., 0.], dtype=torch.float64)

    """

    n_nonfinite: Tensor
    n_divergent: Tensor
    accepted: Tensor
    accepted_squares: Tensor

    @classmethod
    def zeros(cls, n_chains: int, device: torch.device | str = "cpu") -> Counts:
        """Return counts of chains of which nothing is counted yet."""
        where = torch.device(device)
        check_device(where, "device")
        types = (torch.int64, torch.int64, torch.float64, torch.float64)
        return cls(*(zeros((n_chains,), dtype=t, device=where) for t in types))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four tensors in the order of the native module."""
        return self.n_nonfinite, self.n_divergent, self.accepted, self.accepted_squares


def accept_(
    x: Tensor,
    proposed: Tensor,
    log_density: Tensor,
    proposed_log_density: Tensor,
    *,
    seed: int | Tensor,
    step: int | Tensor,
    counts: Counts,
    chain_offset: int = 0,
    score: Tensor | None = None,
    proposed_score: Tensor | None = None,
    correction: Tensor | None = None,
    step_size: Tensor | float | None = None,
    beta: Tensor | float = 1.0,
    moments: Moments | None = None,
    taken: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """Accept or refuse proposals of Metropolis-Hastings (algorithm 1), in place.

    A proposal is taken where ``log u <= beta * (proposed_log_density - log_density) +
    correction`` with ``u`` the entry ``step`` of purpose ``"accept"``; a ratio that is NaN or +inf
    refuses and is counted.

    Args:
        x: state ``(n_chains, *event)``, float32 or float64, contiguous.
        proposed: the proposals, like ``x``.
        log_density: ``(n_chains,)`` at ``x``; becomes that of the new state.
        proposed_log_density: at ``proposed``.
        seed: ``0 <= seed < 2**63``; on a GPU also a 0-d int64 tensor there (not with gradients or
            under ``torch.compile``).
        step: index of the step, which chooses the uniforms; likewise.
        counts: added to.
        chain_offset: global index of the first chain.
        score: at ``x``, shaped like it, likewise replaced, or None.
        proposed_score: at ``proposed``.
        correction: ``log q(x | y) - log q(y | x)``, ``(n_chains,)``, or None for 0.
        step_size: given, the correction is that of Langevin proposals (MALA) and needs both scores;
            a number, a 0-d tensor or ``(n_chains,)``.
        beta: inverse temperature, likewise.
        moments: ``(shift, sum, sum_of_squares)``, each shaped like ``x``, the last two float64:
            sums of ``x - shift`` and its square, added to.
        taken: uint8 ``(n_chains,)``, becomes 1 where the proposal was taken and 0 elsewhere.
        kept: like ``x``, where proposals that were taken are written, too; the rest stays as it is.

    Returns:
        ``x``.

    Raises:
        TypeError: a dtype or a type is wrong.
        ValueError: a shape, a range or a device is wrong, or memory overlaps.

    Example:
        >>> import pushforward as pf, torch
        >>> x, y = torch.zeros(2, 1), torch.tensor([[0.1], [100.0]])
        >>> value, proposed_value = -0.5 * x[:, 0] ** 2, -0.5 * y[:, 0] ** 2
        >>> counts = pf.ops.Counts.zeros(2)
        >>> pf.ops.accept_(x, y, value, proposed_value, seed=0, step=0, counts=counts)
        tensor([[0.1000],
                [0.0000]])

    """
    if not isinstance(counts, Counts):
        raise TypeError(f"counts: expected Counts, got {type(counts).__name__}")
    if moments is not None and not (isinstance(moments, tuple) and len(moments) == 3):
        raise TypeError("moments: expected (shift, sum, sum_of_squares) or None")
    if is_plain(
        x, proposed, log_density, proposed_log_density, score, proposed_score, correction,
        step_size, beta, (seed, step, chain_offset), moments, taken, kept,
    ):  # fmt: skip
        counted = counts.tensors()
        _native.accept(
            x, proposed, log_density, proposed_log_density, score, proposed_score, correction,
            step_size, beta, seed, step, chain_offset, counted, taken, kept, moments, threads(),
        )  # fmt: skip
        return changed(x, log_density, score, *counted, taken, kept, moments=moments)
    if not is_compiling() and holds_array(locals()):
        return takes_arrays(accept_, "log_density", "score", "taken", "kept")(**locals())
    check_tensor(proposed, "proposed")
    check_tensor(proposed_log_density, "proposed_log_density")
    no_grad_in_place("accept", x, log_density, score, proposed_score, correction, step_size, kept)
    tensors = {
        "proposed": proposed, "log_density": log_density, "score": score,
        "proposed_log_density": proposed_log_density, "proposed_score": proposed_score,
        "correction": correction, "taken": taken, "kept": kept, **vars(counts),
    }  # fmt: skip
    scales, at = {"step_size": step_size, "beta": beta}, {"seed": seed, "step": step}
    h, b = check_call(x, tensors, scales, **at, chain_offset=chain_offset)
    torch.ops.pushforward.accept_(
        x, proposed.detach(), log_density, proposed_log_density.detach(), score, proposed_score,
        correction, h, b, seed, step, chain_offset,
        counts.n_nonfinite, counts.n_divergent, counts.accepted, counts.accepted_squares,
        taken, kept, *(moments or (None, None, None)),
    )  # fmt: skip
    return x


library.define(
    "accept_(Tensor(a!) x, Tensor proposed, Tensor(b!) log_density, Tensor proposed_log_density, "
    "Tensor(c!)? score, Tensor? proposed_score, Tensor? correction, Tensor? step_size, "
    "Tensor beta, SymInt seed, SymInt step, SymInt chain_offset, Tensor(d!) n_nonfinite, "
    "Tensor(e!) n_divergent, Tensor(f!) accepted, Tensor(g!) accepted_squares, Tensor(h!)? taken, "
    "Tensor(i!)? kept, Tensor? shift, Tensor(j!)? sum, Tensor(k!)? sum_of_squares) -> ()"
)


@implement("accept_")
def _accept_cpu(
    x: Tensor,
    proposed: Tensor,
    log_density: Tensor,
    proposed_log_density: Tensor,
    score: Tensor | None,
    proposed_score: Tensor | None,
    correction: Tensor | None,
    step_size: Tensor | None,
    beta: Tensor,
    seed: int,
    step: int,
    chain_offset: int,
    n_nonfinite: Tensor,
    n_divergent: Tensor,
    accepted: Tensor,
    accepted_squares: Tensor,
    taken: Tensor | None,
    kept: Tensor | None,
    shift: Tensor | None,
    total: Tensor | None,
    squares: Tensor | None,
) -> None:
    moments = moments_of(shift, total, squares)
    counts = (n_nonfinite, n_divergent, accepted, accepted_squares)
    _native.accept(
        x, proposed, log_density, proposed_log_density, score, proposed_score, correction,
        step_size, beta, seed, step, chain_offset, counts, taken, kept, moments, threads(),
    )  # fmt: skip
    changed(x, log_density, score, *counts, taken, kept, moments=moments)
