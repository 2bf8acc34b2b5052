# SPDX-License-Identifier: Apache-2.0
"""One Langevin step whose score was just evaluated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import (
    changed,
    check_call,
    column,
    implement,
    is_compiling,
    is_plain,
    library,
    like,
    no_grad_in_place,
    threads,
)
from pushforward._ops.arrays import holds_array, takes_arrays


def langevin(
    x: Tensor,
    score: Tensor,
    *,
    step_size: Tensor | float,
    beta: Tensor | float = 1.0,
    seed: int | Tensor,
    step: int | Tensor,
    chain_offset: int = 0,
    out: Tensor | None = None,
) -> Tensor:
    r"""Return one Langevin step (eq 119, 122) from a score that was just evaluated.

    .. math:: x' = x + h\,s(x) + \sqrt{2h/\beta}\;\xi

    Equivalent to ``x + h * score + (2 * h / beta) ** 0.5 * noise`` with ``noise`` the entries
    ``step * dim ..`` of purpose ``"proposal"``.

    Args:
        x: state, shape ``(n_chains, *event)``, float32 or float64.
        score: gradient of the log-density at ``x``, same shape.
        step_size: ``h > 0``, a number, a 0-d tensor or shape ``(n_chains,)``.
        beta: inverse temperature, likewise.
        seed: ``0 <= seed < 2**63``; on a GPU also a 0-d int64 tensor there, which a CUDA graph
            reads anew at each replay (not with gradients or under ``torch.compile``).
        step: index of this step, which says which noise is read; likewise.
        chain_offset: global index of the first chain.
        out: where to write, ``x`` itself or memory apart from it; not with gradients.

    Returns:
        The next state. Differentiable in ``x`` and ``score``.

    Raises:
        TypeError: a dtype or a type is wrong.
        ValueError: a shape, a range or a device is wrong.

    Example:
        >>> import pushforward as pf, torch
        >>> x = torch.zeros(3, 2)
        >>> x1 = pf.ops.langevin(x, -x, step_size=0.1, seed=0, step=0)
        >>> x1.shape
        torch.Size([3, 2])

    """
    if is_plain(x, score, step_size, beta, out, (seed, step, chain_offset)):
        result = like(x) if out is None else out
        _native.langevin(result, x, score, step_size, beta, seed, step, chain_offset, threads())
        return result if out is None else changed(out)
    if not is_compiling() and holds_array(locals()):
        return takes_arrays(langevin)(**locals())
    if out is not None:
        raise ValueError("out: expected None where gradients or compilation are in play")
    scales, at = {"step_size": step_size, "beta": beta}, {"seed": seed, "step": step}
    h, b = check_call(x, {"score": score}, scales, **at, chain_offset=chain_offset)
    return torch.ops.pushforward.langevin(x, score, h, b, seed, step, chain_offset)


def langevin_(
    x: Tensor,
    score: Tensor,
    *,
    step_size: Tensor | float,
    beta: Tensor | float = 1.0,
    seed: int | Tensor,
    step: int | Tensor,
    chain_offset: int = 0,
) -> Tensor:
    """Do :func:`langevin` in place and return ``x``, which must be contiguous.

    Example:
        >>> import pushforward as pf, torch
        >>> x = torch.zeros(3, 2)
        >>> pf.ops.langevin_(x, -x, step_size=0.1, seed=0, step=0) is x
        True

    """
    if is_plain(x, score, step_size, beta, (seed, step, chain_offset)):
        _native.langevin(x, x, score, step_size, beta, seed, step, chain_offset, threads())
        return changed(x)
    if not is_compiling() and holds_array(locals()):
        return takes_arrays(langevin_)(**locals())
    no_grad_in_place("langevin", x, score)
    scales, at = {"step_size": step_size, "beta": beta}, {"seed": seed, "step": step}
    h, b = check_call(x, {"score": score}, scales, **at, chain_offset=chain_offset)
    torch.ops.pushforward.langevin_(x, score, h, b, seed, step, chain_offset)
    return x


_ARGS = "Tensor step_size, Tensor beta, SymInt seed, SymInt step, SymInt chain_offset"
library.define(f"langevin(Tensor x, Tensor score, {_ARGS}) -> Tensor")
library.define(f"langevin_(Tensor(a!) x, Tensor score, {_ARGS}) -> ()")


@implement("langevin")
def _langevin_cpu(
    x: Tensor,
    score: Tensor,
    step_size: Tensor,
    beta: Tensor,
    seed: int,
    step: int,
    chain_offset: int,
) -> Tensor:
    out = like(x)
    _native.langevin(out, x, score, step_size, beta, seed, step, chain_offset, threads())
    return out


@implement("langevin_")
def _langevin_cpu_(
    x: Tensor,
    score: Tensor,
    step_size: Tensor,
    beta: Tensor,
    seed: int,
    step: int,
    chain_offset: int,
) -> None:
    _native.langevin(x, x, score, step_size, beta, seed, step, chain_offset, threads())
    changed(x)


@torch.library.register_fake("pushforward::langevin", lib=library)
def _langevin_fake(x: Tensor, score: Tensor, *args: Any) -> Tensor:
    return like(x)


def _langevin_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[2])


def _langevin_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (step_size,) = ctx.saved_tensors
    return grad, grad * column(step_size, grad), None, None, None, None, None


torch.library.register_autograd(
    "pushforward::langevin", _langevin_backward, setup_context=_langevin_setup, lib=library
)
