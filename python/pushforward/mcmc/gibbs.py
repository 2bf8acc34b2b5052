# SPDX-License-Identifier: Apache-2.0
"""Gibbs sweeps: each coordinate in turn, drawn from its law given the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor

from pushforward import _ops, random
from pushforward.mcmc.base import Kernel, State, seeded
from pushforward.parameters import NamedTarget

__all__ = ["Gibbs"]


class _Conditionals(Protocol):
    def conditional(self, i: int, x: Tensor) -> Any: ...


@dataclass(frozen=True, eq=False)
class Gibbs(Kernel):
    """A sweep over all coordinates, each drawn from its conditional law, which is always taken.

    The target offers ``conditional(i, x)``: the law of coordinate ``i`` of the flattened event
    given the others, a ``torch.distributions.Distribution`` of batch shape ``(n_chains,)``; where
    the start is a dict, so is ``x``, and ``i`` counts all numbers in its order. One
    with ``icdf`` reads the uniforms of the run's seed, chain by chain; others are sampled with
    torch's generator, as a function of the seed and the step, for all chains of the call together.

    Raises:
        TypeError: the target has no ``conditional``, or it returned no distribution.
        ValueError: a conditional law has another batch shape.

    Reference: S. Geman and D. Geman (1984), Stochastic relaxation, Gibbs distributions, and the
    Bayesian restoration of images, IEEE Trans. Pattern Analysis and Machine Intelligence 6.

    Example:
        >>> import pushforward as pf, torch
        >>> class Pair:  # two standard normals of correlation 0.9
        ...     def log_density(self, x):
        ...         a, b = x.T
        ...         return -(a * a - 1.8 * a * b + b * b) / 0.38
        ...     def conditional(self, i, x):
        ...         return torch.distributions.Normal(0.9 * x[:, 1 - i], 0.19**0.5)
        >>> chains = pf.sample(Pair(), pf.mcmc.Gibbs(), torch.zeros(500, 2), n_steps=200,
        ...                    burn_in=20, seed=0)
        >>> bool((chains.var - 1).abs().max() < 0.1)
        True

    """

    name: ClassVar[str] = "gibbs"

    def prepare(self, x: Tensor) -> Gibbs:
        """Return the kernel: it has no parameters."""
        return self

    def runs_on(self, target: Any) -> bool:
        """Whether whole runs are native: they are not."""
        return False

    def begin(self, state: State) -> None:
        """Check that the target offers conditionals."""
        target = state.target
        if not callable(getattr(target, "conditional", None)):
            law = target.law if isinstance(target, NamedTarget) else target
            raise TypeError(
                f"target: expected one with conditional(i, x) for Gibbs, got {type(law).__name__}"
            )

    def parameters(self, state: State, first_step: int, n_steps: int) -> dict[str, Any]:
        """Return nothing: there is no native run."""
        return {}

    def step(self, state: State, step: int | Tensor) -> Tensor:
        """Take one sweep; return the log-density before it."""
        if isinstance(step, Tensor):
            raise TypeError("cuda_graph: Gibbs sweeps cannot be captured")
        before = self.log_density(state)
        proposed = state.x.clone()
        rows = _ops.rows(proposed)
        n, dim = rows.shape
        u = state.x.new_empty(n, dim)
        _ops.fill_(
            u,
            uniform=True,
            seed=state.seed,
            purpose=random.PURPOSES["proposal"],
            chain_offset=state.chain_offset,
            start=step * dim,
        )
        target = cast("_Conditionals", state.target)  # as checked at the beginning
        for i in range(dim):
            law = target.conditional(i, proposed)
            seed = random.fold_in(state.seed, step * dim + i)
            rows[:, i] = _draw(law, u[:, i], random.fold_in(seed, state.chain_offset))
        state.commit(proposed)
        return before

    def log_density(self, state: State) -> Tensor:
        """Return the log-density at the state."""
        return state.evaluate(state.x, score=False)[0]


def _draw(law: Any, u: Tensor, seed: int) -> Tensor:
    if not isinstance(law, torch.distributions.Distribution):
        raise TypeError(
            f"target: expected conditional to return a Distribution, got {type(law).__name__}"
        )
    if law.batch_shape + law.event_shape != u.shape:
        raise ValueError(
            f"target: expected a conditional of batch shape {tuple(u.shape)}, got "
            f"{tuple(law.batch_shape + law.event_shape)}"
        )
    try:
        return law.icdf(u.clamp(max=1 - torch.finfo(u.dtype).eps)).to(u)
    except NotImplementedError:
        with seeded(seed, u.device):
            return law.sample().to(u)
