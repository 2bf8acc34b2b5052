# SPDX-License-Identifier: Apache-2.0
"""Correctness gates: whether samples follow the law that they should.

Each gate reduces its samples to statistics that are standard normal where the law is right, and
fails if one of them is too large. The limit is such that a gate fails by chance with a probability
of at most :data:`FALSE_ALARM` (Bonferroni over its statistics).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness import GateError

FALSE_ALARM = 1e-9
"""Probability that a gate fails on right samples."""

_CHUNK = 1 << 20


def as_torch(samples: Any) -> Tensor:
    """Return a tensor with the numbers of a tensor or of another library's array."""
    return samples if isinstance(samples, Tensor) else torch.from_numpy(np.array(samples))


def require(statistics: Tensor, what: str) -> None:
    """Fail unless all these standard normal ``statistics`` are of ordinary size."""
    limit = -NormalDist().inv_cdf(FALSE_ALARM / (2 * statistics.numel()))
    worst = float(statistics.abs().max())
    if not worst <= limit:  # also where it is nan
        raise GateError(f"{what}: {worst:.1f} standard errors from the law, allowed {limit:.1f}")


def variance_statistic(square_sum: Tensor, n: int) -> Tensor:
    """Map sums of ``n`` squared standard normals to standard normals (Wilson and Hilferty)."""
    spread = 2 / (9 * n)
    return ((square_sum / n) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


def standard_normal(samples: Any) -> None:
    """Require independent standard normals: mean, variance, neighbours; skewness, kurtosis.

    The last two are left out below 10^5 numbers, where they are themselves far from normal.
    """
    flat = as_torch(samples).flatten()
    n, sums = flat.numel(), torch.zeros(5, dtype=torch.float64)
    for piece in flat.split(_CHUNK):
        z = piece.double()
        z2 = z * z
        neighbours = (z[1:] * z[:-1]).sum()
        hermite = [(z2 * z - 3 * z).sum(), (z2 * z2 - 6 * z2 + 3).sum()]
        sums += torch.stack([z.sum(), z2.sum(), neighbours, *hermite])
    scaled = sums / torch.tensor([n, 1, n, 6 * n, 24 * n], dtype=torch.float64).sqrt()
    scaled[1] = variance_statistic(sums[1], n)
    require(scaled if n >= 100_000 else scaled[:3], "standard normals")


def uniform(samples: Any) -> None:
    """Require uniforms in [0, 1]: the first four moments, and neighbours."""
    flat = as_torch(samples).flatten()
    n, sums = flat.numel(), torch.zeros(5, dtype=torch.float64)
    for piece in flat.split(_CHUNK):
        u = piece.double()
        if not bool(((u >= 0) & (u <= 1)).all()):
            raise GateError("uniforms: a number is outside [0, 1]")
        powers = [(u**k - 1 / (k + 1)).sum() for k in (1, 2, 3, 4)]
        sums += torch.stack([*powers, 12 * ((u[1:] - 0.5) * (u[:-1] - 0.5)).sum()])
    spreads = [1 / (2 * k + 1) - 1 / (k + 1) ** 2 for k in (1, 2, 3, 4)]
    require(sums / (n * torch.tensor([*spreads, 1.0])).sqrt(), "uniforms")


def constant(value: float) -> Any:
    """Return a gate that requires every number to be ``value``."""

    def gate(samples: Tensor, calls: int) -> None:
        if not bool((samples == value).all()):
            raise GateError(f"a number is not {value}")

    return gate


class MixtureLaw:
    """The exact law of unadjusted Langevin on a mixture whose modes are many widths apart.

    Chain ``i`` starts at the centre of mode ``i % K`` and stays there, where a step is
    ``x' = m + a (x - m) + sqrt(2 h) xi`` with ``a = 1 - h / s**2``: after ``n`` steps each
    coordinate has mean ``m`` and variance ``2 h (1 - a**2n) / (1 - a**2)``, which is not that of
    the mixture but that of the scheme.
    """

    def __init__(self, means: Tensor, stds: Tensor, step_size: float) -> None:
        self.means, self.stds, self.step_size = means.double(), stds.double(), step_size

    def start(self, n_chains: int) -> Tensor:
        """Return where the chains begin, float32 ``(n_chains, dim)``."""
        return self.means[torch.arange(n_chains) % len(self.means)].float()

    def variances(self, n_steps: int) -> Tensor:
        """Return the variance of a coordinate in each mode after ``n_steps``."""
        a = 1 - self.step_size / self.stds**2
        return 2 * self.step_size * (1 - a ** (2 * n_steps)) / (1 - a * a)

    def check(self, samples: Any, n_steps: int) -> None:
        """Require occupancies, means and variances of the modes after ``n_steps``."""
        modes, dim = self.means.shape
        x = as_rows(samples, dim).double()
        z = x[: len(x) // modes * modes].reshape(-1, modes, dim) - self.means
        z /= self.variances(n_steps).sqrt()[:, None]
        require(z, "chains in the mode where they began")
        n = len(z)
        require(z.sum(0) / math.sqrt(n), "means of the modes")
        require(variance_statistic((z * z).sum(0), n), "variances of the modes")

    def check_pooled(self, mean: Tensor, var: Tensor, n_chains: int, n_steps: int) -> None:
        """Require mean and variance over all chains and steps to be those of the law.

        The modes are equally full, so that only the spread within them is random. The chains'
        steps are dependent, so that the standard error is bounded by that of one step.
        """
        by_step = torch.stack([self.variances(k + 1) for k in range(n_steps)])
        error = by_step.max().sqrt() / math.sqrt(n_chains)
        expected = by_step.mean() + self.means.square().mean(0)
        require(mean / error, "pooled mean")
        require((var - expected) / (2 * self.means.abs().max() + 1) / error, "pooled variance")


class GaussianLaw:
    """The exact law of unadjusted Langevin on a centred Gaussian, all chains from one point.

    With the precision ``Q diag(l) Q^T`` the coordinates ``Q^T x`` are independent, and ``n`` steps
    of ``a = 1 - h l`` take ``y`` to mean ``a**n y`` and variance ``2 h (1 - a**2n) / (1 - a**2)``.
    """

    def __init__(self, basis: Tensor, eigenvalues: Tensor, step_size: float) -> None:
        self.basis, self.eigenvalues, self.step_size = basis, eigenvalues, step_size

    @property
    def precision(self) -> Tensor:
        """Return the precision matrix, float64."""
        return (self.basis * self.eigenvalues) @ self.basis.mT

    def start(self, n_chains: int) -> Tensor:
        """Return where the chains begin, float32 ``(n_chains, dim)``."""
        return torch.ones(n_chains, len(self.basis))

    def check(self, samples: Any, n_steps: int) -> None:
        """Require the means and the whole covariance matrix after ``n_steps``."""
        dim = len(self.basis)
        x = as_rows(samples, dim).double()
        a = 1 - self.step_size * self.eigenvalues
        sd = (2 * self.step_size * (1 - a ** (2 * n_steps)) / (1 - a * a)).sqrt()
        mean = a**n_steps * (self.start(1).double()[0] @ self.basis)
        z = (x @ self.basis - mean) / sd
        n, products = len(z), z.mT @ z
        off = products[~torch.eye(dim, dtype=torch.bool)] / math.sqrt(n)
        require(z.sum(0) / math.sqrt(n), "means")
        require(torch.cat([variance_statistic(products.diagonal(), n), off]), "covariances")


def as_rows(samples: Any, dim: int) -> Tensor:
    """Return the state as ``(n_chains, dim)`` from that or from its transpose."""
    x = as_torch(samples)
    return x if x.shape[-1] == dim else x.mT


def increments(samples: Any, start: Tensor, score: Tensor, step_size: float, steps: int) -> None:
    """Require ``steps`` Langevin steps with one constant ``score`` to have moved ``start``."""
    moved = as_torch(samples).double() - start.double() - steps * step_size * score.double()
    standard_normal(moved / math.sqrt(2 * step_size * steps))


def product(factors: Sequence[Tensor]) -> Any:
    """Return a gate that requires the matrix product of two factors, by way of one vector."""
    probe = torch.linspace(-1, 1, factors[1].shape[1], dtype=torch.float64)
    expected = factors[0].double() @ (factors[1].double() @ probe)

    def gate(samples: Tensor, calls: int) -> None:
        if not torch.allclose(samples.double() @ probe, expected, rtol=1e-3, atol=1e-2):
            raise GateError("the matrix product is wrong")

    return gate


class ModesLaw:
    """An isotropic mixture of equal weights whose modes are many widths apart, sampled exactly.

    Chains that start in the law and are moved by a kernel that leaves it invariant stay independent
    draws from it.
    """

    def __init__(self, means: Tensor, stds: Tensor) -> None:
        self.means, self.stds = means.double(), stds.double()

    def start(self, n_chains: int) -> Tensor:
        """Return independent draws, float32 ``(n_chains, dim)``."""
        generator = torch.Generator().manual_seed(0)
        mode = torch.randint(len(self.means), (n_chains,), generator=generator)
        z = torch.randn(n_chains, self.means.shape[1], dtype=torch.float64, generator=generator)
        return (self.means[mode] + self.stds[mode, None] * z).float()

    def check(self, samples: Any) -> None:
        """Require the modes' weights, and their means and variances."""
        x = as_rows(samples, self.means.shape[1]).double()
        mode = torch.cdist(x, self.means).argmin(1)
        n, weight = len(x), 1 / len(self.means)
        counts = torch.bincount(mode, minlength=len(self.means)).double()
        require(
            (counts - n * weight) / math.sqrt(n * weight * (1 - weight)), "weights of the modes"
        )
        z = (x - self.means[mode]) / self.stds[mode, None]
        for k in range(len(self.means)):
            of_mode = z[mode == k]
            require(of_mode.sum(0) / math.sqrt(len(of_mode)), "means of the modes")
            squares = of_mode.square().sum(0)
            require(variance_statistic(squares, len(of_mode)), "variances of the modes")


class ScaledLaw:
    """A centred Gaussian with independent coordinates, sampled exactly."""

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale.double()

    def start(self, n_chains: int) -> Tensor:
        """Return independent draws, float32 ``(n_chains, dim)``."""
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(n_chains, len(self.scale), dtype=torch.float64, generator=generator)
        return (z * self.scale).float()

    def check(self, samples: Any) -> None:
        """Require independent standard normals after scaling."""
        standard_normal(as_torch(samples).double() / self.scale)
