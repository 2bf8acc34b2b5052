# SPDX-License-Identifier: Apache-2.0
"""What the driver asks of a Markov chain kernel, and what kernels share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from pushforward import _ops
from pushforward.interrupts import Interrupt
from pushforward.targets import NativeTarget, Target
from pushforward.targets.base import number
from pushforward.targets.torch_targets import evaluate

Native = tuple[str, dict[str, Any]]
"""The name of a native run and its parameters."""


@dataclass(eq=False)
class State:
    """What a run changes as it goes.

    Attributes:
        target: the law.
        x: state ``(n_chains, *event)``, changed in place.
        seed: of the run.
        chain_offset: global index of the first chain.
        counts: counts and sums of each chain.
        moments: the streaming sums, or None while nothing is recorded.
        memory: tensors that a kernel keeps from step to step, by name.
        raised: which rows raised in the last evaluation, ``(n_chains,)``, or None if none did.
            Their log-density is -infinity and their score NaN; a step there is refused and counts
            as nonfinite.
        good: where a torch target did not raise, like ``x``, once it was evaluated: rows that
            stand in for others while those that raise are looked for.
        interrupt: is held from the change of ``x`` until the run has taken in the step.
        place: gives where a step marks the chains that take its proposal and keeps a copy, which
            waits for the streaming sums, or Nones if it need not; None where nothing waits.

    """

    target: Target
    x: Tensor
    seed: int
    chain_offset: int
    counts: _ops.Counts
    moments: _ops.BatchMoments | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    raised: Tensor | None = None
    good: Tensor | None = None
    interrupt: Interrupt = field(default_factory=Interrupt)
    place: Callable[[], _ops.Place] | None = None

    def evaluate(self, x: Tensor, *, score: bool = True) -> tuple[Tensor, Tensor]:
        """Return the log-density and the score at ``x``; see :attr:`raised` for rows that raise."""
        good = self.good
        value, gradient, self.raised = evaluate(self.target, x, score=score, good=good)
        if self.raised is None:
            if good is None:
                self.good = x.detach().clone()  # x may be the state, which changes
        elif good is not None:
            self.good = torch.where(_ops.column(self.raised, x), good, x)
        return value, gradient

    def commit(self, proposed: Tensor) -> None:
        """Take proposals where they are finite."""
        self.interrupt.hold()
        taken, kept = self._place()
        _ops.commit_(self.x, proposed, self.counts.n_nonfinite, self._sums, taken=taken, kept=kept)

    def accept(
        self, step: int | Tensor, proposed: Tensor, log_density: Tensor, **more: Any
    ) -> Tensor:
        """Accept or refuse proposals; return the log-density before.

        Args:
            step: index of the step.
            proposed: the proposals.
            log_density: the target's there, as evaluated last.
            more: of :func:`pushforward._ops.accept_`: score, correction, step_size, beta.

        """
        at = self.memory["log_density"]
        before = at.clone()
        if self.raised is not None:
            log_density = log_density.masked_fill(self.raised, torch.nan)  # refused, and counted
        self.interrupt.hold()
        taken, kept = self._place()
        _ops.accept_(
            self.x,
            proposed.contiguous(),
            at,
            log_density.contiguous(),
            counts=self.counts,
            moments=self._sums,
            taken=taken,
            kept=kept,
            **self.where(step),
            **more,
        )
        return before

    def _place(self) -> _ops.Place:
        return (None, None) if self.place is None else self.place()

    @property
    def _sums(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """What a step adds to; batches are closed by the recorder."""
        return None if self.moments is None else self.moments[:3]

    def where(self, step: int | Tensor) -> dict[str, Any]:
        """Return the arguments that say which noise a step reads."""
        return {"seed": self.seed, "step": step, "chain_offset": self.chain_offset}

    def tensors(self) -> list[Tensor]:
        """Return all tensors that a step changes."""
        moments = [] if self.moments is None else self.moments.tensors()
        return [self.x, *self.counts.tensors(), *moments, *self.memory.values()]


class Kernel(ABC):
    """A Markov kernel: a frozen description. The run's changing parts are in a :class:`State`."""

    target_accept: float | None = None
    """Mean acceptance probability that a warm-up aims at; None if there is nothing to adapt."""

    accepts: ClassVar[bool] = False
    """Whether a step accepts or refuses, so that each counts in the statistics."""

    uses_score: ClassVar[bool] = True
    """Whether a step looks at the score."""

    stays_at_no_number: ClassVar[bool] = False
    """Whether no step leads away from where the log-density, or a score that is used, is no finite
    number."""

    tuned: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that a warm-up finds."""

    name: ClassVar[str]
    """Of the native run."""

    @property
    def title(self) -> str:
        """What the kernel's class is called where people read it."""
        return type(self).__name__

    @property
    def evaluations(self) -> int:
        """How often a step evaluates the target at most."""
        return 1

    @abstractmethod
    def prepare(self, x: Tensor) -> Kernel:
        """Return the kernel with its parameters checked against the state ``x`` and in its type."""

    @abstractmethod
    def parameters(self, state: State, first_step: int, n_steps: int) -> dict[str, Any]:
        """Return the parameters of the native run."""

    def runs_on(self, target: Target) -> bool:
        """Whether whole runs on ``target`` are native."""
        return isinstance(target, NativeTarget)

    def begin(self, state: State) -> None:  # noqa: B027  # most kernels remember nothing
        """Fill the state's memory before the first step."""

    def at_first(self) -> Self:
        """Return the kernel to use before a warm-up knows anything of the target."""
        return self

    def found(self) -> dict[str, Tensor]:
        """Return what a warm-up has found, as a checkpoint holds it: numbers are 0-d tensors."""
        values = {name: getattr(self, name) for name in self.tuned}
        return {
            name: value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
            for name, value in values.items()
            if isinstance(value, (Tensor, float, int))
        }

    def with_found(self, found: Mapping[str, Tensor]) -> Self:
        """Return the kernel with what a checkpoint held."""
        return self._with(**{k: float(v) if v.ndim == 0 else v for k, v in found.items()})

    @abstractmethod
    def step(self, state: State, step: int | Tensor) -> Tensor:
        """Take one step on a torch target, in place; return the log-density before it."""

    @abstractmethod
    def log_density(self, state: State) -> Tensor:
        """Return the log-density at the state of a run on a torch target."""

    def trial(self, state: State, step: int) -> Callable[[], Tensor]:
        """Return what ends a warm-up's next step and gives its acceptance probabilities.

        They have the shape ``(n_chains,)``.
        """
        before = state.counts.accepted.clone()
        return lambda: state.counts.accepted - before

    def finished(self, state: State) -> Kernel:
        """Return the kernel with what it needs to go on from the state."""
        return self

    def _with(self, **changes: Any) -> Self:
        """Return a copy with other parameters, which are known to be right."""
        other = copy(self)
        for name, value in changes.items():
            object.__setattr__(other, name, value)
        return other


