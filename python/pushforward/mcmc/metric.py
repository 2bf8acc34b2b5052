# SPDX-License-Identifier: Apache-2.0
"""A metric: the coordinates in which a kernel's moves are isotropic."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from pushforward import _ops
from pushforward.targets.base import cholesky


@dataclass(frozen=True, eq=False)
class Metric:
    """Moves are made in ``z`` with ``x = L z``, where ``L L'`` is near the target's covariance.

    Attributes:
        factor: None for the identity, ``(dim,)`` for a diagonal ``L``, or ``(dim, dim)``.

    """

    factor: Tensor | None = None
    _matrices: tuple[_ops.Matrix, _ops.Matrix] | None = field(default=None, repr=False)

    @classmethod
    def of_factor(cls, factor: Tensor, x: Tensor, name: str) -> Metric:
        """Return the metric with a factor given by the caller, checked against the state ``x``."""
        dim = math.prod(x.shape[1:])
        if factor.ndim == 0:
            return cls(factor.to(x).expand(dim).contiguous())
        if factor.shape != (dim,) * factor.ndim:
            raise ValueError(
                f"{name}: expected a number or shape ({dim},) or ({dim}, {dim}) for x of shape "
                f"{tuple(x.shape)}, got {tuple(factor.shape)}"
            )
        return cls(factor.to(x).contiguous())

    @classmethod
    def of_covariance(cls, covariance: Tensor, name: str = "metric") -> Metric:
        """Return the metric of variances ``(dim,)`` or of a covariance ``(dim, dim)``."""
        if covariance.ndim == 1:
            return cls(covariance.double().sqrt())
        return cls(cholesky(covariance.double(), name))

    @property
    def is_unit(self) -> bool:
        """Whether ``L`` is the identity."""
        return self.factor is None

    def fitting(self, x: Tensor) -> Metric:
        """Return the metric in the type and on the device of ``x``, whose shape it must fit."""
        if self.factor is None:
            return self
        dim = math.prod(x.shape[1:])
        if len(self.factor) != dim:
            raise ValueError(
                f"metric: expected shape ({dim},) or ({dim}, {dim}) for x of shape "
                f"{tuple(x.shape)}, got {tuple(self.factor.shape)}"
            )
        factor = self.factor.to(x).contiguous()
        return Metric(factor, _matrices_of(factor) if factor.ndim == 2 else None)

    def parameters(self) -> dict[str, Tensor]:
        """Return the factor as a native run takes it."""
        if self.factor is None:
            return {}
        if self.factor.ndim == 1:
            return {"metric": self.factor}
        return {"metric": self.factor, "metric_transposed": self.factor.mT.contiguous()}

    def push(self, z: Tensor) -> Tensor:
        """Return ``L z`` for each row of ``z``."""
        return self._apply(z, transposed=False)

    def pull(self, score: Tensor) -> Tensor:
        """Return ``L' s`` for each row of ``score``."""
        return self._apply(score, transposed=True)

    def _apply(self, rows: Tensor, *, transposed: bool) -> Tensor:
        if self.factor is None:
            return rows
        flat = _ops.rows(rows)
        if self.factor.ndim == 1:
            return (flat * self.factor).reshape(rows.shape)
        push, pull = self._matrices or _matrices_of(self.factor.to(rows))
        return (pull if transposed else push)(flat).reshape(rows.shape)


def _matrices_of(factor: Tensor) -> tuple[_ops.Matrix, _ops.Matrix]:
    return _ops.Matrix(factor), _ops.Matrix(factor.mT)
