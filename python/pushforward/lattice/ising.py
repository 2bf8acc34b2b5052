# SPDX-License-Identifier: Apache-2.0
"""The Ising model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pushforward import _ops
from pushforward.lattice.base import LatticeLaw, forward_sum, lattice_shape


def check_spins(x: Tensor, name: str) -> None:
    """Raise unless ``x`` is int8 or floating and holds nothing but +1 and -1."""
    _check_type(x, name)
    x = x.detach()
    size = x.abs()
    if x.numel() > 0 and torch.stack(torch.aminmax(size)).tolist() != [1, 1]:  # also if NaN
        raise ValueError(f"{name}: expected spins +1 and -1, got {x[size != 1][0].item()}")


def _check_type(x: Tensor, name: str) -> None:
    if not (x.is_floating_point() or x.dtype == torch.int8):
        raise TypeError(f"{name}: expected int8 or a floating type, got {x.dtype}")


def _can_be_read(x: Tensor) -> bool:
    """Whether the numbers are there to be looked at: nothing traces, transforms or captures."""
    return _ops.is_plain(x.detach()) and not (
        x.is_cuda and torch.cuda.is_current_stream_capturing()
    )


class Ising(LatticeLaw):
    r"""The Ising model on a periodic square or cubic lattice, with coupling 1.

    .. math:: p(s) \propto e^{-E(s)/T}, \qquad
        E(s) = -\sum_{\langle ij \rangle} s_i s_j - h \sum_i s_i, \qquad s_i = \pm 1

    Every site has a bond to the next one in each direction; along a size of 2 two sites share two
    bonds. A state is ``(n_lattices, *shape)`` of +1 and -1, int8 or floating.

    Args:
        shape: two or three sizes.
        temperature: T > 0, a number or one value a lattice, ``(n_lattices,)``.
        field: h, likewise.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a size or temperature is not positive, a value not finite, or the numbers of
            lattices differ.

    Reference: L. Onsager (1944), Crystal statistics I, Phys. Rev. 65; B. Kaufman (1949), Crystal
    statistics II, Phys. Rev. 76.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.lattice.Ising((4, 4), temperature=2.0)
        >>> law.energy(torch.ones(1, 4, 4))
        tensor([-32.])

    """

    temperature: Tensor
    field: Tensor
    in_field: bool
    """Whether the field of some lattice is not zero."""

    def __init__(self, shape: Any, *, temperature: Any, field: Any = 0.0) -> None:
        super().__init__(lattice_shape(shape, (2, 3)), temperature=temperature, field=field)
        if not bool((self.temperature > 0).all()):
            raise ValueError(f"temperature: expected positive values, got {temperature}")
        self.__dict__["in_field"] = bool((self.field != 0).any())

    def energy(self, x: Tensor) -> Tensor:
        """Return E of each lattice, ``(n_lattices,)``.

        In the type of ``x`` if that is float32 or float64, else in float64. Under
        ``torch.compile``, ``torch.func`` and a CUDA graph's capture values are not looked at.

        Raises:
            TypeError: ``x`` is no tensor, or neither int8 nor floating.
            ValueError: its shape is wrong, or a value is not +1 or -1.

        """
        self.check_shape(x)
        if _can_be_read(x):
            check_spins(x, "x")
        else:
            _check_type(x, "x")
        return self.energy_of_spins(x)

    def energy_of_spins(self, x: Tensor) -> Tensor:
        """Return :meth:`energy` of what is known to be spins, without a look at the values."""
        spins = x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float64)
        bonds = (spins * forward_sum(spins, len(self.shape))).flatten(1).sum(1)
        field = self.placed(x)["field"].to(spins.dtype)
        return -bonds - field * spins.flatten(1).sum(1)

    def log_density(self, x: Tensor) -> Tensor:
        """Return ``-E / T``, up to a constant, ``(n_lattices,)``.

        Raises:
            TypeError: as of :meth:`energy`.
            ValueError: likewise.

        """
        return self._over_temperature(x, self.energy(x))

    def log_density_of_spins(self, x: Tensor) -> Tensor:
        """Return :meth:`log_density` of what is known to be spins, as :meth:`energy_of_spins`."""
        return self._over_temperature(x, self.energy_of_spins(x))

    def _over_temperature(self, x: Tensor, energy: Tensor) -> Tensor:
        return -energy / self.placed(x)["temperature"].to(energy.dtype)

    def check_state(self, x: Tensor) -> None:
        """Raise unless ``x`` is an int8 or floating state of +1 and -1 of this shape."""
        self.check_shape(x)
        check_spins(x, "x")
        if not x.is_contiguous():
            raise ValueError("x: expected a contiguous tensor")
