# SPDX-License-Identifier: Apache-2.0
"""Langevin dynamics without correction: overdamped, annealed, underdamped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from pushforward import _ops, random
from pushforward._ops import column
from pushforward.mcmc.base import (
    Kernel,
    State,
    check_positive,
    check_share,
    chosen_step,
    held,
    mean_of,
    normals,
    per_chain,
    row_sums,
    uniforms,
)
from pushforward.targets import NativeTarget


class _Unadjusted(Kernel):
    """A kernel that takes each finite proposal."""

    stays_at_no_number: ClassVar[bool] = True

    def log_density(self, state: State) -> Tensor:
        """Return the log-density at the state."""
        return state.evaluate(state.x)[0]


def _evaluated(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-density and the score of a torch target at ``x``.

    Where the density is 0, infinite or NaN the score is NaN, whatever autograd says of a constant,
    so that no step is taken there.
    """
    value, score = state.evaluate(x)
    return value, torch.where(column(value.isfinite(), x), score, torch.nan)


@dataclass(frozen=True, eq=False)
class Langevin(_Unadjusted):
    r"""Overdamped Langevin dynamics without correction (eq 119, 122).

    .. math:: x' = x + h\,\nabla\log\pi(x) + \sqrt{2h/\beta}\;\xi

    The law it leaves invariant differs from ``pi**beta`` at order ``h``: on ``U = x**2 / 2`` its
    variance is ``1 / (1 - h / 2)``.

    Args:
        step_size: ``h > 0``, a number or one value a chain, shape ``(n_chains,)``.
        beta: inverse temperature, likewise.

    Raises:
        TypeError: a parameter is neither a number nor a tensor.
        ValueError: a parameter is not positive and finite.

    Reference: G. Parisi (1981), Correlation functions and computer simulations, Nucl. Phys. B 180.

    Example:
        >>> import pushforward as pf
        >>> pf.Langevin(step_size=0.1)
        Langevin(step_size=0.1, beta=1.0)

    """

    step_size: Tensor | float
    beta: Tensor | float = 1.0
    name: ClassVar[str] = "langevin"

    def __post_init__(self) -> None:
        for name in ("step_size", "beta"):
            check_positive(getattr(self, name), name)
            object.__setattr__(self, name, held(getattr(self, name)))

    def prepare(self, x: Tensor) -> Langevin:
        """Return the kernel with its parameters checked against the state ``x`` and in its type."""
        return Langevin(per_chain(self.step_size, x, "step_size"), per_chain(self.beta, x, "beta"))

    def parameters(self, state: State, first_step: int, n_steps: int) -> dict[str, Any]:
        """Return the parameters of the native run."""
        return {"step_size": self.step_size, "beta": self.beta}

    def step(self, state: State, step: int | Tensor) -> Tensor:
        """Take one step on a torch target."""
        value, score = _evaluated(state, state.x)
        proposed = _ops.langevin(
            state.x, score, step_size=self.step_size, beta=self.beta, **state.where(step)
        )
        state.commit(proposed)
        return value


