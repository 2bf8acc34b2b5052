# SPDX-License-Identifier: Apache-2.0
"""Laws over constrained parameters, as targets on all of R^dim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

from pushforward import _ops
from pushforward.targets import Target, as_target

__all__ = ["Constrained"]


@dataclass(frozen=True, eq=False)
class _Part:
    """One parameter: its shape, the shape and place of its coordinates, and the map between."""

    name: str
    constraint: Constraint
    transform: Transform
    shape: tuple[int, ...] | None
    inner: tuple[int, ...] | None
    place: slice

    def map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and log-Jacobian ``(n_chains,)`` for coordinates ``(n_chains, ...)``."""
        if self.inner is not None:
            u = u[:, self.place].reshape(len(u), *self.inner)
        value = self.transform(u)
        if self.shape is not None and value.shape[1:] != self.shape:
            raise ValueError(
                f"{self.name}: expected its bijection to give shape {self.shape}, got "
                f"{tuple(value.shape[1:])}"
            )
        # torch cannot sum the log-Jacobian of nothing; u has the same zeros, and their graph
        log_det = self.transform.log_abs_det_jacobian(u, value) if u.numel() else u
        return value, log_det.flatten(1).sum(1) if log_det.ndim > 1 else log_det

    def inverse(self, value: Any) -> Tensor:
        """Return the coordinates ``(n_chains, ...)`` of checked values."""
        _ops.check_tensor(value, self.name)
        if value.ndim == 0 or (self.shape is not None and value.shape[1:] != self.shape):
            wanted = "*event" if self.shape is None else ", ".join(map(str, self.shape))
            raise ValueError(
                f"{self.name}: expected shape (n_chains, {wanted}), got {tuple(value.shape)}"
            )
        if not bool(self.constraint.check(value).all()):
            raise ValueError(f"{self.name}: expected values in {self.constraint}, got others")
        u = self.transform.inv(value)
        if not bool(u.isfinite().all()):
            real = self.constraint is constraints.real
            inside = "the range of its bijection" if real else self.constraint
            raise ValueError(
                f"{self.name}: expected values inside {inside}, got its edge or others"
            )
        return u if self.inner is None else u.reshape(len(u), math.prod(self.inner))


