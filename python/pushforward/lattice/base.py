# SPDX-License-Identifier: Apache-2.0
"""What the laws on lattices share: shapes, parameters of every lattice, sums over neighbours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pushforward import _ops
from pushforward.targets.base import finite


def lattice_shape(shape: Any, dims: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``shape`` as a tuple of positive ints with one of ``dims`` many entries."""
    if isinstance(shape, str) or not isinstance(shape, Iterable):
        raise TypeError(f"shape: expected a sequence of ints, got {type(shape).__name__}")
    sizes = tuple(_ops.count(n, "shape", 1) for n in shape)
    if len(sizes) not in dims:
        raise ValueError(f"shape: expected {dims[0]} to {dims[-1]} dimensions, got {sizes}")
    return sizes


def values(value: Any, name: str) -> Tensor:
    """Return ``value`` as finite float64 numbers, one or one a lattice."""
    if isinstance(value, Tensor) and (value.is_complex() or value.dtype == torch.bool):
        raise TypeError(f"{name}: expected real numbers, got {value.dtype}")
    return finite(value, name, (0, 1))


class LatticeLaw(ABC):
    """A law on periodic lattices of one shape whose parameters may differ between lattices."""

    shape: tuple[int, ...]
    parameters: dict[str, Tensor]

    def __init__(self, shape: tuple[int, ...], **parameters: Any) -> None:
        given = {name: values(value, name) for name, value in parameters.items()}
        counts = {len(v) for v in given.values() if v.ndim == 1}
        if len(counts) > 1:
            sizes = ", ".join(f"{name} {tuple(v.shape)}" for name, v in given.items())
            raise ValueError(f"parameters: expected one number of lattices in all, got {sizes}")
        self.__dict__.update(
            shape=shape,
            parameters=given,
            n_lattices=counts.pop() if counts else None,
            _cache={},
            **given,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={v.item():g}" if v.ndim == 0 else f"{name}=<{len(v)} values>"
            for name, v in self.parameters.items()
        )
        return f"{type(self).__name__}({self.shape}, {shown})"

    @property
    def n_sites(self) -> int:
        """Number of sites V of a lattice."""
        return torch.Size(self.shape).numel()

    def placed(self, x: Tensor) -> dict[str, Tensor]:
        """Return the parameters on the device of ``x``, float64, after checking its shape."""
        self.check_shape(x)
        if x.device not in self.__dict__["_cache"]:
            there = {k: v.to(x.device).contiguous() for k, v in self.parameters.items()}
            self.__dict__["_cache"][x.device] = there
        return self.__dict__["_cache"][x.device]

    def check_shape(self, x: Any) -> None:
        """Raise unless ``x`` is a tensor of shape ``(n_lattices, *shape)``."""
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}")
        n = self.__dict__["n_lattices"]
        if x.ndim != len(self.shape) + 1 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x: expected shape (n_lattices, *{self.shape}), got {tuple(x.shape)}")
        if n is not None and len(x) != n:
            raise ValueError(f"x: expected {n} lattices, one for each parameter, got {len(x)}")

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """Return the logarithm of the density up to a constant, ``(n_lattices,)``."""

    def check_even(self) -> None:
        """Raise unless the lattice has a checkerboard: only even sizes close on themselves."""
        if any(n % 2 for n in self.shape):
            raise ValueError(
                f"target: expected even sizes for a checkerboard, got shape {self.shape}; clusters "
                "and the moves of whole fields work for any size"
            )

    def column(self, name: str, x: Tensor) -> Tensor:
        """Return a parameter in the type of ``x``, shaped to go with its lattices."""
        dtype = x.dtype if x.is_floating_point() else torch.float64
        value = self.placed(x)[name].to(dtype)
        return value.reshape(-1, *[1] * len(self.shape))

    def __getstate__(self) -> dict[str, Any]:
        """Leave what was put on devices out of copies."""
        return {**self.__dict__, "_cache": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a copy, past the immutability."""
        self.__dict__.update(state)


def forward_sum(x: Tensor, n_dims: int) -> Tensor:
    """Return the sum of each site's neighbours one step forward, over the last ``n_dims`` dims."""
    total = torch.roll(x, -1, -1)
    for axis in range(1, n_dims):
        total = total + torch.roll(x, -1, -1 - axis)
    return total


def neighbour_sum(x: Tensor, n_dims: int) -> Tensor:
    """Return the sum of each site's ``2 n_dims`` neighbours, along the last dimension first."""
    total = torch.roll(x, 1, -1) + torch.roll(x, -1, -1)
    for axis in range(1, n_dims):
        total = total + (torch.roll(x, 1, -1 - axis) + torch.roll(x, -1, -1 - axis))
    return total
