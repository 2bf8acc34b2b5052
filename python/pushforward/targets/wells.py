# SPDX-License-Identifier: Apache-2.0
"""Scalar potentials: independent coordinates in a quartic well (eq 24)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pushforward import _ops, random
from pushforward.targets.base import Kind, NativeTarget, choices, number


class DoubleWell(NativeTarget):
    r"""Independent coordinates in the potential of the notes' equation 24.

    .. math:: U(x) = \sum_i \tfrac{\mu}{2} x_i^2 + \tfrac{b}{4} x_i^4,\qquad \log\pi = -U

    Two wells at ``±(-mu / b)**0.5`` for ``mu < 0``, one at zero otherwise.

    Args:
        dim: number of coordinates.
        mu: quadratic coefficient, of any sign.
        b: quartic coefficient, positive.

    Raises:
        ValueError: ``dim < 1`` or ``b <= 0``.

    Example:
        >>> import pushforward as pf
        >>> law = pf.targets.DoubleWell(1, mu=-1.0, b=1.0)
        >>> abs(law.mean.item()) < 1e-12, round(law.covariance.item(), 4)
        (True, 1.0418)

    """

    kind = Kind.DOUBLE_WELL

    def __init__(self, dim: int, mu: float, b: float) -> None:
        self.dim = _ops.count(dim, "dim", 1)
        self._scalars = (number(mu, "mu"), number(b, "b", positive=True))
        self._log_z1, self._variance = self._integrate()

    def _integrate(self) -> tuple[float, float]:
        # The integrand is entire and falls faster than a Gaussian, so the trapezoidal rule
        # converges exponentially. Its range is where the energy is within 45 of the least, in
        # x^2 between the roots of b s^2 / 4 + mu s / 2 - deepest = 45; two wells far apart are
        # two ranges, of which one is enough.
        mu, b = self._scalars
        deepest = mu * mu / (4 * b) if mu < 0 else 0.0
        root = math.sqrt(180 * b) if mu < 0 else math.sqrt(mu * mu + 180 * b)
        upper = (root - mu) / b if mu < 0 else 180 / (root + mu)
        lower = max((-root - mu) / b, 0.0) if mu < 0 else 0.0
        low, high = math.sqrt(lower), math.sqrt(upper)
        x = np.linspace(low if low > 0 else -high, high, 20001)
        square = x * x
        energy = 0.25 * b * (square + mu / b) ** 2 if mu < 0 else square * (mu / 2 + b / 4 * square)
        weight = np.exp(-energy)
        total = float(weight.sum() * (x[1] - x[0])) * (2 if low > 0 else 1)
        return math.log(total) + deepest, float((weight * square).sum() / weight.sum())

    def torch_log_density(self, x: Tensor) -> Tensor:
        """Return the log-density in plain torch."""
        mu, b = self._scalars
        square = x * x
        return -(square * (0.5 * mu + 0.25 * b * square)).sum(1)

    def _draw(self, n: int, seed: int, chain_offset: int) -> Tensor:
        # Rejection from a Gaussian envelope, signs drawn apart; attempt r of a draw reads entries
        # r * dim .. of its sequences, so that draws do not depend on each other.
        center, std, log_accept = self._envelope()
        draws = torch.zeros(n, self.dim, dtype=torch.float64, device="cpu")
        missing = torch.ones(n, self.dim, dtype=torch.bool, device="cpu")
        attempt = 0
        while missing.any():
            z = random.normal(
                n,
                self.dim,
                seed=seed,
                purpose="target",
                start=attempt * self.dim,
                chain_offset=chain_offset,
                dtype=torch.float64,
            )
            u = choices(n, 2 * self.dim, seed, chain_offset, start=2 * attempt * self.dim)
            candidate = center + std * z
            accepted = missing & (u[:, : self.dim].log() <= log_accept(candidate))
            signed = torch.where(u[:, self.dim :] <= 0.5, candidate, -candidate)
            draws = torch.where(accepted, signed, draws)
            missing &= ~accepted
            attempt += 1
        return draws

    def _envelope(self) -> tuple[float, float, Callable[[Tensor], Tensor]]:
        """Center and std of the better of two Gaussian envelopes, and log of density over it."""
        mu, b = self._scalars
        # (x^2 - c)^2 >= 0 gives b x^4 / 4 >= b c x^2 / 2 - b c^2 / 4: a centered Gaussian of
        # precision p = mu + b c. Its mass is least where p^2 - mu p = b, that is c = 1 / p.
        root = math.sqrt(mu * mu + 4 * b)
        p = 0.5 * (root + mu) if mu > 0 else 2 * b / (root - mu)
        c = 1 / p
        if mu < 0:
            # Around the well m > 0, for x > 0: (x + m)^2 >= m^2 gives a Gaussian at m. It covers
            # half of the law, and the sign gives the other half. Masses are over exp(b m^4 / 4),
            # beside which their difference would be lost.
            m2 = -mu / b
            log_mass = 0.25 * p * (c + m2) + 0.5 * math.log(2 * math.pi / p)
            log_well = 0.5 * math.log(4 * math.pi / (b * m2)) + math.log(2)
            if log_well < log_mass:
                m = math.sqrt(m2)

                def log_accept(x: Tensor) -> Tensor:
                    inside = -0.25 * b * (x - m) ** 2 * ((x + m) ** 2 - m2)
                    return torch.where(x > 0, inside, -math.inf)

                return m, math.sqrt(2 / (b * m2)), log_accept
        return 0.0, 1 / math.sqrt(p), lambda x: -0.25 * b * (x * x - c) ** 2

    @property
    def mean(self) -> Tensor:
        """Exact mean, zero, float64 ``(dim,)``."""
        return torch.zeros(self.dim, dtype=torch.float64)

    @property
    def covariance(self) -> Tensor:
        """Exact covariance, float64 ``(dim, dim)``, by quadrature to full precision."""
        return self._variance * torch.eye(self.dim, dtype=torch.float64)

    @property
    def log_z(self) -> float:
        """Logarithm of the integral of ``exp(log_density)``, by quadrature to full precision."""
        return self.dim * self._log_z1