class Metropolised(Kernel):
    """A kernel that accepts or refuses: it remembers the log-density (and score) at its state."""

    accepts: ClassVar[bool] = True
    stays_at_no_number: ClassVar[bool] = True

    def begin(self, state: State) -> None:
        """Evaluate the target at the start."""
        value, score = state.evaluate(state.x, score=self.uses_score)
        state.memory["log_density"] = value.clone()
        if self.uses_score:
            state.memory["score"] = score.clone()

    def log_density(self, state: State) -> Tensor:
        """Return the log-density at the state."""
        return state.memory["log_density"]


def check_positive(value: Any, name: str) -> None:
    """Raise unless ``value`` is a positive number, or a tensor of one value or one a chain."""
    if isinstance(value, Tensor):
        if not value.is_floating_point() or value.ndim > 1:
            raise ValueError(
                f"{name}: expected a floating point tensor of shape () or (n_chains,), got "
                f"{value.dtype} of shape {tuple(value.shape)}"
            )
        if not bool((value.isfinite() & (value > 0)).all()):
            raise ValueError(f"{name}: expected positive finite values, got {value}")
    elif isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: expected a number or a tensor, got {type(value).__name__}")
    elif not (math.isfinite(float(value)) and float(value) > 0):
        raise ValueError(f"{name}: expected a positive finite number, got {float(value)}")


def check_share(value: Any, name: str) -> float:
    """Return a number as a float; raise unless it lies between 0 and 1."""
    share = number(value, name)
    if not 0 < share < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, got {share}")
    return share


def per_chain(value: Tensor | float, x: Tensor, name: str) -> Tensor | float:
    """Return a coefficient in the type of ``x``: a number, or one value a chain."""
    if not isinstance(value, Tensor):
        return float(value)
    if value.ndim == 1 and len(value) != len(x):
        raise ValueError(
            f"{name}: expected one value a chain, shape ({len(x)},), got {tuple(value.shape)}"
        )
    converted = value.detach().to(x)
    check_positive(converted, name)  # a positive float64 may be zero in float32
    return converted


def held(value: Any) -> Any:
    """Return a copy of a tensor that the caller may change later; other values as they are."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def chosen_step(
    step_size: Tensor | float | None, kernel: Kernel, name: str = "step_size"
) -> Tensor | float:
    """Return the step size; raise ValueError if it was left for a warm-up to find."""
    if step_size is None:
        raise ValueError(f"{name}: expected one for {kernel.title}, since warmup is 0, got None")
    return step_size


def mean_of(step_size: Tensor | float | None, otherwise: float) -> float:
    """Return the mean of the step sizes that were given, if any were."""
    if step_size is None:
        return otherwise
    return float(torch.as_tensor(step_size).double().mean())


def normals(state: State, step: int | Tensor, purpose: int) -> Tensor:
    """Return the standard normals of a step, like the state."""
    zeros = torch.zeros_like(state.x)
    _ops.proposal_(zeros, zeros, scale=1.0, purpose=purpose, **state.where(step))
    return zeros


def row_sums(x: Tensor) -> Tensor:
    """Return the sum of each row of ``x`` in float64, whose bits no number of threads changes."""
    columns = _ops.rows(x).mT.contiguous()
    totals = torch.zeros(columns.shape[1], dtype=torch.float64, device=x.device)
    return _ops.add_chain_sums_(totals, columns[None], chain_offset=0)


def uniforms(state: State, step: int | Tensor, purpose: int) -> Tensor:
    """Return the uniform number of a step for each chain, ``(n_chains,)``."""
    out = state.x.new_empty(len(state.x), 1)
    _ops.fill_(
        out,
        uniform=True,
        seed=state.seed,
        purpose=purpose,
        chain_offset=state.chain_offset,
        start=step,
    )
    return out[:, 0]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of ``device``; put back their states at the end.

    No other device's generator changes, as it would by ``torch.manual_seed``.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
