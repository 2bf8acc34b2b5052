# SPDX-License-Identifier: Apache-2.0
"""Proposals of Metropolis-Hastings that are not symmetric."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pushforward import _ops, random
from pushforward._ops import column
from pushforward.mcmc.base import State, check_positive, held, normals, seeded
from pushforward.parameters import NamedProposal, NamedTarget
from pushforward.targets import NativeTarget
from pushforward.targets.base import number
from pushforward.targets.torch_targets import OF_A_ROW, rows_that_fail

_LOG_NORMAL, _AUTOREGRESSIVE = 1, 2  # ProposalKind in csrc/ops/ops.hpp
_OTHER_KERNEL = {
    False: "; Independence takes laws that do not look at the state",
    True: "; MetropolisHastings takes proposals that look at the state",
}


@dataclass(frozen=True, eq=False)
class LogNormal:
    r"""A multiplicative random walk, for positive states: ``y = x exp(scale * xi)``.

    Args:
        scale: standard deviation of ``log y``, a positive number.

    Raises:
        TypeError: ``scale`` is no number.
        ValueError: it is not positive and finite, or a state is not positive.

    Example:
        >>> import pushforward as pf
        >>> pf.mcmc.LogNormal(scale=0.5)
        LogNormal(scale=0.5)

    """

    scale: float

    def __post_init__(self) -> None:
        check_positive(self.scale, "scale")
        object.__setattr__(self, "scale", float(self.scale))

    def prepare(self, x: Tensor) -> LogNormal:
        """Return the proposal after checking that all states are positive."""
        if not bool((x > 0).all()):
            bad = _ops.rows(~(x > 0)).any(1).nonzero()[:, 0]
            raise ValueError(
                f"x: expected positive states for LogNormal, got others in {len(bad)} chains, the "
                f"first being {bad[:5].tolist()}"
            )
        return self

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the native run."""
        return {"proposal": _LOG_NORMAL, "step_size": self.scale}

    def propose(self, state: State, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """Return proposals and ``log q(x | y) - log q(y | x)``."""
        moved = self.scale * normals(state, step, random.PURPOSES["proposal"])
        return state.x * moved.exp(), _ops.rows(moved).sum(1)


@dataclass(frozen=True, eq=False)
class Autoregressive:
    r"""A step towards a center and fresh noise, reversible for ``N(center, scale**2)``.

    .. math:: y = c + \rho\,(x - c) + \sqrt{1-\rho^2}\;\sigma\,\xi

    For a target that has a density with respect to that Gaussian, the acceptance does not fall
    with the number of coordinates.

    Args:
        persistence: ``rho``, between -1 and 1.
        scale: ``sigma``, a positive number or a tensor ``(dim,)``.
        center: ``c``, a number or a tensor ``(dim,)``.

    Raises:
        TypeError: a parameter has the wrong type.
        ValueError: a parameter is out of range or has the wrong shape.

    Reference: S. L. Cotter et al. (2013), MCMC methods for functions, Statistical Science 28.

    Example:
        >>> import pushforward as pf
        >>> pf.mcmc.Autoregressive(persistence=0.9, scale=2.0)
        Autoregressive(persistence=0.9, scale=2.0, center=0.0)

    """

    persistence: float
    scale: Tensor | float = 1.0
    center: Tensor | float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.scale, Tensor) and self.scale.ndim > 1:
            raise ValueError(
                "scale: expected a number or a tensor of shape (dim,), got one of shape "
                f"{tuple(self.scale.shape)}"
            )
        check_positive(self.scale, "scale")
        persistence = number(self.persistence, "persistence")
        if not -1 < persistence < 1:
            raise ValueError(f"persistence: expected -1 < persistence < 1, got {persistence}")
        object.__setattr__(self, "center", _center(self.center))
        for name in ("scale", "center"):
            object.__setattr__(self, name, held(getattr(self, name)))

    def prepare(self, x: Tensor) -> Autoregressive:
        """Return the proposal with one scale and one center a coordinate, in the type of ``x``."""
        dim = math.prod(x.shape[1:])
        parts: dict[str, Any] = {}
        for name in ("scale", "center"):
            value = torch.as_tensor(getattr(self, name)).to(x)
            if value.ndim == 1 and len(value) != dim:
                raise ValueError(f"{name}: expected shape ({dim},), got {tuple(value.shape)}")
            parts[name] = value.expand(dim).contiguous()
        return replace(self, **parts)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the native run."""
        return {
            "proposal": _AUTOREGRESSIVE,
            "metric": self.scale,
            "center": self.center,
            "persistence": float(self.persistence),
        }

    def propose(self, state: State, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """Return proposals and ``log q(x | y) - log q(y | x)``."""
        x = _ops.rows(state.x)
        scale, center = torch.as_tensor(self.scale), torch.as_tensor(self.center)
        xi = _ops.rows(normals(state, step, random.PURPOSES["proposal"]))
        fresh = math.sqrt(1 - float(self.persistence) ** 2)
        y = center + self.persistence * (x - center) + fresh * scale * xi
        at_x, at_y = (((z - center) / scale).square().sum(1) for z in (x, y))
        return y.reshape(state.x.shape), 0.5 * (at_y - at_x)


def _center(value: Any) -> Tensor | float:
    """Return a center as it was given, a sequence as a tensor; raise unless it is finite."""
    try:
        center = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"center: expected a number or a tensor of shape (dim,), got {type(value).__name__}"
        ) from error
    if center.is_complex() or center.ndim > 1:
        raise ValueError(
            "center: expected a real number or tensor of shape (dim,), got "
            f"{center.dtype} of shape {tuple(center.shape)}"
        )
    if not bool(center.isfinite().all()):
        raise ValueError("center: expected finite values, got inf or nan")
    return value if isinstance(value, (int, float)) else center


@dataclass(frozen=True, eq=False)
class _FromTorch:
    """A proposal that the caller wrote; ``independent`` ones do not look at the state.

    It is given copies: one that writes into its arguments would move chains without a decision.
    Where the target is given dicts, so is the caller's own object; native laws and torch's
    distributions are laws of the flat state.
    """

    law: Any
    independent: bool

    def prepare(self, x: Tensor) -> _FromTorch:
        return self

    def propose(self, state: State, step: int | Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(step, Tensor):
            raise TypeError("cuda_graph: a torch proposal cannot be captured")
        of_tensors = (NativeTarget, torch.distributions.Distribution, NamedProposal)
        if isinstance(state.target, NamedTarget) and not isinstance(self.law, of_tensors):
            law = NamedProposal(self.law, state.target.parameters)
            return replace(self, law=law).propose(state, step)
        x = state.x
        y = self._draw(x, random.fold_in(state.seed, step), state.chain_offset)
        if not isinstance(y, Tensor) or y.shape != x.shape:
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"proposal: expected draws of shape {tuple(x.shape)}, got {got}")
        y = y.detach().to(x)
        forward = self._log_prob(y, x)
        backward = self._log_prob(x, y, forward)
        no_return = backward == -torch.inf
        outside = no_return | backward.isnan()
        if self.independent and bool(outside.any()):
            bad = outside.nonzero()[:, 0]
            raise ValueError(
                f"proposal: expected a support that covers the states, but {len(bad)} chains are "
                f"outside it, the first being {bad[:5].tolist()}"
            )
        # the ratio is 0 where y never proposes x, be the target's density there what it may
        return y, torch.where(no_return, -torch.inf, backward - forward)

    def _draw(self, x: Tensor, seed: int, chain_offset: int) -> Any:
        if isinstance(self.law, NativeTarget):
            return self.law.sample(len(x), seed=seed, chain_offset=chain_offset, dtype=x.dtype)
        with seeded(random.fold_in(seed, chain_offset), x.device):
            if not self.independent:
                return self.law.sample(x.clone())
            if isinstance(self.law, torch.distributions.Distribution):
                return self.law.sample(torch.Size((len(x),)))
            return self.law.sample(len(x))

    def _log_prob(self, y: Tensor, x: Tensor, forward: Tensor | None = None) -> Tensor:
        """Return ``log q(y | x)``, -infinity in rows that raise; ``forward`` is ``log q(x | y)``.

        Where both are wanted the moves that were drawn come first: they stand in for other rows
        when those that raise are looked for. If all of them raise, so does this.
        """
        try:
            whole = self._call(y, x)
        except OF_A_ROW as error:
            raised = error
        else:
            return self._checked(whole, y)
        value = y.new_full(y.shape[:1], -torch.inf)
        good = None
        if forward is not None:
            known = forward > -torch.inf
            first = known.long().argmax()
            good = [torch.where(column(known, z), z, z[first]) for z in (x, y)]

        def works(rows: Tensor) -> bool:
            others = good or [z[rows[:1]].expand_as(z) for z in (y, x)]
            pair = [z.index_copy(0, rows, at[rows]) for z, at in zip(others, (y, x), strict=True)]
            try:
                values = self._call(*pair)
            except OF_A_ROW:
                return False
            value[rows] = self._checked(values, y)[rows]
            return True

        if bool(rows_that_fail(len(y), works, y.device).all()) and forward is None:
            raise raised
        return value

    def _call(self, y: Tensor, x: Tensor) -> Any:
        if isinstance(self.law, NativeTarget):
            return self.law.log_density(y)
        if self.independent:
            return self.law.log_prob(y.clone())
        return self.law.log_prob(y.clone(), x.clone())

    @staticmethod
    def _checked(value: Any, y: Tensor) -> Tensor:
        if not isinstance(value, Tensor) or value.shape != y.shape[:1]:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"proposal: expected log_prob of shape {tuple(y.shape[:1])}, got {got}"
            )
        return value.detach().to(y)


def proposal_of(proposal: Any, *, independent: bool = False) -> Any:
    """Return what a kernel was given as a proposal."""
    if isinstance(proposal, (LogNormal, Autoregressive, _FromTorch)):
        if independent and not isinstance(proposal, _FromTorch):
            raise TypeError(
                "proposal: expected a law that does not look at the state, got "
                f"{type(proposal).__name__}"
            )
        return proposal
    if not _fits(proposal, independent):
        given = "sample(n) and log_prob(x)" if independent else "sample(x) and log_prob(y, x)"
        hint = _OTHER_KERNEL[independent] if _fits(proposal, not independent) else ""
        raise TypeError(
            f"proposal: expected an object with {given}, got {type(proposal).__name__}{hint}"
        )
    return _FromTorch(proposal, independent)


def _fits(proposal: Any, independent: bool) -> bool:
    """Whether an object is a proposal that looks at the state, or that does not."""
    if isinstance(proposal, NativeTarget):
        return independent
    return _takes(proposal, "sample", 1) and _takes(proposal, "log_prob", 1 if independent else 2)


def _takes(proposal: Any, name: str, n: int) -> bool:
    """Whether an object has a method that takes ``n`` arguments, as far as its signature says."""
    method = getattr(proposal, name, None)
    if not callable(method):
        return False
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # of a method that was not written in Python
        return True
    try:
        signature.bind(*range(n))
    except TypeError:
        return False
    return True
