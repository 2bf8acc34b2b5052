# SPDX-License-Identifier: Apache-2.0
"""A warm-up: the step size by dual averaging, the metric from the states of all chains.

Both are pooled over chains in one fixed order: sums over aligned groups of 1024 global chain
indices in float64, then the groups in order.

References: M. D. Hoffman and A. Gelman (2014), The No-U-Turn sampler, JMLR 15, section 3.2; the
windows of the Stan reference manual, chapter MCMC sampling, Automatic parameter tuning.
"""

from __future__ import annotations

import math
import warnings
from typing import Protocol

import torch
from torch import Tensor

from pushforward import _ops

_DENSE_UP_TO = 64
_SHORT = 20
_FEW, _MANY, _A_COORDINATE = 20, 50, 5


class Tunable(Protocol):
    """What a warm-up asks of a kernel."""

    target_accept: float
    metric_choice: str
    """``"dense"``, ``"diagonal"``, ``"auto"`` or ``"unit"``: what a warm-up finds."""
    steps_per_chain: bool
    """Whether each chain may have a step size of its own."""

    def at_first(self) -> Tunable:
        """Return the kernel to use before there is a metric."""
        ...

    def first_guess(self, dim: int) -> float:
        """Return the step size to begin with, in units of the metric."""
        ...

    def with_step(self, step_size: Tensor | float) -> Tunable:
        """Return the kernel with a step size, in units of the metric; or one a chain."""
        ...

    def with_metric(self, covariance: Tensor) -> Tunable:
        """Return the kernel in the coordinates of a covariance ``(dim, dim)`` or ``(dim,)``."""
        ...


class DualAveraging:
    """Finds the step sizes whose acceptance probability is ``target`` on average.

    Args:
        step_sizes: to begin with, float64, one for all chains ``(1,)`` or one each ``(n_chains,)``.
        target: the mean acceptance probability aimed at.
        reach: how many times the first step sizes it is drawn to at first: large where they are a
            guess, 1 where they are near.

    """

    def __init__(self, step_sizes: Tensor, target: float, reach: float = 10.0) -> None:
        self._target, self._n = target, 0
        self.step_sizes = step_sizes
        self._recent = torch.zeros_like(step_sizes)
        self._center = _ops.elementwise_math("log", reach * step_sizes)
        self._error, self._mean_log = torch.zeros_like(step_sizes), torch.zeros_like(step_sizes)

    def update(self, accept: Tensor) -> None:
        """Take the mean acceptance probabilities at the present step sizes."""
        self._n += 1
        accept = torch.where(accept.isfinite(), accept, 0.0)
        self._recent += (accept - self._recent) / 8
        error = self._target - accept
        self._error += (error - self._error) / (self._n + 10)
        log_step = self._center - math.sqrt(self._n) / 0.05 * self._error
        log_step = log_step.clamp(-60.0, 60.0)
        self._mean_log += self._n**-0.75 * (log_step - self._mean_log)
        self.step_sizes = _ops.elementwise_math("exp", log_step)

    def numbers(self) -> Tensor:
        """Return what a checkpoint holds, ``(6, n)``."""
        count = torch.full_like(self._error, float(self._n))
        held = (self._center, self._error, self._mean_log, count, self.step_sizes, self._recent)
        return torch.stack(held)

    def restore(self, numbers: Tensor) -> None:
        """Put back what a checkpoint held."""
        self._center, self._error, self._mean_log, count, steps, recent = numbers.clone()
        self._n = int(count.max()) if len(count) else 0
        self.step_sizes, self._recent = steps, recent

    @property
    def late_acceptance(self) -> Tensor:
        """The mean acceptance probabilities over about the last eight steps, once there are any."""
        return self._recent / (1 - (7 / 8) ** self._n)

    @property
    def mean_step_sizes(self) -> Tensor:
        """The averages over the later steps: the result."""
        return _ops.elementwise_math("exp", self._mean_log) if self._n > 0 else self.step_sizes


