# SPDX-License-Identifier: Apache-2.0
"""Hamiltonian Monte Carlo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor
from typing_extensions import Self

from pushforward import _ops, random
from pushforward._ops import column
from pushforward.mcmc.base import (
    Metropolised,
    State,
    check_positive,
    check_share,
    chosen_step,
    held,
    mean_of,
    normals,
    per_chain,
    uniforms,
)
from pushforward.mcmc.metric import Metric
from pushforward.targets.base import number

MetricChoice = Tensor | Literal["auto", "unit", "diagonal", "dense"]
_FOUND = ("diagonal", "dense")  # by a warm-up alone; without one "auto" is the identity
DIVERGENCE = 1000.0
"""A trajectory whose energy has grown by more than this has diverged."""


def check_metric(metric: Any) -> MetricChoice:
    """Return a metric as it was given; raise unless it is a word or has the form of one."""
    if isinstance(metric, Tensor):
        if metric.ndim not in (1, 2) or not metric.is_floating_point():
            raise ValueError(
                "metric: expected variances (dim,) or a covariance (dim, dim), got "
                f"{metric.dtype} of shape {tuple(metric.shape)}"
            )
        if metric.ndim == 1:
            check_positive(metric, "metric")
        return metric.detach().clone()
    if metric not in ("auto", "unit", "diagonal", "dense"):
        raise ValueError(
            'metric: expected a tensor, "auto", "unit", "diagonal" or "dense", got ' + repr(metric)
        )
    return metric


def metric_of(metric: MetricChoice) -> Metric:
    """Return the metric of a covariance; the words mean the identity until a warm-up."""
    return Metric.of_covariance(metric) if isinstance(metric, Tensor) else Metric()


class Hamiltonian(Metropolised):
    """A kernel that follows Hamiltonian dynamics with a step size and a metric."""

    step_size: Tensor | float | None
    metric: MetricChoice
    target_accept: float
    steps_per_chain: ClassVar[bool] = True
    tuned: ClassVar[tuple[str, ...]] = ("step_size", "metric")
    _metric: Metric
    _adapted: bool = False  # whether the step size is a warm-up's

    def _check(self) -> None:
        if self.step_size is not None:
            check_positive(self.step_size, "step_size")
        object.__setattr__(self, "step_size", held(self.step_size))
        object.__setattr__(self, "metric", check_metric(self.metric))
        object.__setattr__(self, "_metric", metric_of(self.metric))
        accept = check_share(self.target_accept, "target_accept")
        object.__setattr__(self, "target_accept", accept)

    def prepare(self, x: Tensor) -> Self:
        """Return the kernel with its parameters checked against the state ``x`` and in its type."""
        step_size = per_chain(chosen_step(self.step_size, self), x, "step_size")
        if not self._adapted and isinstance(self.metric, str) and self.metric in _FOUND:
            raise ValueError(
                'metric: expected variances (dim,), a covariance (dim, dim), "unit" or "auto", '
                f"since warmup is 0 and finds nothing, got {self.metric!r}"
            )
        return self._with(step_size=step_size, _metric=self._metric.fitting(x))

    def with_found(self, found: Mapping[str, Tensor]) -> Self:
        """Return the kernel with what a checkpoint held."""
        other = super().with_found(found)
        return other._with(_metric=metric_of(other.metric), _adapted=True)

    @property
    def metric_choice(self) -> str:
        """What a warm-up finds; nothing where the metric was given."""
        return self.metric if isinstance(self.metric, str) else "unit"

    def with_step(self, step_size: Tensor | float) -> Self:
        """Return the kernel with a step size, in units of the metric; or one a chain."""
        return self._with(step_size=step_size, _adapted=True)

    def with_metric(self, covariance: Tensor) -> Self:
        """Return the kernel with a metric."""
        return self._with(metric=covariance, _metric=Metric.of_covariance(covariance))

    def first_guess(self, dim: int) -> float:
        """Return the step size that a warm-up begins with, in units of the metric."""
        return mean_of(self.step_size, 1.0 / dim**0.25)


@dataclass(frozen=True, eq=False)
class HMC(Hamiltonian):
    r"""Hamiltonian Monte Carlo: ``n_leapfrog`` leapfrog steps from a fresh momentum.

    .. math:: H(x, p) = -\log\pi(x) + \tfrac12\,p^\top M\,p

    where ``M`` is the metric, near the target's covariance.

    Args:
        step_size: of the leapfrog, positive, a number or one value a chain; may be left out where a
            warm-up finds it.
        n_leapfrog: leapfrog steps a proposal, at least 1.
        metric: variances ``(dim,)`` or a covariance ``(dim, dim)``; or what a warm-up is to find:
            ``"dense"``, ``"diagonal"``, ``"unit"`` (nothing), or ``"auto"``: dense up to 64
            coordinates, diagonal above. Without a warm-up ``"auto"`` is the identity too, and the
            first two are refused.
        jitter: each step's step size is uniform within this share of ``step_size``, at least 0 and
            below 1. Without it a trajectory may return to where it began, step after step, above
            all in the coordinates of a good metric, where all periods are one.
        target_accept: mean acceptance probability that a warm-up aims at. Nearer to 1, steps are
            smaller, which a law with narrow corners needs.

    Raises:
        TypeError: a parameter has the wrong type.
        ValueError: a parameter is out of range or has the wrong shape.

    Reference: S. Duane et al. (1987), Hybrid Monte Carlo, Physics Letters B 195; R. M. Neal (2011),
    MCMC using Hamiltonian dynamics.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.targets.Gaussian(torch.zeros(10), scale=torch.linspace(0.5, 2, 10))
        >>> chains = pf.sample(law, pf.HMC(n_leapfrog=5), torch.zeros(200, 10), warmup=200,
        ...                    n_steps=50, seed=0)
        >>> bool((chains.var.sqrt() / torch.linspace(0.5, 2, 10) - 1).abs().max() < 0.1)
        True

    """

    step_size: Tensor | float | None = None
    n_leapfrog: int = 10
    metric: MetricChoice = "auto"
    jitter: float = 0.2
    target_accept: float = 0.8
    name: ClassVar[str] = "hmc"
    _metric: Metric = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "n_leapfrog", _ops.count(self.n_leapfrog, "n_leapfrog", 1))
        jitter = number(self.jitter, "jitter")
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter: expected 0 <= jitter < 1, got {jitter}")
        object.__setattr__(self, "jitter", jitter)

    @property
    def evaluations(self) -> int:
        """How often a step evaluates the target at most."""
        return self.n_leapfrog

    def parameters(self, state: State, first_step: int, n_steps: int) -> dict[str, Any]:
        """Return the parameters of the native run."""
        return {
            "step_size": self.step_size,
            "n_leapfrog": self.n_leapfrog,
            "jitter": self.jitter,
            **self._metric.parameters(),
        }

    def _step_of(self, state: State, step: int | Tensor) -> Tensor | float:
        h = chosen_step(self.step_size, self)
        if self.jitter == 0:
            return h
        u = uniforms(state, step, random.PURPOSES["adaptation"])
        return h + self.jitter * (2 * u - 1) * h

    def step(self, state: State, step: int | Tensor) -> Tensor:
        """Take one step on a torch target."""
        metric = self._metric
        before, score = state.memory["log_density"], state.memory["score"]
        h = column(self._step_of(state, step), state.x)
        momentum = normals(state, step, random.PURPOSES["momentum"])
        kinetic = half_square(momentum)
        y, value, next_score = state.x, before, score
        momentum = momentum + 0.5 * h * metric.pull(score)
        for i in range(self.n_leapfrog):
            y = y + h * metric.push(momentum)
            value, next_score = state.evaluate(y)
            last = i + 1 == self.n_leapfrog
            momentum = momentum + (0.5 * h if last else h) * metric.pull(next_score)
        change = kinetic - half_square(momentum)
        growth = value - before + change
        state.counts.n_divergent.add_((~(growth >= -DIVERGENCE)).long())
        return state.accept(
            step,
            y,
            value,
            score=score,
            proposed_score=next_score.contiguous(),
            correction=change,
        )

    @property
    def has_unit_metric(self) -> bool:
        """Whether the identity is the metric."""
        return self._metric.is_unit


def half_square(x: Tensor) -> Tensor:
    """Return half the squared length of each row of ``x``."""
    return 0.5 * _ops.rows(x).square().sum(1)
