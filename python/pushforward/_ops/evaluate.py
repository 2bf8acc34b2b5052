# SPDX-License-Identifier: Apache-2.0
"""The log-density and the score of native targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import (
    check_tensor,
    implement,
    is_plain,
    library,
    like,
    threads,
)

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


def log_density(x: Tensor, target: NativeTarget) -> Tensor:
    """Return the native log-density ``(n_chains,)`` of a native target at ``x`` (n_chains, dim).

    Example:
        >>> import pushforward as pf, torch
        >>> target = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
        >>> round(float(pf.ops.log_density(torch.zeros(1, 2), target)), 4)
        -1.8379

    """
    return log_density_and_score(x, target)[0]


def score(x: Tensor, target: NativeTarget) -> Tensor:
    """Return the native score, like ``x``, of a native target at ``x`` (n_chains, dim).

    Example:
        >>> import pushforward as pf, torch
        >>> target = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
        >>> pf.ops.score(torch.ones(1, 2), target)
        tensor([[-1., -1.]])

    """
    return log_density_and_score(x, target)[1]


def log_density_and_score(x: Tensor, target: NativeTarget) -> tuple[Tensor, Tensor]:
    """Return the native log-density and score of a native target in one pass.

    Args:
        x: points ``(n_chains, dim)``, float32 or float64.
        target: a native target of :mod:`pushforward.targets`.

    Returns:
        ``(n_chains,)`` and a tensor like ``x``. Not differentiable; the targets' own methods are.

    Raises:
        TypeError: a dtype or a type is wrong.
        ValueError: the shape is not the target's.

    """
    must_be_native(target)
    if not torch.compiler.is_compiling():
        check_tensor(x, "x")
    if is_plain(x):
        return _evaluate(x, target.native(x))
    kind, dim, k, tensors, scalars = target.native_arguments(x.dtype, x.device)
    return torch.ops.pushforward.evaluate(x.detach(), tensors, kind, dim, k, scalars)


def _evaluate(x: Tensor, target: _native.Target) -> tuple[Tensor, Tensor]:
    value = x.new_empty(x.shape[:1])
    gradient = like(x)
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
        parts = [zeros, (-matrix).contiguous()]
        self._score = _native.Target(_GAUSSIAN_DENSE, len(matrix), 1, parts, 0.0, 0.0, 0.0)

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``matrix @ row`` for each row of ``x`` ``(n, dim)``."""
        out = like(x)
        _native.evaluate(self._score, x, None, out, threads())
        return out


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
