# SPDX-License-Identifier: Apache-2.0
"""Ornstein-Uhlenbeck forward, and one step of the reverse family."""

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

_FORWARD = 6  # the noise contract's number of the purpose


def diffuse(
    x: Tensor,
    *,
    mean_scale: Tensor | float,
    std: Tensor | float,
    seed: int,
    chain_offset: int = 0,
) -> Tensor:
    r"""Return ``mean_scale x + std xi``: an exact Gaussian transition (eq 124).

    ``xi`` is the first ``dim`` entries of each chain's purpose ``"forward"``.

    Args:
        x: shape ``(n_chains, *event)``, float32 or float64.
        mean_scale: a number, a 0-d tensor or shape ``(n_chains,)``.
        std: likewise.
        seed: ``0 <= seed < 2**63``.
        chain_offset: global index of the first chain.

    Returns:
        A tensor like ``x``. Differentiable in ``x``.

    Raises:
        TypeError: a dtype or a type is wrong.
        ValueError: a shape, a range or a device is wrong.

    Example:
        >>> import pushforward as pf, torch
        >>> pf.ops.diffuse(torch.ones(2, 3), mean_scale=0.5, std=0.0, seed=0)
        tensor([[0.5000, 0.5000, 0.5000],
                [0.5000, 0.5000, 0.5000]])

    """
    if is_plain(x, mean_scale, std, (seed, chain_offset)):
        out = like(x)
        _native.diffuse(out, x, mean_scale, std, seed, _FORWARD, 0, chain_offset, threads())
        return out
    if not is_compiling() and holds_array(locals()):
        return takes_arrays(diffuse)(**locals())
    scales = {"mean_scale": mean_scale, "std": std}
    a, b = check_call(x, {}, scales, seed=seed, chain_offset=chain_offset)
    return torch.ops.pushforward.diffuse(x, a, b, seed, chain_offset)


library.define(
    "diffuse(Tensor x, Tensor mean_scale, Tensor std, SymInt seed, SymInt chain_offset) -> Tensor"
)


@implement("diffuse")
def _diffuse_cpu(
    x: Tensor, mean_scale: Tensor, std: Tensor, seed: int, chain_offset: int
) -> Tensor:
    out = like(x)
    _native.diffuse(out, x, mean_scale, std, seed, _FORWARD, 0, chain_offset, threads())
    return out


@torch.library.register_fake("pushforward::diffuse", lib=library)
def _diffuse_fake(x: Tensor, *args: Any) -> Tensor:
    return like(x)


def _diffuse_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _diffuse_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (mean_scale,) = ctx.saved_tensors
    return grad * column(mean_scale, grad), None, None, None, None


torch.library.register_autograd(
    "pushforward::diffuse", _diffuse_backward, setup_context=_diffuse_setup, lib=library
)


def reverse_step(
    x: Tensor,
    score: Tensor,
    *,
    growth: Tensor | float,
    drift_scale: Tensor | float,
    noise_scale: Tensor | float,
    seed: int | Tensor,
    step: int | Tensor,
    chain_offset: int = 0,
) -> Tensor:
    r"""Return one step of the reverse family (eq 135) from a score that was just evaluated.

    .. math:: y' = g\,y + d\,s(y) + c\,\xi

    with ``xi`` the entries ``step * dim ..`` of purpose ``"reverse"``. Euler-Maruyama over a time
    ``ds`` has growth ``1 + kappa ds``, drift_scale ``(1 + alpha) sigma**2 ds / 2`` and noise_scale
    ``sigma (alpha ds)**0.5``.

    Args:
        x: shape ``(n_chains, *event)``, float32 or float64.
        score: same shape.
        growth: a number, a 0-d tensor or shape ``(n_chains,)``.
        drift_scale: likewise.
        noise_scale: likewise.
        seed: ``0 <= seed < 2**63``; on a GPU also a 0-d int64 tensor there (see
            :func:`langevin`).
        step: index of this step; likewise.
        chain_offset: global index of the first chain.

    Returns:
        A tensor like ``x``. Differentiable in ``x`` and ``score``.

    Raises:
        TypeError: a dtype or a type is wrong.
        ValueError: a shape, a range or a device is wrong.

    Example:
        >>> import pushforward as pf, torch
        >>> x = torch.ones(1, 2)
        >>> pf.ops.reverse_step(x, x, growth=1, drift_scale=2, noise_scale=0, seed=0, step=0)
        tensor([[3., 3.]])

    """
    if is_plain(x, score, growth, drift_scale, noise_scale, (seed, step, chain_offset)):
        out = like(x)
        _native.reverse(
            out, x, score, growth, drift_scale, noise_scale, seed, step, chain_offset, threads()
        )
        return out
    if not is_compiling() and holds_array(locals()):
        return takes_arrays(reverse_step)(**locals())
    scales = {"growth": growth, "drift_scale": drift_scale, "noise_scale": noise_scale}
    at = {"seed": seed, "step": step, "chain_offset": chain_offset}
    g, d, c = check_call(x, {"score": score}, scales, **at)
    return torch.ops.pushforward.reverse_step(x, score, g, d, c, seed, step, chain_offset)


