# SPDX-License-Identifier: Apache-2.0
"""The Gaussian law (eq 23)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pushforward.targets.base import (
    Kind,
    NativeTarget,
    cholesky,
    finite,
    lower_product,
    normals,
    vector,
)


class Gaussian(NativeTarget):
    r"""The normalised Gaussian law with a diagonal or a dense precision matrix (eq 23).

    .. math:: \log\pi(x) = -\tfrac12 (x-\mu)^\top P (x-\mu) + \tfrac12\log\det P
        - \tfrac{d}{2}\log 2\pi

    Args:
        mean: shape ``(dim,)``.
        precision: positive definite ``(dim, dim)``, or a positive diagonal ``(dim,)``.
        covariance: its inverse, likewise. Exactly one of the three must be given.
        scale: standard deviations, ``(dim,)``.

    Raises:
        TypeError: not exactly one of ``precision``, ``covariance``, ``scale`` was given.
        ValueError: a shape is wrong or a matrix is not positive definite.

    Example:
        >>> import pushforward as pf, torch
        >>> covariance = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
        >>> law = pf.targets.Gaussian(torch.zeros(2), covariance=covariance)
        >>> law.sample(5, seed=0).shape
        torch.Size([5, 2])

    """

    def __init__(
        self, mean: Any, *, precision: Any = None, covariance: Any = None, scale: Any = None
    ) -> None:
        center = vector(mean, "mean")
        self.dim = center.shape[0]
        if self.dim == 0:
            raise ValueError("mean: expected at least one coordinate, got shape (0,)")
        given = {"precision": precision, "covariance": covariance, "scale": scale}
        named = [(name, value) for name, value in given.items() if value is not None]
        if len(named) != 1:
            raise TypeError(
                "expected exactly one of precision, covariance and scale, got "
                + (", ".join(name for name, _ in named) or "none")
            )
        name, value = named[0]
        matrix = finite(value, name, 1 if name == "scale" else (1, 2))
        if matrix.shape != (self.dim,) * matrix.ndim:
            raise ValueError(
                f"{name}: expected shape ({self.dim},)"
                + ("" if name == "scale" else f" or ({self.dim}, {self.dim})")
                + f", got {tuple(matrix.shape)}"
            )
        if matrix.ndim == 1:
            if not (matrix > 0).all():
                raise ValueError(f"{name}: expected positive values, got {matrix.min().item()}")
            variance = {"precision": 1 / matrix, "covariance": matrix, "scale": matrix**2}[name]
            self._covariance, self._factor = variance, variance.sqrt()
            inverse = 1 / variance
            log_det = inverse.log().sum().item()
            self.kind = Kind.GAUSSIAN_DIAGONAL
        else:
            factor = cholesky(matrix, name)
            other = torch.cholesky_inverse(factor)
            inverse = (matrix + matrix.mT) / 2 if name == "precision" else other
            self._covariance = other if name == "precision" else (matrix + matrix.mT) / 2
            self._factor = cholesky(self._covariance, name)
            log_det = -2 * self._factor.diagonal().log().sum().item()
            self.kind = Kind.GAUSSIAN_DENSE
        self._parameters = (center, inverse)
        self._scalars = (0.5 * log_det - 0.5 * self.dim * math.log(2 * math.pi),)

    def torch_log_density(self, x: Tensor) -> Tensor:
        """Return the log-density in plain torch."""
        center, precision = (p.to(x) for p in self._parameters)
        away = x - center
        pulled = away * precision if precision.ndim == 1 else away @ precision
        return self._scalars[0] - 0.5 * (pulled * away).sum(1)

    def _draw(self, n: int, seed: int, chain_offset: int) -> Tensor:
        z = normals(n, self.dim, seed, chain_offset)
        if self.kind == Kind.GAUSSIAN_DIAGONAL:
            return self._parameters[0] + z * self._factor
        return self._parameters[0] + lower_product(self._factor, z)

    @property
    def mean(self) -> Tensor:
        """Exact mean, float64 ``(dim,)``."""
        return self._parameters[0].clone()

    @property
    def covariance(self) -> Tensor:
        """Exact covariance, float64 ``(dim, dim)``."""
        covariance = self._covariance
        return covariance.diag() if covariance.ndim == 1 else covariance.clone()