@dataclass(frozen=True, eq=False)
class AnnealedLangevin(_Unadjusted):
    r"""Langevin dynamics at a temperature that changes from step to step (eq 121).

    .. math:: x_{k+1} = x_k + h\,\nabla\log\pi(x_k) + \sqrt{2h/\beta_k}\;\xi_k

    Args:
        step_size: ``h > 0``, a number or one value a chain.
        betas: the schedule: a sequence or a tensor ``(n_steps,)``, whose last value goes on, or a
            function from the index of a step to a number. Positive and finite.

    Raises:
        TypeError: a parameter has the wrong type.
        ValueError: a value is not positive and finite, or the schedule is empty.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.targets.DoubleWell(1, mu=-4.0, b=1.0)
        >>> kernel = pf.AnnealedLangevin(step_size=0.01, betas=torch.linspace(0.1, 5.0, 200))
        >>> pf.sample(law, kernel, torch.zeros(10, 1), n_steps=200, store="last", seed=0).x.shape
        torch.Size([10, 1])

    """

    step_size: Tensor | float
    betas: Sequence[float] | Tensor | Callable[[int], float]
    name: ClassVar[str] = "langevin"

    def __post_init__(self) -> None:
        check_positive(self.step_size, "step_size")
        object.__setattr__(self, "step_size", held(self.step_size))
        if callable(self.betas):
            return
        betas = torch.as_tensor(self.betas, dtype=torch.float64).detach().clone()
        if betas.ndim != 1 or len(betas) == 0:
            raise ValueError(f"betas: expected shape (n_steps,), got {tuple(betas.shape)}")
        check_positive(betas, "betas")
        object.__setattr__(self, "betas", betas)

    def prepare(self, x: Tensor) -> AnnealedLangevin:
        """Return the kernel with its parameters checked against the state ``x`` and in its type."""
        betas = self.betas.to(x.device) if isinstance(self.betas, Tensor) else self.betas
        return AnnealedLangevin(per_chain(self.step_size, x, "step_size"), betas)

    def schedule(self, first_step: int, n_steps: int) -> Tensor:
        """Return the inverse temperatures of the steps, float64 ``(n_steps,)``."""
        if isinstance(self.betas, Tensor):
            steps = torch.arange(first_step, first_step + n_steps, device=self.betas.device)
            return self.betas[steps.clamp(max=len(self.betas) - 1)]
        at = cast("Callable[[int], float]", self.betas)  # what __post_init__ has left
        values = [float(at(k)) for k in range(first_step, first_step + n_steps)]
        betas = torch.tensor(values, dtype=torch.float64)
        check_positive(betas, "betas")
        return betas

    def parameters(self, state: State, first_step: int, n_steps: int) -> dict[str, Any]:
        """Return the parameters of the native run."""
        device = state.x.device
        betas = self.schedule(first_step, n_steps).to(device, non_blocking=device.type != "cpu")
        return {"step_size": self.step_size, "betas": betas}

    def step(self, state: State, step: int | Tensor) -> Tensor:
        """Take one step on a torch target."""
        value, score = _evaluated(state, state.x)
        if isinstance(step, Tensor):  # in a captured graph: the step is in the GPU's memory
            if not isinstance(self.betas, Tensor):
                raise TypeError("betas: expected a tensor in a CUDA graph, got a function")
            # not by [], which reads a 0-d index on the host
            beta = self.betas.take(step.clamp(max=len(self.betas) - 1)).to(state.x.dtype)
        else:
            beta = self.schedule(step, 1)[0].to(state.x.dtype)
        proposed = _ops.langevin(
            state.x, score, step_size=self.step_size, beta=beta, **state.where(step)
        )
        state.commit(proposed)
        return value


