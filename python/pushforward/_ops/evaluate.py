# SPDX-License-Identifier: Apache-2.0
"""The log-density and the score of native targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pushforward import _native
from pushforward._ops.arguments import (
    a_chain,
    check_tensor,
    gradient_of,
    implement,
    is_compiling,
    is_plain,
    library,
    like,
    threads,
)
from pushforward._ops.arrays import holds_array, takes_arrays

if TYPE_CHECKING:
    from pushforward.targets import NativeTarget


TARGET = "Tensor[] parameters, int kind, int dim, int n_components, float[] scalars"
"""How a native target stands in a schema."""


def must_be_native(target: Any) -> None:
    """Raise TypeError unless ``target`` has a native form."""
    if not hasattr(target, "native_arguments"):
        raise TypeError(
            f"target: expected a native target of pushforward.targets, got {type(target).__name__}"
        )


def native_handle(target: Any, x: Tensor) -> _native.Target:
    """Return a native target's handle for states like ``x``, after the checks of both.

    A target keeps its handles, each made after these checks, under their type and device.
    """
    try:
        if x.layout is torch.strided:
            return target._handles[x.dtype, x.device]
    except (AttributeError, KeyError, TypeError):
        pass
    must_be_native(target)
    check_tensor(x, "x")
    return target.native(x)


def log_density(x: Tensor, target: NativeTarget) -> Tensor:
    """Return the native log-density ``(n_chains,)`` of a native target at ``x`` (n_chains, dim).

    Differentiable in ``x``, once: the gradient is the native score.

    Example:
        >>> import pushforward as pf, torch
        >>> target = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
        >>> round(float(pf.ops.log_density(torch.zeros(1, 2), target)), 4)
        -1.8379
        >>> x = torch.ones(1, 2, requires_grad=True)
        >>> pf.ops.log_density(x, target).sum().backward()
        >>> x.grad
        tensor([[-1., -1.]])

    """
    if is_plain(x):
        handle = native_handle(target, x)
        value = a_chain(x)
        _native.evaluate(handle, x, value, None, threads())
        return value
    if not is_compiling() and holds_array(locals()):
        return takes_arrays(log_density)(**locals())
    return _registered(x, target)[0]


def score(x: Tensor, target: NativeTarget) -> Tensor:
    """Return the native score, like ``x``, of a native target at ``x`` (n_chains, dim).

    Not differentiable; the targets' own method is.

    Example:
        >>> import pushforward as pf, torch
        >>> target = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
        >>> pf.ops.score(torch.ones(1, 2), target)
        tensor([[-1., -1.]])

    """
    if is_plain(x):
        handle = native_handle(target, x)
        gradient = like(x)
        _native.evaluate(handle, x, None, gradient, threads())
        return gradient
    if not is_compiling() and holds_array(locals()):
        return takes_arrays(score)(**locals())
    return _registered(x, target)[1]


def log_density_and_score(x: Tensor, target: NativeTarget) -> tuple[Tensor, Tensor]:
    """Return the native log-density and score of a native target in one pass.

    Args:
        x: points ``(n_chains, dim)``, float32 or float64.
        target: a native target of :mod:`pushforward.targets`.

    Returns:
        ``(n_chains,)`` and a tensor like ``x``. The first is differentiable in ``x``, once, with
        the second as its gradient; the second is not. The targets' own methods are, as often as
        wanted.

    Raises:
        TypeError: a dtype or a type is wrong.
        ValueError: the shape is not the target's.

    """
    if is_plain(x):
        return _evaluate(x, native_handle(target, x))
    if not is_compiling() and holds_array(locals()):
        return takes_arrays(log_density_and_score)(**locals())
    return _registered(x, target)


def _registered(x: Tensor, target: NativeTarget) -> tuple[Tensor, Tensor]:
    must_be_native(target)
    eager = not is_compiling()
    if eager:
        check_tensor(x, "x")
    if eager and forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None:
        raise ValueError(
            "x: expected a tensor without a tangent of forward mode; the target's own methods take "
            "one"
        )
    kind, dim, k, tensors, scalars = target.native_arguments(x.dtype, x.device)
    return torch.ops.pushforward.evaluate(x, tensors, kind, dim, k, scalars)


def _evaluate(x: Tensor, target: _native.Target) -> tuple[Tensor, Tensor]:
    value, gradient = a_chain(x), like(x)
    _native.evaluate(target, x, value, gradient, threads())
    return value, gradient


_GAUSSIAN_DENSE = 1  # TargetKind in csrc/core/view.hpp


class Matrix:
    """A matrix ``(dim, dim)`` to multiply rows with, summed as native runs do.

    A row's result does not depend on the other rows, as that of torch's product does: it is the
    score ``-matrix @ (0 - row)`` of a Gaussian.
    """

    def __init__(self, matrix: Tensor) -> None:
        zeros = matrix.new_zeros(len(matrix))
        self._parts = [zeros, (-matrix).contiguous()]
        self._score = _native.Target(_GAUSSIAN_DENSE, len(matrix), 1, self._parts, 0.0, 0.0, 0.0)

    def __reduce__(self) -> tuple[type[Matrix], tuple[Tensor]]:
        return Matrix, (-self._parts[1],)

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``matrix @ row`` for each row of ``x`` ``(n, dim)``."""
        if is_plain(x):
            out = like(x)
            _native.evaluate(self._score, x, None, out, threads())
            return out
        law = (self._parts, _GAUSSIAN_DENSE, len(self._parts[0]), 1, [0.0, 0.0, 0.0])
        return torch.ops.pushforward.evaluate(x, *law)[1]


library.define(f"evaluate(Tensor x, {TARGET}) -> (Tensor, Tensor)")


@implement("evaluate")
def _evaluate_cpu(
    x: Tensor,
    parameters: list[Tensor],
    kind: int,
    dim: int,
    n_components: int,
    scalars: list[float],
) -> tuple[Tensor, Tensor]:
    return _evaluate(x, _native.Target(kind, dim, n_components, parameters, *scalars))


@torch.library.register_fake("pushforward::evaluate", lib=library)
def _evaluate_fake(x: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[:1]), like(x)


def _evaluate_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, parameters, *_ = inputs
    if any(p.requires_grad for p in parameters):
        raise ValueError("parameters: expected tensors without gradient; only x has a derivative")
    ctx.n_parameters = len(parameters)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, output[1])


def _evaluate_backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    x, gradient = ctx.saved_tensors
    none = [None] * ctx.n_parameters
    return gradient_of(x, gradient, grad), none, None, None, None, None


torch.library.register_autograd(
    "pushforward::evaluate", _evaluate_backward, setup_context=_evaluate_setup, lib=library
)