class Covariance:
    """Covariance, or variances, of states ``(n_chains, *event)`` taken in one after another.

    Their distances from one of them are summed by :func:`pushforward._ops.pooled.add_chain_sums_`,
    so that neither threads nor how states come in blocks changes a bit.
    """

    def __init__(self, dim: int, *, dense: bool, device: torch.device) -> None:
        self.n = 0  # states times chains
        self._dim = dim
        self._products: _ops.Products = "all" if dense else "squares"
        self._shift = torch.zeros(dim, dtype=torch.float64, device=device)
        width = _ops.width_of(dim, self._products)
        self._sums = torch.zeros(width, dtype=torch.float64, device=device)

    def add(self, states: Tensor, chain_offset: int) -> None:
        """Take in states ``(n_states, n_chains, *event)`` of chains ``chain_offset, ...``."""
        if states.dtype not in (torch.float32, torch.float64):
            states = states.double()
        n = len(states) * states.shape[1]
        if n == 0:
            return
        if self.n == 0:
            self._shift.copy_(states[0, 0].reshape(-1))
        _ops.add_chain_sums_(
            self._sums,
            states,
            shift=self._shift,
            products=self._products,
            chain_offset=chain_offset,
        )
        self.n += n

    def covariance(self) -> Tensor:
        """Return the covariance ``(dim, dim)``, or the variances, of what was taken in."""
        total, squares = self._sums[: self._dim], self._sums[self._dim :]
        n, dense = max(self.n, 1), self._products == "all"
        if dense:
            lower = squares.view(self._dim, self._dim).tril()
            squares = lower + lower.tril(-1).mT
            centred = squares - torch.outer(total, total) / n
        else:
            centred = squares - total.square() / n
        # Where a coordinate never moved, rounding is all that is left.
        at = (squares.diagonal(), centred.diagonal()) if dense else (squares, centred)
        moved = at[1] > 8 * torch.finfo(torch.float64).eps * at[0]
        moved = torch.outer(moved, moved) if dense else moved
        return torch.where(moved, centred, 0.0) / max(self.n - 1, 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds."""
        return {"shift": self._shift, "sums": self._sums}

    def restore(self, tensors: dict[str, Tensor], n: int) -> None:
        """Put back what a checkpoint held after ``n`` states of chains."""
        self.n = n
        self._shift.copy_(tensors["shift"])
        self._sums.copy_(tensors["sums"])

    def estimate(self) -> Tensor:
        """Return the variances or the covariance, its correlations shrunk a little towards none.

        They are shrunk more where there are few states for so many coordinates. Scaling a
        coordinate scales the estimate; one that never moved counts as 1.
        """
        raw = self.covariance()
        few = self.n < 20 * len(raw)
        trust = 1 - (5.0 if few else 0.005) / (self.n + 5)
        variances = raw if raw.ndim == 1 else raw.diagonal()
        variances = torch.where(variances > 0, variances, 1.0)
        if raw.ndim == 1:
            return variances
        return raw * trust + (variances - raw.diagonal() * trust).diag()


def windows(n_steps: int) -> tuple[int, list[int]]:
    """Return the length of the first phase and the steps at which the metric is taken anew."""
    first, last, base = 75, 50, 25
    if n_steps < first + last + base:
        first, last = int(0.15 * n_steps), min(_SHORT, n_steps // 2)
        base = n_steps - first - last
    ends, at, width = [], first, base
    while at + width <= n_steps - last:
        following = 2 * width
        if at + width + following > n_steps - last:  # no room for another: this one takes the rest
            width = n_steps - last - at
        at += width
        ends.append(at)
        width = following
    return first, ends


def states_needed(dim: int, *, dense: bool) -> int:
    """Return from how many states, steps times chains, a metric of ``dim`` coordinates is taken.

    A covariance of hardly more states than coordinates is all but singular: it takes five a
    coordinate, and at least 20. Variances know nothing of each other: 50 states, which give a
    standard deviation to a tenth, are enough for any number of them.
    """
    n = max(_FEW, _A_COORDINATE * dim)
    return n if dense else min(n, _MANY)


class WarmUp:
    """Tunes a kernel over ``n_steps`` steps.

    In the first part each chain has a step size of its own, so that those that start far out, where
    the law is steep, come in; what is found then is one step size for all.

    It warns where it is shorter than 20 steps, and where the last window of the metric has fewer
    states than :func:`states_needed`.

    Args:
        kernel: to begin with.
        x: the state, whose shape and device count.
        n_steps: steps of the warm-up.
        chain_offset: global index of the first chain.
        auto: the metric of a kernel that leaves the choice open.
        one_law: whether all chains have the same law; where they have not, each keeps a step size
            of its own.

    """

    def __init__(
        self,
        kernel: Tunable,
        x: Tensor,
        n_steps: int,
        chain_offset: int,
        *,
        auto: str = "auto",
        one_law: bool = True,
    ) -> None:
        dim = math.prod(x.shape[1:])
        self._kernel, self._offset = kernel, chain_offset
        self._n, self._n_steps = 0, n_steps
        choice = kernel.metric_choice if kernel.metric_choice != "auto" else auto
        self._dense = choice == "dense" or (choice == "auto" and dim <= _DENSE_UP_TO)
        self._dim, self._device = dim, x.device
        self._first, self._ends = windows(n_steps)
        if choice == "unit":
            self._ends = []
        self._early = self._ends[0] if self._ends else self._first
        each = kernel.steps_per_chain and self._early > 0 and len(x) > 0
        self._one_law = one_law or not each
        self._covariance: Tensor | None = None
        self._search = self._new_search(len(x) if each else 1)
        self._states = self._new_states()
        lacking = self._lacking(len(x))
        if lacking is not None:
            warnings.warn(
                f"warmup: {n_steps} steps are too few to adapt; expected at least {lacking}",
                RuntimeWarning,
                stacklevel=4,
            )

    def _lacking(self, n_chains: int) -> str | None:
        """Return what a warm-up should have at least, if it has less."""
        if self._n_steps < _SHORT:
            return str(_SHORT)
        if n_chains == 0 or not self._ends:
            return None
        window = self._ends[-1] - [self._first, *self._ends][-2]
        needed = states_needed(self._dim, dense=self._dense)
        if window * n_chains >= needed:
            return None
        kind = "dense" if self._dense else "diagonal"
        return (
            f"{needed} states (steps times chains) for a {kind} metric of {self._dim} coordinates, "
            f"got {window * n_chains} in the last window of {window} steps"
        )

    def _new_search(self, n: int, step_size: float | None = None) -> DualAveraging:
        """Return a search from the kernel's guess, or from a step size that was found."""
        near = step_size is not None or self._covariance is not None
        guess = self._kernel.first_guess(self._dim) if step_size is None else step_size
        steps = torch.full((n,), guess, dtype=torch.float64, device=self._device)
        return DualAveraging(steps, self._kernel.target_accept, reach=1.0 if near else 10.0)

    def _new_states(self) -> Covariance:
        return Covariance(self._dim, dense=self._dense, device=self._device)

    @property
    def kernel(self) -> Tunable:
        """The kernel for the next step."""
        kernel = self._kernel.at_first() if self._n < self._early else self._kernel
        return _with_steps(kernel, self._search.step_sizes)

    @property
    def result(self) -> Tunable:
        """The kernel that was found."""
        return _with_steps(self._kernel, self._search.mean_step_sizes)

    def update(self, accepted: Tensor, x: Tensor, dead: Tensor) -> None:
        """Take in what a step did.

        Args:
            accepted: acceptance probabilities ``(n_chains,)``.
            x: the state after the step.
            dead: the chains of which no step was finite so far: they say nothing of the others.

        """
        if len(x) == 0:
            return
        self._n += 1
        alive = ~dead
        some_are_dead = bool(dead.any()) and bool(alive.any())
        if len(self._search.step_sizes) == 1:
            heard = accepted[alive] if some_are_dead else accepted
            total = torch.zeros(1, dtype=torch.float64, device=accepted.device)
            _ops.add_chain_sums_(total, heard[None, :, None], chain_offset=self._offset)
            accepted = total / len(heard)
        self._search.update(accepted)
        if self._ends:
            self._take_in(x[alive] if some_are_dead else x)
        if self._n == self._early and self._one_law and len(self._search.step_sizes) > 1:
            middle = float(self._search.mean_step_sizes.median())
            self._search = self._new_search(1, middle)
        if self._n == self._n_steps:
            self._warn_of(self._search.late_acceptance)

    def _warn_of(self, acceptance: Tensor) -> None:
        target = self._kernel.target_accept
        if self._n_steps >= _SHORT and bool((acceptance < target / 3).any()):
            warnings.warn(
                f"warmup: after {self._n_steps} steps the acceptance probability is "
                f"{float(acceptance.min()):.2f}, expected about {target:g}; give it more steps",
                RuntimeWarning,
                stacklevel=2,
            )

    def _take_in(self, x: Tensor) -> None:
        """Look at the states; at the end of a window take the metric anew."""
        if self._n > self._first:
            self._states.add(x[None], self._offset)
        if self._n == self._ends[0]:
            if self._states.n > 1:
                self._use(self._states.estimate())
                self._search = self._new_search(len(x) if not self._one_law else 1)
            self._states = self._new_states()
            self._ends = self._ends[1:]

    def _use(self, covariance: Tensor) -> None:
        self._covariance = covariance
        self._kernel = self._kernel.with_metric(covariance)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds."""
        counts = torch.tensor([self._n, self._states.n])
        held = {"counts": counts, "search": self._search.numbers(), **self._states.tensors()}
        return held if self._covariance is None else {**held, "covariance": self._covariance}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what a checkpoint held."""
        self._n, n_states = tensors["counts"].tolist()
        self._search.restore(tensors["search"].to(self._device))
        self._ends = [end for end in self._ends if end > self._n]
        self._states.restore(tensors, n_states)
        if "covariance" in tensors:
            self._use(tensors["covariance"].to(self._device))


def _with_steps(kernel: Tunable, step_sizes: Tensor) -> Tunable:
    return kernel.with_step(float(step_sizes) if len(step_sizes) == 1 else step_sizes)
