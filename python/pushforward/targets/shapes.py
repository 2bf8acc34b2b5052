# SPDX-License-Identifier: Apache-2.0
"""Laws with a shape that is hard for samplers and easy to draw: banana, funnel, ring."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward import _ops, random
from pushforward.targets.base import Kind, NativeTarget, choices, normals, number


class Banana(NativeTarget):
    r"""A bent Gaussian, normalised.

    .. math:: x_0 \sim \mathcal N(0, s^2),\quad x_1 | x_0 \sim \mathcal N(c (x_0^2 - s^2), 1),\quad
        x_{i \ge 2} \sim \mathcal N(0, 1)

    Reference: H. Haario, E. Saksman, J. Tamminen (1999), Adaptive proposal distribution for random
    walk Metropolis algorithm, Computational Statistics 14.

    Args:
        dim: number of coordinates, at least 2.
        scale: ``s``, positive.
        curvature: ``c``.

    Raises:
        ValueError: ``dim < 2`` or ``scale <= 0``.

    Example:
        >>> import pushforward as pf
        >>> pf.targets.Banana(2, scale=2.0, curvature=0.5).covariance.diagonal()
        tensor([4., 9.], dtype=torch.float64)

    """

    kind = Kind.BANANA

    def __init__(self, dim: int = 2, *, scale: float = 2.0, curvature: float = 0.5) -> None:
        self.dim = _ops.count(dim, "dim", 2)
        s, c = number(scale, "scale", positive=True), number(curvature, "curvature")
        self._scalars = (s, c, -math.log(s) - 0.5 * self.dim * math.log(2 * math.pi))

    def torch_log_density(self, x: Tensor) -> Tensor:
        """Return the log-density in plain torch."""
        s, c, constant = self._scalars
        across = x[:, 1] - c * (x[:, 0] ** 2 - s * s)
        square = (x[:, 0] / s) ** 2 + across**2 + (x[:, 2:] ** 2).sum(1)
        return constant - 0.5 * square

    def _draw(self, n: int, seed: int, chain_offset: int) -> Tensor:
        s, c, _ = self._scalars
        x = normals(n, self.dim, seed, chain_offset)
        x[:, 0] *= s
        x[:, 1] += c * (x[:, 0] ** 2 - s * s)
        return x

    @property
    def mean(self) -> Tensor:
        """Exact mean, zero, float64 ``(dim,)``."""
        return torch.zeros(self.dim, dtype=torch.float64)

    @property
    def covariance(self) -> Tensor:
        """Exact covariance, float64 ``(dim, dim)``: diagonal s², 1 + 2c²s⁴, 1, ...."""
        s, c, _ = self._scalars
        variances = torch.ones(self.dim, dtype=torch.float64)
        variances[0], variances[1] = s * s, 1 + 2 * c * c * s**4
        return variances.diag()


class Funnel(NativeTarget):
    r"""Neal's funnel, normalised.

    .. math:: x_0 \sim \mathcal N(0, s^2),\qquad x_{i \ge 1} | x_0 \sim \mathcal N(0, e^{x_0})

    Reference: R. M. Neal (2003), Slice sampling, Annals of Statistics 31, section 8.

    Args:
        dim: number of coordinates, at least 2.
        scale: ``s``, positive.

    Raises:
        ValueError: ``dim < 2`` or ``scale <= 0``.

    Example:
        >>> import pushforward as pf
        >>> pf.targets.Funnel(10).sample(3, seed=0).shape
        torch.Size([3, 10])

    """

    kind = Kind.FUNNEL

    def __init__(self, dim: int, *, scale: float = 3.0) -> None:
        self.dim = _ops.count(dim, "dim", 2)
        s = number(scale, "scale", positive=True)
        self._scalars = (s, -math.log(s) - 0.5 * self.dim * math.log(2 * math.pi))

    def torch_log_density(self, x: Tensor) -> Tensor:
        """Return the log-density in plain torch."""
        s, constant = self._scalars
        neck = x[:, 0]
        square = (x[:, 1:] ** 2).sum(1)
        return (
            constant
            - 0.5 * (neck / s) ** 2
            - 0.5 * (self.dim - 1) * neck
            - 0.5 * square * torch.exp(-neck)
        )

    def _draw(self, n: int, seed: int, chain_offset: int) -> Tensor:
        x = normals(n, self.dim, seed, chain_offset)
        x[:, 0] *= self._scalars[0]
        x[:, 1:] *= torch.exp(0.5 * x[:, :1])
        return x

    @property
    def mean(self) -> Tensor:
        """Exact mean, zero, float64 ``(dim,)``."""
        return torch.zeros(self.dim, dtype=torch.float64)

    @property
    def covariance(self) -> Tensor:
        """Exact covariance, float64 ``(dim, dim)``: diagonal s², then exp(s²/2)."""
        s = self._scalars[0]
        variances = torch.full((self.dim,), math.exp(0.5 * s * s), dtype=torch.float64)
        variances[0] = s * s
        return variances.diag()


class Ring(NativeTarget):
    r"""A ring in the plane.

    .. math:: \log\pi(x) = -\frac{(|x| - R)^2}{2 s^2}

    Args:
        radius: ``R``, positive.
        scale: ``s``, positive.

    Raises:
        ValueError: an argument is not positive.

    Example:
        >>> import pushforward as pf
        >>> ring = pf.targets.Ring(radius=3.0, scale=0.1)
        >>> round(float(ring.sample(1000, seed=0).norm(dim=1).mean()), 1)
        3.0

    """

    kind = Kind.RING

    def __init__(self, radius: float = 3.0, scale: float = 0.3) -> None:
        self.dim = 2
        self.radius = number(radius, "radius", positive=True)
        self.scale = number(scale, "scale", positive=True)
        self._scalars = (self.radius, self.scale**-2)

    def torch_log_density(self, x: Tensor) -> Tensor:
        """Return the log-density in plain torch."""
        return -0.5 * ((torch.linalg.vector_norm(x, dim=1) - self.radius) / self.scale) ** 2

    def _draw(self, n: int, seed: int, chain_offset: int) -> Tensor:
        # r exp(-(r-R)^2 / 2s^2) under the Gaussian at its mode c, since ln r <= ln c + (r-c)/c.
        top = 0.5 * (self.radius + math.sqrt(self.radius**2 + 4 * self.scale**2))
        r = torch.zeros(n, dtype=torch.float64)
        missing = torch.ones(n, dtype=torch.bool)
        attempt = 0
        while missing.any():
            z = random.normal(
                n,
                1,
                seed=seed,
                purpose="target",
                start=attempt,
                chain_offset=chain_offset,
                dtype=torch.float64,
            )[:, 0]
            u = choices(n, 1, seed, chain_offset, start=1 + attempt)[:, 0]
            candidate = top + self.scale * z
            ratio = candidate / top
            accepted = missing & (candidate > 0) & (u <= ratio * torch.exp(1 - ratio))
            r = torch.where(accepted, candidate, r)
            missing &= ~accepted
            attempt += 1
        angle = 2 * math.pi * choices(n, 1, seed, chain_offset)[:, 0]
        return torch.stack((r * angle.cos(), r * angle.sin()), 1)

    def _radial_integral(self, power: int) -> float:
        """Integral of r^power exp(-(r-R)^2 / 2s^2) over r > 0, by integration by parts."""
        big, s = self.radius, self.scale
        edge = s * s * math.exp(-0.5 * (big / s) ** 2)
        below = s * math.sqrt(math.pi / 2) * math.erfc(-big / (s * math.sqrt(2)))
        values = [below, edge + big * below]
        for p in range(2, power + 1):
            values.append(big * values[p - 1] + (p - 1) * s * s * values[p - 2])
        return values[power]

    @property
    def mean(self) -> Tensor:
        """Exact mean, zero, float64 ``(2,)``."""
        return torch.zeros(2, dtype=torch.float64)

    @property
    def covariance(self) -> Tensor:
        """Exact covariance, float64 ``(2, 2)``."""
        second = self._radial_integral(3) / self._radial_integral(1)
        return 0.5 * second * torch.eye(2, dtype=torch.float64)

    @property
    def log_z(self) -> float:
        """Logarithm of the integral of ``exp(log_density)``."""
        return math.log(2 * math.pi * self._radial_integral(1))