class Constrained:
    r"""A log-density over constrained parameters, as a target on unconstrained vectors.

    .. math:: \log p(u) = \log\pi(T(u)) + \log|\det \partial T / \partial u|

    ``T`` is ``torch.distributions.biject_to(constraint)``, or a bijection that is given. Where it
    changes the dimension, as for the simplex, the determinant is that of the coordinates that are
    free: all but the last entry of a simplex, the part below the diagonal of a Cholesky factor of a
    correlation.

    Args:
        log_density: a callable from constrained values to ``(n_chains,)``, or another target
            (see :func:`pushforward.targets.as_target`). It is given a tensor
            ``(n_chains, *shape)``, or a dict of such.
        constraint: a constraint of ``torch.distributions.constraints`` for the whole event, or a
            dict from names to ``(shape, constraint)``; a bare constraint there is one number. In
            the place of a constraint there may be a bijective ``Transform`` of
            ``torch.distributions`` from all real numbers, with a log-Jacobian.
        shape: shape of the whole event's values, beside a single constraint; without it any shape
            is taken and ``dim`` is not known.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: there is no bijection to a constraint, or none to values of that shape, or a
            transform is no bijection from all real numbers.

    What a run says of chains (``mean``, ``rhat``, ``draws`` ...) is of the coordinates u; see
    :meth:`constrain`.

    Reference: B. Carpenter et al. (2017), Stan: a probabilistic programming language, J. Stat.
    Softw. 76.

    Example:
        >>> import pushforward as pf, torch
        >>> from pushforward.constrained import Constrained
        >>> from torch.distributions import Gamma, constraints
        >>> law = Constrained(
        ...     lambda v: Gamma(2.0, 1.0).log_prob(v["rate"]) + v["p"].log().sum(1),
        ...     {"rate": ((), constraints.positive), "p": ((3,), constraints.simplex)},
        ... )
        >>> chains = pf.sample(law, pf.Langevin(0.01), torch.zeros(5, law.dim), n_steps=9, seed=0)
        >>> law.constrain(chains.x)["p"].shape
        torch.Size([5, 3])

    """

    def __init__(
        self,
        log_density: Any,
        constraint: Constraint | Transform | Mapping[str, Any],
        shape: Sequence[int] | None = None,
    ) -> None:
        self._law = _law(log_density)
        self._single = not isinstance(constraint, Mapping)
        if isinstance(constraint, Mapping):
            if shape is not None:
                raise TypeError("shape: expected none beside a dict of constraints, got one")
            self._parts = _parts(constraint)
        else:
            self._parts = (_part("values", constraint, shape, 0),)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise AttributeError("Constrained is immutable")
        super().__setattr__(name, value)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in the order of their coordinates; () for a single one."""
        return () if self._single else tuple(part.name for part in self._parts)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the values, by name; empty for a single one."""
        return {} if self._single else {p.name: p.shape or () for p in self._parts}

    @property
    def dim(self) -> int:
        """The number of unconstrained coordinates.

        Raises:
            ValueError: a single constraint was given without a shape.

        """
        last = self._parts[-1] if self._parts else None
        if last is not None and last.inner is None:
            raise ValueError("shape: expected one, to know dim, got None")
        return 0 if last is None else last.place.stop

    def log_density(self, u: Tensor) -> Tensor:
        """Return the log-density of the coordinates, the log-Jacobian included.

        Args:
            u: ``(n_chains, dim)``.

        Returns:
            Shape ``(n_chains,)``.

        Raises:
            TypeError: ``u`` or what the law returns is no floating point tensor.
            ValueError: it has another shape.

        """
        values, log_det = self._map(u)
        found = self._law.log_density(values)
        if not isinstance(found, Tensor):
            raise TypeError(f"log_density: expected it to return a tensor, got {type(found)}")
        if found.shape != u.shape[:1]:
            raise ValueError(
                f"log_density: expected it to return shape {tuple(u.shape[:1])}, got "
                f"{tuple(found.shape)}"
            )
        return found + log_det

    def constrain(self, u: Tensor) -> Any:
        """Return the values for coordinates ``(n_chains, dim)``: a tensor or a dict of tensors.

        Raises:
            TypeError: ``u`` is no floating point tensor.
            ValueError: it has another shape.

        """
        return self._map(u)[0]

    def unconstrain(self, values: Any) -> Tensor:
        """Return the coordinates of values, to start from.

        Args:
            values: a tensor ``(n_chains, *shape)``, or a dict of such.

        Returns:
            Shape ``(n_chains, dim)``.

        Raises:
            TypeError: ``values`` has the wrong type.
            ValueError: a name or a shape is wrong, or a value is not inside its constraint.

        """
        if self._single:
            return self._parts[0].inverse(values)
        if not isinstance(values, Mapping):
            raise TypeError(f"values: expected a dict, got {type(values).__name__}")
        if set(values) != set(self.names):
            raise ValueError(f"values: expected {list(self.names)}, got {list(values)}")
        inner = [part.inverse(values[part.name]) for part in self._parts]
        if len({len(u) for u in inner}) != 1:
            raise ValueError(
                "values: expected one number of chains, got "
                + ", ".join(
                    f"{len(u)} of {name}" for name, u in zip(self.names, inner, strict=True)
                )
            )
        return torch.cat(inner, 1)

    def _map(self, u: Any) -> tuple[Any, Tensor]:
        _ops.check_tensor(u, "u")
        if self._parts[0].inner is None:
            if u.ndim == 0:
                raise ValueError("u: expected shape (n_chains, *event), got a 0-d tensor")
        elif u.ndim != 2 or u.shape[1] != self.dim:
            raise ValueError(f"u: expected shape (n_chains, {self.dim}), got {tuple(u.shape)}")
        mapped = {part.name: part.map(u) for part in self._parts}
        log_det = torch.stack([det for _, det in mapped.values()]).sum(0)
        if self._single:
            return mapped[self._parts[0].name][0], log_det
        return {name: value for name, (value, _) in mapped.items()}, log_det

    def __repr__(self) -> str:
        inside = ", ".join(f"{part.name}: {part.constraint}" for part in self._parts)
        return f"Constrained({inside})"


