# SPDX-License-Identifier: Apache-2.0
"""Mixtures of Gaussians."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pushforward.targets.base import (
    Kind,
    NativeTarget,
    choices,
    cholesky,
    finite,
    lower_product,
    normals,
    vector,
)


class GaussianMixture(NativeTarget):
    r"""A normalised mixture of ``K`` Gaussians.

    .. math:: \pi(x) = \sum_{k=1}^K w_k\, \mathcal N(x; \mu_k, \Sigma_k)

    Args:
        means: shape ``(K, dim)``.
        scales: standard deviations: a number for all, ``(K,)`` for isotropic or ``(K, dim)`` for
            diagonal components.
        covariances: ``(K, dim, dim)``. Exactly one of the two must be given.
        weights: positive, shape ``(K,)``, normalised if they do not sum to 1; equal by default.

    Raises:
        TypeError: not exactly one of ``scales``, ``covariances`` was given.
        ValueError: a shape is wrong, a scale or a weight is not positive, a matrix not definite.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.targets.GaussianMixture(torch.tensor([[-2.0], [2.0]]), scales=torch.ones(2))
        >>> law.covariance
        tensor([[5.]], dtype=torch.float64)

    """

    def __init__(
        self, means: Any, *, scales: Any = None, covariances: Any = None, weights: Any = None
    ) -> None:
        centers = finite(means, "means", 2)
        self.n_components, self.dim = centers.shape
        k, dim = self.n_components, self.dim
        if k == 0 or dim == 0:
            raise ValueError(f"means: expected shape (K, dim), got {tuple(centers.shape)}")
        if (scales is None) == (covariances is None):
            raise TypeError("expected exactly one of scales and covariances")
        w = vector([1.0] * k if weights is None else weights, "weights")
        if w.shape != (k,) or not (w > 0).all():
            raise ValueError(f"weights: expected {k} positive values, got {w.tolist()}")
        self._weights = w / w.sum()
        if scales is not None:
            std = finite(scales, "scales", (0, 1, 2))
            std = std.expand(k) if std.ndim == 0 else std
            if std.shape not in ((k,), (k, dim)) or not (std > 0).all():
                raise ValueError(
                    f"scales: expected positive values of shape ({k},) or ({k}, {dim}), "
                    f"got shape {tuple(std.shape)} with least {std.min().item()}"
                )
            self.kind = Kind.MIXTURE_ISOTROPIC if std.ndim == 1 else Kind.MIXTURE_DIAGONAL
            precisions = std**-2
            spread = std if std.ndim == 2 else std[:, None].repeat(1, dim)
            self._factors = spread
            log_det = -2 * spread.log().sum(1)
        else:
            matrices = finite(covariances, "covariances", 3)
            if matrices.shape != (k, dim, dim):
                raise ValueError(
                    f"covariances: expected shape ({k}, {dim}, {dim}), got {tuple(matrices.shape)}"
                )
            self.kind = Kind.MIXTURE_DENSE
            self._factors = cholesky(matrices, "covariances")
            precisions = torch.cholesky_inverse(self._factors)
            log_det = -2 * self._factors.diagonal(dim1=-2, dim2=-1).log().sum(1)
        log_weights = self._weights.log() + 0.5 * log_det - 0.5 * dim * math.log(2 * math.pi)
        self._parameters = (centers, precisions, log_weights)

    @property
    def means(self) -> Tensor:
        """Centers of the components, float64 ``(K, dim)``."""
        return self._parameters[0].clone()

    @property
    def weights(self) -> Tensor:
        """Weights of the components, float64 ``(K,)``, summing to 1."""
        return self._weights.clone()

    def native_arguments(
        self, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> tuple[int, int, int, list[Tensor], list[float]]:
        """Return the parameters in base 2, as the kernel takes them."""
        centers, precisions, log_weights = self._parameters
        log2_e = 1 / math.log(2)
        tensors = [centers, -0.5 * log2_e * precisions, log2_e * log_weights]
        converted = [t.to(dtype).contiguous().to(device) for t in tensors]
        return int(self.kind), self.dim, self.n_components, converted, [0.0, 0.0, 0.0]

    def torch_log_density(self, x: Tensor) -> Tensor:
        """Return the log-density in plain torch."""
        centers, precisions, log_weights = (p.to(x) for p in self._parameters)
        away = x[:, None, :] - centers
        if self.kind == Kind.MIXTURE_DENSE:
            square = (torch.einsum("nki,kij->nkj", away, precisions) * away).sum(2)
        elif self.kind == Kind.MIXTURE_DIAGONAL:
            square = (away * away * precisions).sum(2)
        else:
            square = (away * away).sum(2) * precisions
        return torch.logsumexp(log_weights - 0.5 * square, 1)

    def _draw(self, n: int, seed: int, chain_offset: int) -> Tensor:
        u = choices(n, 1, seed, chain_offset)[:, 0]
        component = torch.searchsorted(self._weights.cumsum(0), u)
        component = component.clamp(max=self.n_components - 1)
        z = normals(n, self.dim, seed, chain_offset)
        factors = self._factors[component]
        spread = factors * z if factors.ndim == 2 else lower_product(factors, z)
        return self._parameters[0][component] + spread

    @property
    def mean(self) -> Tensor:
        """Exact mean, float64 ``(dim,)``."""
        return self._weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """Exact covariance, float64 ``(dim, dim)``."""
        away = self.means - self.mean
        factors = self._factors
        within = torch.diag_embed(factors**2) if factors.ndim == 2 else factors @ factors.mT
        return torch.einsum("k,kij->ij", self._weights, within + away[:, :, None] * away[:, None])
