# SPDX-License-Identifier: Apache-2.0
"""States that are dicts of tensors: their flat form; targets and proposals that see the dict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pushforward import _ops

__all__ = ["NamedProposal", "NamedTarget", "Parameters"]

_SAID = 8  # parameters that an error names


@dataclass(frozen=True)
class Parameters:
    """Names and shapes of parameters, in the order of their coordinates in a flat state.

    Attributes:
        shapes: of each parameter, without chains.

    Example:
        >>> import torch
        >>> from pushforward.parameters import Parameters
        >>> parameters = Parameters({"mu": (), "theta": (2, 2)})
        >>> parameters.dim
        5
        >>> parameters.unflatten(torch.arange(5.0)[None])["theta"]
        tensor([[[1., 2.],
                 [3., 4.]]])

    """

    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, x: Mapping[str, Tensor]) -> Parameters:
        """Return the parameters of a start, whose tensors must go together.

        Args:
            x: tensors ``(n_chains, *shape)`` by name.

        Raises:
            TypeError: a name is no str, or a value no tensor, or not of the one type.
            ValueError: there is no tensor, one has no chains' dimension, or they differ in device
                or number of chains.

        """
        if not x:
            raise ValueError("x: expected at least one tensor, got an empty dict")
        for name, value in x.items():
            if not isinstance(name, str):
                raise TypeError(f"x: expected names, got {name!r}")
            _ops.check_tensor(value, f"x[{name!r}]")
            if value.ndim == 0:
                raise ValueError(
                    f"x[{name!r}]: expected shape (n_chains, *shape), got a 0-d tensor"
                )
        _check_one("dtype", {name: value.dtype for name, value in x.items()}, TypeError)
        _check_one("device", {name: value.device for name, value in x.items()})
        _check_one("number of chains", {name: len(value) for name, value in x.items()})
        return cls({name: tuple(value.shape[1:]) for name, value in x.items()})

    @property
    def dim(self) -> int:
        """The number of coordinates."""
        return sum(self._sizes)

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(math.prod(shape) for shape in self.shapes.values())

    def flatten(self, values: Any, n_chains: int, name: str) -> Tensor:
        """Return a new tensor ``(n_chains, dim)`` without history.

        Args:
            values: tensors ``(n_chains, *shape)`` by name, in any order.
            n_chains: how many chains there must be.
            name: of the values, for an error.

        Raises:
            ValueError: names or shapes are others.

        """
        found = _shapes(values)
        if found != {key: (n_chains, *shape) for key, shape in self.shapes.items()}:
            got = type(values).__name__ if found is None else _listed(found)
            raise ValueError(
                f"{name}: expected a dict with shapes {self.said(n_chains)}, got {got}"
            )
        return torch.cat([_ops.rows(values[key].detach()) for key in self.shapes], 1)

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views ``(..., *shape)`` of a tensor ``(..., dim)``, by name."""
        pieces = flat.split(self._sizes, -1)
        lead = flat.shape[:-1]
        return {
            name: piece.view((*lead, *shape))
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def said(self, n_chains: int) -> str:
        """Return the shapes that a state of so many chains has, for people to read."""
        return _listed({name: (n_chains, *shape) for name, shape in self.shapes.items()})


@dataclass(frozen=True)
class NamedTarget:
    """A law of dicts of tensors as one of flat states ``(n_chains, dim)``.

    Attributes:
        law: an object with ``log_density``, and ``conditional`` if a kernel asks for it, that is
            given a dict of views.
        parameters: their names and shapes.

    """

    law: Any
    parameters: Parameters

    def log_density(self, x: Tensor) -> Tensor:
        """Return what the law says of ``x`` ``(n_chains, dim)``, shape ``(n_chains,)``."""
        return self.law.log_density(self.parameters.unflatten(x))

    @property
    def conditional(self) -> Callable[[int, Tensor], Any] | None:
        """The law of a coordinate given the others, or None if there is none."""
        given = getattr(self.law, "conditional", None)
        if not callable(given):
            return None
        return lambda i, x: given(i, self.parameters.unflatten(x))


@dataclass(frozen=True)
class NamedProposal:
    """A proposal of dicts of tensors as one of flat states.

    Attributes:
        law: the proposal, whose methods are given and return dicts.
        parameters: their names and shapes.

    """

    law: Any
    parameters: Parameters

    def sample(self, x: Tensor | int) -> Tensor:
        """Return draws ``(n_chains, dim)``, from the state ``x`` or for a number of chains.

        Raises:
            ValueError: the draws have other names or shapes.

        """
        if isinstance(x, int):
            return self.parameters.flatten(self.law.sample(x), x, "proposal")
        drawn = self.law.sample(self.parameters.unflatten(x))
        return self.parameters.flatten(drawn, len(x), "proposal")

    def log_prob(self, *states: Tensor) -> Any:
        """Return what the proposal says of flat states."""
        return self.law.log_prob(*map(self.parameters.unflatten, states))


def _check_one(what: str, of: dict[str, Any], kind: type[Exception] = ValueError) -> None:
    """Raise unless all parameters have the same of something."""
    first, common = next(iter(of.items()))
    for name, value in of.items():
        if value != common:
            raise kind(f"x: expected one {what}, got {common} of {first} and {value} of {name}")


def _shapes(values: Any) -> dict[str, Any] | None:
    """Return the shapes of tensors by name, or None for what holds anything else."""
    if not isinstance(values, Mapping):
        return None
    return {
        name: tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        for name, value in values.items()
    }


def _listed(shapes: dict[str, Any]) -> str:
    said = [f"{name} {shape}" for name, shape in shapes.items()]
    more = [f"and {len(said) - _SAID} more"] if len(said) > _SAID else []
    return ", ".join(said[:_SAID] + more)
