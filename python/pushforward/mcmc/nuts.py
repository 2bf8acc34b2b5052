# SPDX-License-Identifier: Apache-2.0
"""The no-U-turn sampler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from pushforward import _ops
from pushforward.mcmc.base import State, chosen_step
from pushforward.mcmc.hamiltonian import Hamiltonian, MetricChoice
from pushforward.mcmc.metric import Metric
from pushforward.mcmc.trees import Trees

DEEPEST = 20
EARLY_DEEPEST = 5
"""Doublings at most until a warm-up has its first metric."""


@dataclass(frozen=True, eq=False)
class NUTS(Hamiltonian):
    r"""The no-U-turn sampler: Hamiltonian trajectories that end where they would turn back.

    A trajectory doubles, forward or backward in time, until its ends move towards each other,

    .. math:: p_\text{first} \cdot \textstyle\sum_i p_i \le 0 \quad\text{or}\quad
              p_\text{last} \cdot \textstyle\sum_i p_i \le 0,

    for it or for one of the aligned stretches of ``2**j`` points in it, alone or with the next
    point of its neighbour. The next state is drawn from all its points with weights
    ``exp(-H)``, preferring those of the last doubling.

    Step ``k`` reads ``dim`` entries of the purpose ``"momentum"`` from ``k * dim`` on, and
    ``2**max_depth`` uniforms of the purpose ``"tree"`` from ``k * 2**max_depth`` on: entry 0
    holds the directions, the first binary digit that of the first doubling (1 is forward); entry
    ``2**d`` decides whether the state moves to the new half of doubling ``d``, and
    ``2**d + i`` whether that half's leaf ``i > 0`` becomes the one to move to.

    Args:
        step_size: of the leapfrog, positive, a number or one value a chain; may be left out where a
            warm-up finds it.
        max_depth: doublings at most, 1 to 20: a trajectory has ``2**max_depth`` points at most.
        metric: as in :class:`HMC`.
        target_accept: as in :class:`HMC`.

    Raises:
        TypeError: a parameter has the wrong type.
        ValueError: a parameter is out of range or has the wrong shape.

    Reference: M. D. Hoffman and A. Gelman (2014), The No-U-Turn sampler, JMLR 15; M. Betancourt
    (2017), A conceptual introduction to Hamiltonian Monte Carlo, appendix A.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.targets.Gaussian(torch.zeros(10), scale=torch.linspace(0.5, 2, 10))
        >>> chains = pf.sample(law, pf.NUTS(), torch.zeros(200, 10), warmup=200, n_steps=50, seed=0)
        >>> bool((chains.var.sqrt() / torch.linspace(0.5, 2, 10) - 1).abs().max() < 0.1)
        True

    """

    step_size: Tensor | float | None = None
    max_depth: int = 10
    metric: MetricChoice = "auto"
    target_accept: float = 0.8
    name: ClassVar[str] = "nuts"
    _metric: Metric = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check()
        depth = _ops.count(self.max_depth, "max_depth", 1)
        if depth > DEEPEST:
            raise ValueError(f"max_depth: expected at most {DEEPEST}, got {depth}")
        object.__setattr__(self, "max_depth", depth)

    @property
    def evaluations(self) -> int:
        """How often a step evaluates the target at most."""
        return 1 << self.max_depth

    def at_first(self) -> NUTS:
        """Return the kernel with short trajectories: with the wrong metric long ones are dear."""
        return self._with(max_depth=min(self.max_depth, EARLY_DEEPEST))

    def parameters(self, state: State, first_step: int, n_steps: int) -> dict[str, Any]:
        """Return the parameters of the native run."""
        return {
            "step_size": self.step_size,
            "max_depth": self.max_depth,
            **self._metric.parameters(),
        }

    def step(self, state: State, step: int | Tensor) -> Tensor:
        """Take one step on a torch target."""
        if isinstance(step, Tensor):
            raise TypeError("cuda_graph: the length of a trajectory is not known when one is made")
        before, score = state.memory["log_density"].clone(), state.memory["score"]
        trees = Trees(state, self._metric, chosen_step(self.step_size, self), step, self.max_depth)
        trees.grow()
        counts = state.counts
        accepted = trees.accepted.double() / trees.n_leaves
        counts.accepted.add_(accepted)
        counts.accepted_squares.add_(accepted.square())
        counts.n_divergent.add_(trees.diverged)
        counts.n_nonfinite.add_(trees.nonfinite)
        state.commit(trees.x.reshape(state.x.shape))
        state.memory["log_density"].copy_(trees.log_density)
        score.copy_(trees.score.reshape(score.shape))
        return before