def _law(log_density: Any) -> Target:
    try:
        return as_target(log_density)
    except TypeError as error:
        raise TypeError(str(error).replace("target: ", "log_density: ", 1)) from None


def _parts(constraints: Mapping[str, Any]) -> tuple[_Part, ...]:
    if not constraints:
        raise ValueError("constraint: expected at least one parameter, got an empty dict")
    parts: list[_Part] = []
    for name, given in constraints.items():
        if not isinstance(name, str):
            raise TypeError(f"constraint: expected names, got {name!r}")
        if isinstance(given, tuple) and len(given) == 2:
            shape, constraint = given
        else:
            shape, constraint = (), given
        parts.append(_part(name, constraint, shape, parts[-1].place.stop if parts else 0))
    return tuple(parts)


def _part(name: str, constraint: Any, shape: Any, start: int) -> _Part:
    transform = _bijection(name, constraint)
    constraint = transform.codomain if isinstance(constraint, Transform) else constraint
    if shape is None:
        return _Part(name, constraint, transform, None, None, slice(start, None))
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise TypeError(f"{name}: expected a shape, got {type(shape).__name__}")
    shape = tuple(_ops.count(n, name) for n in shape)
    try:
        inner = tuple(transform.inverse_shape(shape))
        fits = tuple(transform.forward_shape(inner)) == shape and min(inner, default=0) >= 0
        fits = fits and len(shape) >= transform.codomain.event_dim
    except (ValueError, IndexError):
        fits = False
    if not fits:
        raise ValueError(f"{name}: expected a shape that {constraint} can have, got {shape}")
    stop = start + math.prod(inner)
    _check_jacobian(name, transform, inner)
    return _Part(name, constraint, transform, shape, inner, slice(start, stop))


def _bijection(name: str, constraint: Any) -> Transform:
    """Return the bijection from all real numbers to a constraint, or the one that is given."""
    if isinstance(constraint, Transform):
        domain = getattr(constraint, "domain", None)
        while isinstance(domain, constraints.independent):
            domain = domain.base_constraint
        if not constraint.bijective or domain is not constraints.real:
            raise ValueError(
                f"{name}: expected a bijective transform of all real numbers, got {constraint}"
            )
        return constraint
    if not isinstance(constraint, Constraint):
        raise TypeError(
            f"{name}: expected a constraint or a transform of torch.distributions, got "
            f"{type(constraint).__name__}"
        )
    try:
        transform = biject_to(constraint)
    except NotImplementedError:
        transform = None
    if transform is None or not transform.bijective:
        raise ValueError(f"{name}: expected a constraint with a bijection, got {constraint}")
    return transform


def _check_jacobian(name: str, transform: Transform, inner: tuple[int, ...]) -> None:
    """Raise ValueError unless torch knows the log-Jacobian of a transform."""
    u = torch.zeros((1, *inner))
    if u.numel() == 0:
        return
    try:
        transform.log_abs_det_jacobian(u, transform(u))
    except NotImplementedError:  # a RuntimeError, too
        raise ValueError(
            f"{name}: expected a bijection whose log-Jacobian torch knows, got {transform}"
        ) from None
    except RuntimeError:
        return  # its parameters are on another device, which the first evaluation names