@dataclass(frozen=True, eq=False)
class UnderdampedLangevin(_Unadjusted):
    r"""Langevin dynamics with a velocity, split as B A O A B.

    .. math:: dx = v\,dt, \qquad dv = \nabla\log\pi(x)\,dt - \gamma v\,dt + \sqrt{2\gamma/\beta}\,dW

    Its law differs from ``pi**beta`` at order ``step_size**2``; on a Gaussian the law of the
    positions is exact. A run's result holds the kernel with the velocity it ended with, so that it
    can go on.

    A step makes no test, but a warm-up asks what it would say: all but friction and noise are
    reversible and keep volumes, so that a Metropolis test would accept them with probability
    ``min(1, exp(-beta * dH))``, where ``dH`` is what they change of ``H = -log pi(x) + v**2 / 2``.

    Args:
        step_size: length of a step in time, positive, a number or one value a chain; may be left
            out where a warm-up finds it.
        friction: ``gamma``, likewise positive.
        beta: inverse temperature, likewise.
        velocity: at the start, like the state; by default drawn from ``N(0, 1 / beta)``.
        target_accept: mean acceptance probability that a warm-up aims at, of a test that is not
            made: the nearer to 1, the nearer is the law to ``pi**beta``. At the defaults the second
            moment of ``exp(-x**4)`` is less than one percent off. Log-densities beyond 1e5 take
            float64: rounding to float32 hides such changes.

    Raises:
        TypeError: a parameter is neither a number nor a tensor.
        ValueError: a parameter is not positive and finite, the velocity has another shape, or
            ``target_accept`` is not between 0 and 1.

    Reference: B. Leimkuhler and C. Matthews (2013), Rational construction of stochastic numerical
    methods for molecular sampling, Applied Mathematics Research eXpress; N. Bou-Rabee and
    E. Vanden-Eijnden (2010), Pathwise accuracy and ergodicity of Metropolized integrators for SDEs,
    Communications on Pure and Applied Mathematics 63.

    Example:
        >>> import pushforward as pf, torch
        >>> law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
        >>> kernel = pf.UnderdampedLangevin(step_size=0.5, friction=1.0)
        >>> chains = pf.sample(law, kernel, law.sample(1000, seed=0), n_steps=100, seed=1)
        >>> bool((chains.var - 1).abs().max() < 0.1)
        True

    """

    step_size: Tensor | float | None = None
    friction: Tensor | float = 1.0
    beta: Tensor | float = 1.0
    velocity: Tensor | None = None
    target_accept: float = 0.99
    name: ClassVar[str] = "underdamped"
    metric_choice: ClassVar[str] = "unit"
    steps_per_chain: ClassVar[bool] = True
    tuned: ClassVar[tuple[str, ...]] = ("step_size",)

    def __post_init__(self) -> None:
        for name in ("step_size", "friction", "beta"):
            if name != "step_size" or self.step_size is not None:
                check_positive(getattr(self, name), name)
            object.__setattr__(self, name, held(getattr(self, name)))
        object.__setattr__(self, "velocity", held(self.velocity))
        accept = check_share(self.target_accept, "target_accept")
        object.__setattr__(self, "target_accept", accept)

    def prepare(self, x: Tensor) -> UnderdampedLangevin:
        """Return the kernel with its parameters checked against the state ``x`` and in its type."""
        if self.velocity is not None:
            if self.velocity.shape != x.shape:
                raise ValueError(
                    f"velocity: expected the shape of x, {tuple(x.shape)}, got "
                    f"{tuple(self.velocity.shape)}"
                )
            if not bool(self.velocity.isfinite().all()):
                raise ValueError("velocity: expected finite values, got inf or nan")
        return self._with(
            step_size=per_chain(chosen_step(self.step_size, self), x, "step_size"),
            friction=per_chain(self.friction, x, "friction"),
            beta=per_chain(self.beta, x, "beta"),
            velocity=None if self.velocity is None else self.velocity.to(x),
        )

    def begin(self, state: State) -> None:
        """Draw the first velocity, unless there is one; evaluate a torch target at the start."""
        if self.velocity is not None:
            velocity = self.velocity.clone()
        else:
            velocity = torch.zeros_like(state.x)
            _ops.proposal_(
                velocity,
                velocity,
                scale=1.0,
                seed=state.seed,
                step=0,
                purpose=random.PURPOSES["init"],
                chain_offset=state.chain_offset,
            )
            velocity = velocity / torch.as_tensor(column(self.beta, state.x)).sqrt()
        state.memory["velocity"] = velocity.contiguous()
        if not self.runs_on(state.target):
            value, score = _evaluated(state, state.x)
            state.memory |= {"log_density": value.clone(), "score": score.clone()}

    def log_density(self, state: State) -> Tensor:
        """Return the log-density at the state."""
        return state.memory["log_density"]

    def parameters(self, state: State, first_step: int, n_steps: int) -> dict[str, Any]:
        """Return the parameters of the native run."""
        return {
            "step_size": self.step_size,
            "friction": self.friction,
            "beta": self.beta,
            "velocity": state.memory["velocity"],
        }

    def step(self, state: State, step: int | Tensor) -> Tensor:
        """Take one step on a torch target."""
        x, velocity = state.x, state.memory["velocity"]
        value, score = state.memory["log_density"], state.memory["score"]
        before = value.clone()
        h, beta = column(chosen_step(self.step_size, self), x), column(self.beta, x)
        angle = torch.as_tensor(h * column(self.friction, x), dtype=torch.float64)
        keep = torch.exp(-angle).to(x.dtype)
        spread = (-torch.expm1(-2 * angle) / beta).sqrt().to(x.dtype)
        v = velocity + 0.5 * h * score
        halfway = x + 0.5 * h * v
        v = keep * v + spread * normals(state, step, random.PURPOSES["momentum"])
        proposed = halfway + 0.5 * h * v
        next_value, next_score = _evaluated(state, proposed)
        v = v + 0.5 * h * next_score
        # a step is taken whole or not at all
        taken = _ops.rows(proposed.isfinite() & v.isfinite()).all(1)
        finite = column(taken, x)
        proposed = torch.where(finite, proposed, torch.nan)
        velocity.copy_(torch.where(finite, v, velocity))
        score.copy_(torch.where(finite, next_score, score))
        value.copy_(torch.where(taken, next_value, value))
        state.commit(proposed)
        return before

    def trial(self, state: State, step: int) -> Callable[[], Tensor]:
        """Return what ends a warm-up's next step by a Metropolis test.

        Where it refuses the chain goes back and its velocity turns around, so that steps that are
        too long lead nowhere (A. M. Horowitz (1991), Physics Letters B 268).
        """
        x, before = state.x.clone(), {k: v.clone() for k, v in self._memory(state).items()}
        n_refused = state.counts.n_nonfinite.clone()

        def end() -> Tensor:
            now, h = self._memory(state), column(chosen_step(self.step_size, self), x)
            kicked = before["velocity"] + 0.5 * h * before["score"]
            noisy = now["velocity"] - 0.5 * h * now["score"]
            twice = kicked**2 - before["velocity"] ** 2 + now["velocity"] ** 2 - noisy**2
            value, next_value = before["log_density"], now["log_density"]
            gained = (next_value - value).double() - row_sums(twice) / 2
            # What rounding of the log-density may make of nothing is nothing.
            rounded = torch.finfo(value.dtype).eps * value.double().abs()
            gained = torch.where(gained.abs() <= rounded, 0.0, gained)
            accept = _ops.elementwise_math("exp", (self.beta * gained).clamp(max=0.0))
            taken = (state.counts.n_nonfinite == n_refused) & accept.isfinite()
            accept = torch.where(taken, accept, 0.0)
            refused = uniforms(state, step, random.PURPOSES["accept"]) >= accept
            before["velocity"].neg_()
            for to, back in ((state.x, x), *((v, before[k]) for k, v in state.memory.items())):
                to.copy_(torch.where(column(refused, to), back, to))
            return accept

        return end

    def _memory(self, state: State) -> dict[str, Tensor]:
        """Return the velocity, the log-density and the score at the state."""
        if not self.runs_on(state.target):
            return state.memory
        law, rows = cast(NativeTarget, state.target), _ops.rows(state.x)
        score = law.score(rows).view_as(state.x)
        return {**state.memory, "log_density": law.log_density(rows), "score": score}

    def with_step(self, step_size: Tensor | float) -> UnderdampedLangevin:
        """Return the kernel with a step size, or one a chain."""
        return self._with(step_size=step_size)

    def with_metric(self, covariance: Tensor) -> UnderdampedLangevin:
        """Return the kernel itself: it has no metric."""
        return self

    def first_guess(self, dim: int) -> float:
        """Return the step size that a warm-up begins with."""
        return mean_of(self.step_size, 0.3 / max(dim, 1) ** (1 / 6))

    def finished(self, state: State) -> UnderdampedLangevin:
        """Return the kernel with the last velocity."""
        return self._with(velocity=state.memory["velocity"])
