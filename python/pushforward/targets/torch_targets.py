# SPDX-License-Identifier: Apache-2.0
"""Anything a torch user wrote, as a target: the score comes from autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from pushforward.parameters import NamedTarget

_NORMAL = torch.finfo(torch.float32)


@runtime_checkable
class Target(Protocol):
    """What a sampler needs of a law: its log-density up to a constant."""

    def log_density(self, x: Tensor) -> Tensor:
        """Return ``log pi(x)`` ``(n_chains,)`` for ``x`` ``(n_chains, *event)``."""
        ...


@dataclass(frozen=True)
class Energy:
    """The law ``exp(-beta U)`` of a Gibbs energy (eq 22); a bare callable would be a log-density.

    Args:
        fn: ``U``, from ``(n_chains, *event)``, or a dict of such, to ``(n_chains,)``; a function
            or an ``nn.Module``.
        beta: inverse temperature, a positive number: the law that every kernel then has, those
            without a ``beta`` of their own too. A kernel's own multiplies it.

    Raises:
        TypeError: ``fn`` is not callable, or ``beta`` is no number.
        ValueError: ``beta`` is not positive, or out of the range of float32.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.Energy(lambda x: 0.5 * (x**2).sum(1))
        >>> law.log_density(torch.ones(1, 2))
        tensor([-1.])

    """

    fn: Callable[[Any], Tensor]
    beta: float = 1.0

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"fn: expected a callable U(x), got {type(self.fn).__name__}")
        if isinstance(self.beta, bool) or not isinstance(self.beta, (int, float)):
            raise TypeError(f"beta: expected a number, got {type(self.beta).__name__}")
        if not _NORMAL.tiny <= self.beta <= _NORMAL.max:
            raise ValueError(
                f"beta: expected a positive number that float32 can hold, got {self.beta}"
            )

    def log_density(self, x: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Return ``-beta U(x)``, shape ``(n_chains,)``."""
        energy = self.fn(x)
        return -energy if self.beta == 1 else -self.beta * energy


@dataclass(frozen=True)
class _LogDensity:
    fn: Callable[[Any], Tensor]

    def log_density(self, x: Any) -> Tensor:
        return self.fn(x)


def as_target(target: Any) -> Target:
    """Return ``target`` as an object with ``log_density``.

    Args:
        target: a native target, an :class:`Energy`, any object with ``log_density``, a
            ``torch.distributions.Distribution``, or a callable (``nn.Module`` included) that
            returns the log-density; of a dict of tensors, where that is what is sampled.

    Raises:
        TypeError: it is none of these.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.targets.as_target(torch.distributions.Normal(0.0, 1.0))
        >>> law.log_density(torch.zeros(2)).shape
        torch.Size([2])

    """
    if isinstance(target, torch.distributions.Distribution):
        return _LogDensity(target.log_prob)
    if isinstance(target, Target) and not isinstance(target, type):
        return target
    if callable(target) and not isinstance(target, type):
        return _LogDensity(target)
    raise TypeError(
        "target: expected a target, a torch.distributions.Distribution or a callable returning "
        f"the log-density, got {type(target).__name__}"
    )


class _Raised(Exception):
    """The target raised; its own exception is the cause."""


OF_A_ROW = (LinAlgError, ValueError)
"""What one bad point makes a whole target raise."""


def rows_that_fail(n: int, works: Callable[[Tensor], bool], device: torch.device) -> Tensor:
    """Return which of ``n`` rows fail, ``(n,)``, when all together do.

    Groups that fail are halved, so that ``k`` rows are found in about ``2 k log2(n)`` calls.

    Args:
        n: number of rows.
        works: is given the indices of a group of rows and returns whether none of them fails.
        device: of the indices.

    """
    fails = torch.zeros(n, dtype=torch.bool, device=device)
    failing = [torch.arange(n, device=device)]
    while failing:
        group = failing.pop()
        if len(group) <= 1:
            fails[group] = True
        else:
            failing += [half for half in group.tensor_split(2) if not works(half)]
    return fails


def evaluate(
    target: Target, x: Tensor, *, score: bool = True, good: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the log-density and the score of a target at ``x``, detached, and which rows raised.

    Where the whole raises ``LinAlgError`` or a distribution's ``ValueError``, the rows that do are
    found by halving. The target is given all rows each time, since it may hold data of each; those
    that are not tried are ``good`` ones. Rows that raise have log-density -infinity and a score of
    NaN.

    Args:
        target: the law.
        x: points ``(n_chains, *event)``.
        score: whether the score is wanted; if not, the target needs no gradient, and the second
            result is the first again.
        good: points like ``x`` at which the target does not raise; without them, a row that is
            tried stands in for the others.

    Returns:
        The log-density ``(n_chains,)``, the score like ``x``, and a mask ``(n_chains,)`` of the
        rows that raised, or None if none did.

    Raises:
        ValueError: the target raised something else, returned no tensor, the wrong shape, or
            something that does not depend on ``x`` differentiably.

    """
    try:
        return *_evaluate(target, x, score), None
    except _Raised as raised:
        if not isinstance(raised.__cause__, OF_A_ROW):
            raise ValueError(str(raised)) from raised.__cause__
    value = torch.full(x.shape[:1], -torch.inf, dtype=x.dtype, device=x.device)
    gradient = torch.full_like(x, torch.nan)

    def works(rows: Tensor) -> bool:
        others = x[rows[:1]].expand_as(x) if good is None else good
        try:
            values, scores = _evaluate(target, others.index_copy(0, rows, x[rows]), score)
        except _Raised as raised:
            if not isinstance(raised.__cause__, OF_A_ROW):
                raise ValueError(str(raised)) from raised.__cause__
            return False
        value[rows], gradient[rows] = values[rows], scores[rows] if score else 0.0
        return True

    has_raised = rows_that_fail(len(x), works, x.device)
    return value, gradient if score else value, has_raised


def _evaluate(target: Target, x: Tensor, score: bool) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.set_grad_enabled(score):
        at = (x.clone() if x.is_inference() else x.detach()).requires_grad_(score)
        version = at._version
        try:
            value = target.log_density(at)
        except Exception as error:
            raise _Raised(
                f"target: expected a log-density of x with {_shape(target, x)}, but it raised "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(value, Tensor):
            raise TypeError(f"target: expected it to return a tensor, got {type(value).__name__}")
        if value.is_complex():
            raise TypeError(f"target: expected a real log-density, got {value.dtype}")
        if at._version != version:
            raise ValueError("target: expected it to leave x as it is, but it writes to x in place")
        if value.shape != x.shape[:1]:
            raise ValueError(
                f"target: expected a log-density of shape {tuple(x.shape[:1])} for x of "
                f"{_shape(target, x)}, got {tuple(value.shape)}"
            )
        if not score:
            value = value.detach().to(x.dtype)
            return value, value
        if not value.requires_grad:
            raise ValueError(
                "target: expected a log-density that depends on x differentiably, got one "
                "without gradient"
            )
        try:
            (gradient,) = torch.autograd.grad(value.sum(), at)
        except LinAlgError as error:
            raise _Raised(f"target: its gradient raised {error}") from error
        except RuntimeError as error:
            raise ValueError(f"target: its gradient raised {error}") from error
    return value.detach().to(x.dtype), gradient.detach().to(x.dtype)


def _shape(target: Target, x: Tensor) -> str:
    """Return what an error says of the shape of ``x``: as the target is given it."""
    if isinstance(target, NamedTarget):
        return f"shapes {target.parameters.said(len(x))}"
    return f"shape {tuple(x.shape)}"
