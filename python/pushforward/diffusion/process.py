# SPDX-License-Identifier: Apache-2.0
"""The forward process: Ornstein-Uhlenbeck (notes, section 6.2.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from pushforward import _ops, random
from pushforward.targets.base import number

Time = Tensor | float


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    r"""The Ornstein-Uhlenbeck process (eq 123); data sits at ``t = 0``, noise at large ``t``.

    .. math:: dx = -\kappa x\,dt + \sigma\,dW

    with the exact solution of eq 124

    .. math:: x_t = e^{-\kappa t} x_0 + \sigma\sqrt{\frac{1 - e^{-2\kappa t}}{2\kappa}}\;\xi.

    The defaults are the notes' normalised parameters (eq 128), whose law at large ``t`` is N(0, 1).

    Args:
        kappa: pull towards zero, ``>= 0``; 0 is pure diffusion.
        diffusion: ``sigma > 0``.

    Raises:
        TypeError: a parameter is not a number.
        ValueError: a parameter is out of range.

    Example:
        >>> import math, pushforward as pf
        >>> process = pf.diffusion.OrnsteinUhlenbeck()
        >>> round(process.mean_scale(1.0) ** 2 + process.std(1.0) ** 2, 12)
        1.0

    """

    kappa: float = 1.0
    diffusion: float = 2**0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "kappa", number(self.kappa, "kappa"))
        object.__setattr__(self, "diffusion", number(self.diffusion, "diffusion", positive=True))
        if self.kappa < 0:
            raise ValueError(f"kappa: expected a finite number >= 0, got {self.kappa}")

    @overload
    def mean_scale(self, t: float) -> float: ...
    @overload
    def mean_scale(self, t: Tensor) -> Tensor: ...
    def mean_scale(self, t: Time) -> Time:
        """Return ``exp(-kappa t)``, the factor of ``x_0`` in ``x_t``; a float for a float."""
        if isinstance(t, Tensor):
            return torch.exp(-self.kappa * t)
        return math.exp(-self.kappa * t)

    @overload
    def std(self, t: float) -> float: ...
    @overload
    def std(self, t: Tensor) -> Tensor: ...
    def std(self, t: Time) -> Time:
        """Return the standard deviation of ``x_t`` given ``x_0``; a float for a float."""
        kappa, sigma = self.kappa, self.diffusion
        if isinstance(t, Tensor):
            if kappa == 0:
                return sigma * torch.sqrt(t)
            return sigma * torch.sqrt(-torch.expm1(-2 * kappa * t) / (2 * kappa))
        if kappa == 0:
            return sigma * math.sqrt(t)
        return sigma * math.sqrt(-math.expm1(-2 * kappa * t) / (2 * kappa))

    def time_at(self, noise_level: Tensor) -> Tensor:
        r"""Return the time at which the noise over the signal, eq 140's ``sigma_t``, has a level.

        .. math:: \sigma_t = \sigma\sqrt{\frac{e^{2\kappa t} - 1}{2\kappa}}

        Args:
            noise_level: ``std(t) / mean_scale(t)``, any shape, ``>= 0``.

        Returns:
            Times of the same shape.

        Example:
            >>> import pushforward as pf, torch
            >>> process = pf.diffusion.OrnsteinUhlenbeck()
            >>> t = process.time_at(torch.tensor(0.5))
            >>> round(float(process.std(t) / process.mean_scale(t)), 6)
            0.5

        """
        if not isinstance(noise_level, Tensor):
            raise TypeError(
                f"noise_level: expected a torch.Tensor, got {type(noise_level).__name__}"
            )
        square = (noise_level / self.diffusion) ** 2
        square = torch.where(noise_level >= 0, square, torch.nan)
        if self.kappa == 0:
            return square
        return torch.log1p(2 * self.kappa * square) / (2 * self.kappa)

    def diffuse(
        self,
        x0: Tensor,
        t: Time,
        *,
        seed: int | torch.Generator | None = None,
        chain_offset: int = 0,
    ) -> Tensor:
        """Draw ``x_t`` given ``x_0``, exactly (eq 124), in one pass over memory.

        Args:
            x0: data, ``(n_chains, *event)``, float32 or float64.
            t: time ``>= 0``: a float, a 0-d tensor or shape ``(n_chains,)``.
            seed: see :func:`pushforward.random.resolve_seed`; :meth:`noise` with the same seed
                gives the normal numbers that were used, so they need not be stored.
            chain_offset: global index of the first chain.

        Returns:
            ``x_t``, like ``x0``; differentiable in ``x0``.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: a time is negative, or a shape is wrong.

        Example:
            >>> import pushforward as pf, torch
            >>> process, x0 = pf.diffusion.OrnsteinUhlenbeck(), torch.ones(2, 3)
            >>> x = process.diffuse(x0, 0.5, seed=0)
            >>> again = process.mean_scale(0.5) * x0 + process.std(0.5) * process.noise(x0, seed=0)
            >>> torch.allclose(x, again)
            True

        """
        if not torch.compiler.is_compiling():
            _ops.check_tensor(x0, "x0")
        seed = random.resolve_seed(seed)
        mean_scale, std = self.coefficients(x0, t)
        return _ops.diffuse(
            x0, mean_scale=mean_scale, std=std, seed=seed, chain_offset=chain_offset
        )

    def coefficients(self, x0: Tensor, t: Time) -> tuple[Time, Time]:
        """Return mean_scale and std at ``t`` as :func:`pushforward.ops.diffuse` takes them."""
        if isinstance(t, Tensor):
            if t.dtype.is_complex or t.layout != torch.strided or t.device != x0.device:
                raise TypeError(f"t: expected real dense times on {x0.device}, got {t.dtype}")
            if t.shape not in (torch.Size(()), x0.shape[:1]):
                raise ValueError(f"t: expected shape () or ({len(x0)},), got {tuple(t.shape)}")
            if not torch.compiler.is_compiling() and not bool((t >= 0).all()):
                raise ValueError("t: expected times >= 0, got a negative or nan one")
            exact = t.detach().double()
            return self.mean_scale(exact).to(x0), self.std(exact).to(x0)
        t = number(t, "t")
        if t < 0:
            raise ValueError(f"t: expected a finite time >= 0, got {t}")
        return self.mean_scale(t), self.std(t)

    def noise(self, like: Tensor, *, seed: int, chain_offset: int = 0) -> Tensor:
        """Return the standard normal numbers that :meth:`diffuse` used for ``x0 = like``.

        Args:
            like: a tensor of the shape and type of ``x0``.
            seed: the seed given to :meth:`diffuse`.
            chain_offset: likewise.

        Returns:
            A tensor like ``like``.

        """
        if not isinstance(like, Tensor) or like.ndim == 0:
            raise TypeError("like: expected a tensor of shape (n_chains, *event)")
        dim = like[:1].numel() if len(like) else 0
        flat = random.normal(
            len(like),
            dim,
            seed=seed,
            purpose="forward",
            chain_offset=chain_offset,
            dtype=like.dtype,
        )
        return flat.reshape(like.shape)
