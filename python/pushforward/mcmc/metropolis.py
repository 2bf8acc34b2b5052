# SPDX-License-Identifier: Apache-2.0
"""Metropolis-Hastings: random walks, other proposals, independent ones, and MALA."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from pushforward import _ops, random
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
)
from pushforward.mcmc.metric import Metric
from pushforward.mcmc.proposals import Autoregressive, LogNormal, proposal_of
from pushforward.targets import Target


def _check_scale(scale: Tensor, *, in_another_type: bool = False) -> None:
    """Raise unless a scale is finite and positive, or a factor of full rank.

    Whether a factor is of full rank is asked in the type that it was given in.
    """
    if not bool(scale.isfinite().all()):
        raise ValueError("scale: expected finite values, got inf or nan")
    if scale.ndim < 2:
        check_positive(scale, "scale")
    elif not (_has_no_zeros(scale) if in_another_type else _is_regular(scale.detach())):
        raise ValueError(
            "scale: expected a factor (dim, dim) of full rank, got a singular one, whose proposals "
            "leave out a direction"
        )


def _is_triangular(factor: Tensor) -> bool:
    return torch.equal(factor, factor.tril()) or torch.equal(factor, factor.triu())


def _has_no_zeros(factor: Tensor) -> bool:
    """Whether no row is zero, nor an entry on the diagonal of a triangular factor."""
    if _is_triangular(factor):
        return bool((factor.diagonal() != 0).all())
    return bool((factor != 0).any(1).all())


def _is_regular(factor: Tensor) -> bool:
    if _is_triangular(factor):
        return _has_no_zeros(factor)
    # Its rows are made as long as each other, since what a coordinate is measured in is no matter.
    longest = factor.abs().amax(1, keepdim=True)
    rows = (factor / torch.where(longest > 0, longest, 1.0)).double()
    tolerance = len(factor) * torch.finfo(factor.dtype).eps
    return int(torch.linalg.matrix_rank(rows, rtol=tolerance)) == len(factor)


@dataclass(frozen=True, eq=False)
class RandomWalk(Metropolised):
    r"""Metropolis' random walk (eq 42): ``y = x + L xi``, taken with probability ``min(1, r)``.

    .. math:: r = \left(\frac{\pi(y)}{\pi(x)}\right)^\beta

    Args:
        scale: a number, the standard deviation of every coordinate; a tensor ``(dim,)``, one a
            coordinate; or ``(dim, dim)``, a factor ``L`` of the proposal's covariance ``L L'``,
            such as Cholesky's, triangular or not, of full rank. May be left out where a warm-up
            finds it.
        beta: inverse temperature, a number or one value a chain.
        target_accept: mean acceptance probability that a warm-up aims at.

    Raises:
        TypeError: a parameter has the wrong type.
        ValueError: a parameter is out of range or has the wrong shape.

    Reference: N. Metropolis et al. (1953), Equation of state calculations by fast computing
    machines, J. Chem. Phys. 21.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
        >>> chains = pf.sample(law, pf.RandomWalk(scale=1.7), law.sample(500, seed=0),
        ...                    n_steps=100, seed=1)
        >>> bool((chains.accept_rate.mean() - 0.35).abs() < 0.1)
        True

    """

    scale: Tensor | float | None = None
    beta: Tensor | float = 1.0
    target_accept: float = 0.234
    name: ClassVar[str] = "random_walk"
    uses_score: ClassVar[bool] = False
    metric_choice: ClassVar[str] = "auto"
    steps_per_chain: ClassVar[bool] = False
    tuned: ClassVar[tuple[str, ...]] = ("scale",)
    _shape: Tensor | None = field(default=None, init=False, repr=False)  # a factor, from a warm-up

    def __post_init__(self) -> None:
        check_positive(self.beta, "beta")
        object.__setattr__(self, "beta", held(self.beta))
        accept = check_share(self.target_accept, "target_accept")
        object.__setattr__(self, "target_accept", accept)
        if isinstance(self.scale, Tensor):
            square = self.scale.ndim < 2 or self.scale.shape[0] == self.scale.shape[-1]
            if self.scale.ndim > 2 or not square or not self.scale.is_floating_point():
                raise ValueError(
                    "scale: expected a number or a floating point tensor of shape (dim,) or "
                    f"(dim, dim), got {self.scale.dtype} of shape {tuple(self.scale.shape)}"
                )
            _check_scale(self.scale)
            object.__setattr__(self, "scale", held(self.scale))
        elif self.scale is not None:
            check_positive(self.scale, "scale")

    def prepare(self, x: Tensor) -> RandomWalk:
        """Return the kernel with its parameters checked against the state ``x`` and in its type."""
        scale = chosen_step(self.scale, self, "scale")
        if isinstance(scale, Tensor) and scale.ndim == 0:
            scale = float(scale)  # once, since a step that reads it on a GPU would wait
        elif isinstance(scale, Tensor):
            Metric.of_factor(scale, x, "scale")
            scale = scale.to(x)
            if self._shape is None:  # what the caller gave may be 0 or inf in another type
                _check_scale(scale, in_another_type=True)
        return self._with(scale=scale, beta=per_chain(self.beta, x, "beta"))

    def _metric(self, x: Tensor) -> tuple[float, Metric]:
        if isinstance(self.scale, Tensor) and self.scale.ndim > 0:
            return 1.0, Metric.of_factor(self.scale, x, "scale")
        return float(chosen_step(self.scale, self, "scale")), Metric()

    def parameters(self, state: State, first_step: int, n_steps: int) -> dict[str, Any]:
        """Return the parameters of the native run."""
        scale, metric = self._metric(state.x)
        return {"step_size": scale, "beta": self.beta, **metric.parameters()}

    def step(self, state: State, step: int | Tensor) -> Tensor:
        """Take one step on a torch target."""
        scale, metric = self._metric(state.x)
        if metric.is_unit:
            proposed = torch.empty_like(state.x)
            _ops.proposal_(
                proposed,
                state.x,
                scale=scale,
                purpose=random.PURPOSES["proposal"],
                **state.where(step),
            )
        else:
            xi = normals(state, step, random.PURPOSES["proposal"])
            proposed = state.x + metric.push(xi)
        value, _ = state.evaluate(proposed, score=False)
        return state.accept(step, proposed, value, beta=self.beta)

    def with_step(self, step_size: Tensor | float) -> RandomWalk:
        """Return the kernel with a scale, in units of the metric."""
        return self._with(scale=step_size if self._shape is None else step_size * self._shape)

    def with_metric(self, covariance: Tensor) -> RandomWalk:
        """Return the kernel whose proposals have the shape of a covariance."""
        return self._with(_shape=Metric.of_covariance(covariance).factor)

    def first_guess(self, dim: int) -> float:
        """Return the scale that a warm-up begins with, in units of the metric."""
        return self.scale if isinstance(self.scale, (int, float)) else 2.38 / dim**0.5


@dataclass(frozen=True, eq=False)
class MetropolisHastings(Metropolised):
    r"""Metropolis-Hastings with any proposal (algorithm 1).

    .. math:: \log r = \beta\,(\log\pi(y) - \log\pi(x)) + \log q(x\mid y) - \log q(y\mid x)

    Args:
        proposal: :class:`LogNormal` or :class:`Autoregressive`, which run natively on native
            targets; or any object with ``sample(x)``, a tensor like ``x``, and
            ``log_prob(y, x) = log q(y | x)``, shape ``(n_chains,)``. What ``sample`` draws with
            torch's default generator is a function of the run's seed, the step and
            ``chain_offset``; it depends on the number of chains, as torch's draws do. Both are
            given copies, which they may change; where the start is a dict, ``x`` and ``y`` are
            dicts like it.
        beta: inverse temperature, a number or one value a chain.

    Raises:
        TypeError: the proposal lacks one of the two methods, or they take other arguments.
        ValueError: it returned a wrong shape, or its ``log_prob`` raised this for every chain.

    Reference: W. K. Hastings (1970), Monte Carlo sampling methods using Markov chains and their
    applications, Biometrika 57.

    Example:
        >>> import pushforward as pf, torch
        >>> law = torch.distributions.Gamma(3.0, 1.0)
        >>> kernel = pf.MetropolisHastings(pf.mcmc.LogNormal(scale=0.8))
        >>> density = lambda x: law.log_prob(x[:, 0])
        >>> chains = pf.sample(density, kernel, torch.ones(500, 1), n_steps=200, burn_in=50, seed=0)
        >>> bool((chains.mean - 3).abs() < 0.1)
        True

    """

    proposal: Any
    beta: Tensor | float = 1.0
    name: ClassVar[str] = "random_walk"
    uses_score: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive(self.beta, "beta")
        object.__setattr__(self, "beta", held(self.beta))
        object.__setattr__(self, "proposal", proposal_of(self.proposal))

    def runs_on(self, target: Target) -> bool:
        """Whether whole runs on ``target`` are native."""
        return super().runs_on(target) and isinstance(self.proposal, (LogNormal, Autoregressive))

    def prepare(self, x: Tensor) -> MetropolisHastings:
        """Return the kernel with its parameters checked against the state ``x`` and in its type."""
        return self._with(proposal=self.proposal.prepare(x), beta=per_chain(self.beta, x, "beta"))

    def parameters(self, state: State, first_step: int, n_steps: int) -> dict[str, Any]:
        """Return the parameters of the native run."""
        return {"beta": self.beta, **self.proposal.parameters()}

    def step(self, state: State, step: int | Tensor) -> Tensor:
        """Take one step on a torch target."""
        proposed, correction = self.proposal.propose(state, step)
        value, _ = state.evaluate(proposed, score=False)
        return state.accept(step, proposed, value, correction=correction, beta=self.beta)


@dataclass(frozen=True, eq=False)
class Independence(MetropolisHastings):
    r"""Metropolis-Hastings with proposals that do not look at the state.

    Args:
        proposal: a law to propose from: a ``torch.distributions.Distribution`` over events, a
            native target (its exact draws), or any object with ``sample(n)`` and ``log_prob(x)``,
            such as a flow. Its support must cover the target's. Where the start is a dict, an
            object of your own draws and is given dicts like it; a distribution or a native target
            is a law of the flat states ``(n_chains, dim)``.
        beta: inverse temperature, a number or one value a chain.

    Raises:
        TypeError: the proposal lacks one of the two methods, or they take other arguments.
        ValueError: it returned a wrong shape, or a state lies outside its support.

    Reference: L. Tierney (1994), Markov chains for exploring posterior distributions, Annals of
    Statistics 22.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.targets.DoubleWell(1, mu=-2.0, b=1.0)
        >>> wide = pf.targets.Gaussian(torch.zeros(1), scale=torch.full((1,), 2.0))
        >>> chains = pf.sample(law, pf.Independence(wide), torch.zeros(200, 1), n_steps=300, seed=0)
        >>> bool((chains.var / law.covariance[0] - 1).abs() < 0.05)
        True

    """

    def __post_init__(self) -> None:
        check_positive(self.beta, "beta")
        object.__setattr__(self, "beta", held(self.beta))
        object.__setattr__(self, "proposal", proposal_of(self.proposal, independent=True))


@dataclass(frozen=True, eq=False)
class MALA(Metropolised):
    r"""The Metropolis-adjusted Langevin algorithm: a Langevin step as the proposal (eq 119).

    .. math:: y = x + h\,\nabla\log\pi(x) + \sqrt{2h/\beta}\;\xi

    Args:
        step_size: ``h > 0``, a number or one value a chain; may be left out where a warm-up finds
            it.
        beta: inverse temperature, likewise; the law left invariant is ``pi**beta``.
        target_accept: mean acceptance probability that a warm-up aims at.

    Raises:
        TypeError: a parameter is neither a number nor a tensor.
        ValueError: a parameter is not positive and finite.

    Reference: G. O. Roberts and R. L. Tweedie (1996), Exponential convergence of Langevin
    distributions and their discrete approximations, Bernoulli 2.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
        >>> chains = pf.sample(law, pf.MALA(step_size=0.8), law.sample(500, seed=0), n_steps=100,
        ...                    seed=1)
        >>> bool((chains.var - 1).abs().max() < 0.1)
        True

    """

    step_size: Tensor | float | None = None
    beta: Tensor | float = 1.0
    target_accept: float = 0.574
    name: ClassVar[str] = "mala"
    metric_choice: ClassVar[str] = "unit"
    steps_per_chain: ClassVar[bool] = True
    tuned: ClassVar[tuple[str, ...]] = ("step_size",)

    def __post_init__(self) -> None:
        if self.step_size is not None:
            check_positive(self.step_size, "step_size")
        check_positive(self.beta, "beta")
        for name in ("step_size", "beta"):
            object.__setattr__(self, name, held(getattr(self, name)))
        accept = check_share(self.target_accept, "target_accept")
        object.__setattr__(self, "target_accept", accept)

    def prepare(self, x: Tensor) -> MALA:
        """Return the kernel with its parameters checked against the state ``x`` and in its type."""
        step_size = per_chain(chosen_step(self.step_size, self), x, "step_size")
        return self._with(step_size=step_size, beta=per_chain(self.beta, x, "beta"))

    def parameters(self, state: State, first_step: int, n_steps: int) -> dict[str, Any]:
        """Return the parameters of the native run."""
        return {"step_size": self.step_size, "beta": self.beta}

    def step(self, state: State, step: int | Tensor) -> Tensor:
        """Take one step on a torch target."""
        step_size = chosen_step(self.step_size, self)
        score = state.memory["score"]
        proposed = _ops.langevin(
            state.x, score, step_size=step_size, beta=self.beta, **state.where(step)
        )
        value, next_score = state.evaluate(proposed)
        return state.accept(
            step,
            proposed,
            value,
            score=score,
            proposed_score=next_score.contiguous(),
            step_size=step_size,
            beta=self.beta,
        )

    def with_step(self, step_size: Tensor | float) -> MALA:
        """Return the kernel with a step size, or one a chain."""
        return self._with(step_size=step_size)

    def with_metric(self, covariance: Tensor) -> MALA:
        """Return the kernel itself: it has no metric."""
        return self

    def first_guess(self, dim: int) -> float:
        """Return the step size that a warm-up begins with."""
        return mean_of(self.step_size, 0.5 / dim ** (1 / 3))