def reverse_step_(
    x: Tensor,
    score: Tensor,
    *,
    growth: Tensor | float,
    drift_scale: Tensor | float,
    noise_scale: Tensor | float,
    seed: int | Tensor,
    step: int | Tensor,
    chain_offset: int = 0,
) -> Tensor:
    """Do :func:`reverse_step` in place and return ``x``, which must be contiguous.

    Example:
        >>> import pushforward as pf, torch
        >>> x = torch.ones(1, 2)
        >>> pf.ops.reverse_step_(x, x, growth=1, drift_scale=2, noise_scale=0, seed=0, step=0) is x
        True

    """
    if is_plain(x, score, growth, drift_scale, noise_scale, (seed, step, chain_offset)):
        _native.reverse(
            x, x, score, growth, drift_scale, noise_scale, seed, step, chain_offset, threads()
        )
        return changed(x)
    if not is_compiling() and holds_array(locals()):
        return takes_arrays(reverse_step_)(**locals())
    no_grad_in_place("reverse_step", x, score)
    scales = {"growth": growth, "drift_scale": drift_scale, "noise_scale": noise_scale}
    at = {"seed": seed, "step": step, "chain_offset": chain_offset}
    g, d, c = check_call(x, {"score": score}, scales, **at)
    torch.ops.pushforward.reverse_step_(x, score, g, d, c, seed, step, chain_offset)
    return x


_ARGS = (
    "Tensor growth, Tensor drift_scale, Tensor noise_scale, SymInt seed, SymInt step, "
    "SymInt chain_offset"
)
library.define(f"reverse_step(Tensor x, Tensor score, {_ARGS}) -> Tensor")
library.define(f"reverse_step_(Tensor(a!) x, Tensor score, {_ARGS}) -> ()")


@implement("reverse_step")
def _reverse_cpu(
    x: Tensor,
    score: Tensor,
    growth: Tensor,
    drift_scale: Tensor,
    noise_scale: Tensor,
    seed: int,
    step: int,
    chain_offset: int,
) -> Tensor:
    out = like(x)
    _native.reverse(
        out, x, score, growth, drift_scale, noise_scale, seed, step, chain_offset, threads()
    )
    return out


@implement("reverse_step_")
def _reverse_cpu_(
    x: Tensor,
    score: Tensor,
    growth: Tensor,
    drift_scale: Tensor,
    noise_scale: Tensor,
    seed: int,
    step: int,
    chain_offset: int,
) -> None:
    _native.reverse(
        x, x, score, growth, drift_scale, noise_scale, seed, step, chain_offset, threads()
    )
    changed(x)


@torch.library.register_fake("pushforward::reverse_step", lib=library)
def _reverse_fake(x: Tensor, score: Tensor, *args: Any) -> Tensor:
    return like(x)


def _reverse_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[2], inputs[3])


def _reverse_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    growth, drift_scale = ctx.saved_tensors
    by_x, by_score = grad * column(growth, grad), grad * column(drift_scale, grad)
    return by_x, by_score, None, None, None, None, None, None


torch.library.register_autograd(
    "pushforward::reverse_step", _reverse_backward, setup_context=_reverse_setup, lib=library
)
