# SPDX-License-Identifier: Apache-2.0
"""The phi^4 field."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pushforward import _ops
from pushforward._ops.lattice import Phi4Parameters, phi4_log_density, phi4_score
from pushforward.lattice.base import LatticeLaw, lattice_shape, neighbour_sum, values


class Phi4(LatticeLaw):
    r"""The phi^4 field on a periodic lattice of one to four dimensions, in the hopping form.

    .. math:: p(\phi) \propto e^{-S(\phi)}, \qquad
        S = \sum_s \Big[ (1 - 2\lambda) \phi_s^2 + \lambda \phi_s^4
        - 2 \kappa \sum_{\mu=1}^{d} \phi_s \phi_{s + \hat\mu} - h \phi_s \Big]

    lambda -> infinity is the Ising model at inverse temperature 2 kappa, lambda = 0 a Gaussian
    field. A state is ``(n_lattices, *shape)``, float32 or float64. :meth:`from_mass` takes the
    couplings of the form with a mass.

    Args:
        shape: one to four sizes.
        kappa: hopping parameter, a number or one value a lattice, ``(n_lattices,)``.
        lam: lambda >= 0, likewise; with 0, ``2 d |kappa| < 1``, or there is no law.
        field: h, likewise.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a size is not positive, a value not finite, the numbers of lattices differ, or
            the density has no finite integral.

    Reference: I. Montvay and G. Muenster (1994), Quantum fields on a lattice, section 2.1.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.lattice.Phi4((8, 8), kappa=0.2, lam=0.02)
        >>> x = torch.ones(3, 8, 8)
        >>> law.log_density(x)
        tensor([-11.5200, -11.5200, -11.5200])
        >>> law.score(x)[0, 0, 0]
        tensor(-0.4000)

    """

    kappa: Tensor
    lam: Tensor
    field: Tensor

    def __init__(self, shape: Any, *, kappa: Any, lam: Any, field: Any = 0.0) -> None:
        super().__init__(lattice_shape(shape, (1, 2, 3, 4)), kappa=kappa, lam=lam, field=field)
        free = (self.lam == 0) & (2 * len(self.shape) * self.kappa.abs() >= 1)
        if bool((self.lam < 0).any()) or bool(free.any()):
            raise ValueError(
                "lam: expected positive values, or 0 where 2 d |kappa| < 1, since the density has "
                f"no finite integral otherwise; got lam={lam}, kappa={kappa}"
            )

    @classmethod
    def from_mass(cls, shape: Any, *, m2: Any, lam: Any, field: Any = 0.0) -> Phi4:
        r"""Return the law of a field given by its mass.

        .. math:: S = \sum_s \Big[ \tfrac12 \sum_\mu (\varphi_{s + \hat\mu} - \varphi_s)^2
            + \tfrac12 m^2 \varphi_s^2 + g \varphi_s^4 - J \varphi_s \Big]

        The state of the law that is returned is ``phi = varphi / law.unit_of_mass_form()`` with
        ``varphi = sqrt(2 kappa) phi``; then ``1 - 2 lambda = kappa (2 d + m^2)``, ``lambda = 4
        kappa^2 g`` and ``h = sqrt(2 kappa) J``. Papers that write the action without the halves
        and with ``lambda phi^4`` have ``varphi = sqrt(2) phi`` and ``g = lambda / 4`` here.

        Args:
            shape: one to four sizes.
            m2: m^2, a number or one value a lattice; it may be negative where g > 0.
            lam: g >= 0, likewise.
            field: J, likewise.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: a value is not finite, g negative, or the density has no finite integral.

        Example:
            >>> import pushforward as pf
            >>> law = pf.lattice.Phi4.from_mass((8, 8), m2=-4.0, lam=2.0)
            >>> law.kappa, law.lam
            (tensor(0.2500, dtype=torch.float64), tensor(0.5000, dtype=torch.float64))

        """
        sizes = lattice_shape(shape, (1, 2, 3, 4))
        mass, g, source = values(m2, "m2"), values(lam, "lam"), values(field, "field")
        if bool((g < 0).any()):
            raise ValueError(f"lam: expected values >= 0, got {lam}")
        linear = 2 * len(sizes) + mass
        # 8 g kappa^2 + (2 d + m^2) kappa = 1; this form of the root does not cancel for g -> 0
        kappa = 2 / (linear + (linear * linear + 32 * g).sqrt())
        if not bool((kappa.isfinite() & (kappa > 0)).all()):
            raise ValueError(f"m2: expected m2 > -{2 * len(sizes)} where lam is 0, got {m2}")
        return cls(sizes, kappa=kappa, lam=4 * kappa**2 * g, field=(2 * kappa).sqrt() * source)

    def unit_of_mass_form(self) -> Tensor:
        """Return ``sqrt(2 kappa)``, by which a state is multiplied to have the mass form's field.

        Example:
            >>> import pushforward as pf
            >>> pf.lattice.Phi4((4, 4), kappa=0.125, lam=0.1).unit_of_mass_form()
            tensor(0.5000, dtype=torch.float64)

        """
        return (2 * self.kappa).sqrt()

    def log_density(self, x: Tensor) -> Tensor:
        """Return ``-S`` ``(n_lattices,)``, native, or in torch where a gradient is wanted.

        The native sum over a row is 32 strided chains and a binary tree in the type of ``x``, and
        the rows are added in order in float64.
        """
        if self._is_native(x):
            return phi4_log_density(x, self.native_parameters(x))
        return self.torch_log_density(x)

    def score(self, x: Tensor) -> Tensor:
        """Return the gradient of :meth:`log_density`, like ``x``."""
        if self._is_native(x):
            return phi4_score(x, self.native_parameters(x))
        return self.torch_score(x)

    def action(self, x: Tensor) -> Tensor:
        """Return S ``(n_lattices,)``."""
        return -self.log_density(x)

    def torch_log_density(self, x: Tensor) -> Tensor:
        """Return :meth:`log_density` in plain torch: differentiable, on any device."""
        kappa, lam, field = (self.column(name, x) for name in ("kappa", "lam", "field"))
        potential = x**2 * (lam * x**2 + (1 - 2 * lam))
        bonds = x * (kappa * neighbour_sum(x, len(self.shape)) + field)
        return (bonds - potential).flatten(1).sum(1)

    def torch_score(self, x: Tensor) -> Tensor:
        """Return :meth:`score` in plain torch."""
        kappa, lam, field = (self.column(name, x) for name in ("kappa", "lam", "field"))
        pull = 2 * kappa * neighbour_sum(x, len(self.shape)) + field
        return pull - x * (4 * lam * x**2 + 2 * (1 - 2 * lam))

    def native_parameters(self, x: Tensor) -> Phi4Parameters:
        """Return what the native ops of :mod:`pushforward._ops.lattice` take for ``x``."""
        placed = self.placed(x)
        return Phi4Parameters(placed["kappa"], placed["lam"], placed["field"])

    def check_state(self, x: Tensor) -> None:
        """Raise unless ``x`` is a contiguous float32 or float64 state of this shape."""
        self.check_shape(x)
        _ops.check_tensor(x, "x")
        if not x.is_contiguous():
            raise ValueError("x: expected a contiguous tensor")

    def _is_native(self, x: Tensor) -> bool:
        self.check_shape(x)
        known = x.device.type in _ops.DEVICES and x.dtype in (torch.float32, torch.float64)
        if torch.compiler.is_compiling():
            return known and not (x.requires_grad and torch.is_grad_enabled())
        return known and _ops.is_plain(x)
