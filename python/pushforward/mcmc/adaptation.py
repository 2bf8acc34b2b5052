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

_GROUP = 1024
_DENSE_UP_TO = 64
_SHORT = 20


class Tunable(Protocol):
    """What a warm-up asks of a kernel."""

    target_accept: float
    metric_choice: str
    """``"dense"``, ``"diagonal"``, ``"auto"`` or ``"unit"``: what a warm-up finds."""

    def at_first(self) -> Tunable:
        """Return the kernel to use before there is a metric."""
        ...

    def first_guess(self, dim: int) -> float:
        """Return the step size to begin with, in units of the metric."""
        ...

    def with_step(self, step_size: float) -> Tunable:
        """Return the kernel with a step size, in units of the metric."""
        ...

    def with_metric(self, covariance: Tensor) -> Tunable:
        """Return the kernel in the coordinates of a covariance ``(dim, dim)`` or ``(dim,)``."""
        ...


def pooled_sum(rows: Tensor, chain_offset: int) -> Tensor:
    """Return the sum over dim 0, group by group of global chain indices."""
    first = (-chain_offset) % _GROUP
    parts = [rows[:first], *rows[first:].split(_GROUP)] if first < len(rows) else [rows]
    total = torch.zeros(rows.shape[1:], dtype=torch.float64, device=rows.device)
    for part in parts:
        total = total + part.double().sum(0)
    return total


class DualAveraging:
    """Finds the step size whose acceptance probability is ``target`` on average."""

    def __init__(self, step_size: float, target: float) -> None:
        self._target = target
        self.restart(step_size)

    def restart(self, step_size: float) -> None:
        """Begin anew from a step size."""
        self._mu = math.log(10 * step_size)
        self._error = self._mean_log = 0.0
        self._n = 0
        self.step_size = step_size

    def update(self, accept: float) -> None:
        """Take the mean acceptance probability at the present step size."""
        self._n += 1
        error = self._target - (accept if math.isfinite(accept) else 0.0)
        self._error += (error - self._error) / (self._n + 10)
        log_step = self._mu - math.sqrt(self._n) / 0.05 * self._error
        log_step = min(max(log_step, -60.0), 60.0)
        weight = self._n**-0.75
        self._mean_log += weight * (log_step - self._mean_log)
        self.step_size = math.exp(log_step)

    def numbers(self) -> list[float]:
        """Return what a checkpoint holds."""
        return [self._mu, self._error, self._mean_log, float(self._n), self.step_size]

    def restore(self, numbers: list[float]) -> None:
        """Put back what a checkpoint held."""
        self._mu, self._error, self._mean_log, n, self.step_size = numbers
        self._n = int(n)

    @property
    def mean_step_size(self) -> float:
        """The average over the later steps: the result."""
        return math.exp(self._mean_log) if self._n > 0 else self.step_size


class Covariance:
    """Mean and covariance of states ``(n_chains, dim)``, taken in one after another, in float64."""

    def __init__(self, dim: int, *, dense: bool, device: torch.device) -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        shape = (dim, dim) if dense else (dim,)
        self._squares = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, x: Tensor, chain_offset: int) -> None:
        """Take in the states of all chains."""
        rows = _ops.rows(x).double()
        n = len(rows)
        mean = pooled_sum(rows, chain_offset) / n
        away = rows - mean
        if self._squares.ndim == 1:
            squares = pooled_sum(away.square(), chain_offset)
        else:
            squares = torch.zeros_like(self._squares)
            for part in away.split(_GROUP):
                squares = squares + part.mT @ part
        shift = mean - self.mean
        outer = shift.square() if self._squares.ndim == 1 else torch.outer(shift, shift)
        self._squares += squares + outer * (self.n * n / (self.n + n))
        self.mean += shift * (n / (self.n + n))
        self.n += n

    def covariance(self) -> Tensor:
        """Return the covariance, or the variances, of what was taken in."""
        return self._squares / max(self.n - 1, 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds."""
        return {"mean": self.mean, "squares": self._squares}

    def restore(self, tensors: dict[str, Tensor], n: int) -> None:
        """Put back what a checkpoint held after ``n`` states."""
        self.n = n
        self.mean.copy_(tensors["mean"])
        self._squares.copy_(tensors["squares"])

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
        first, last = int(0.15 * n_steps), int(0.1 * n_steps)
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


class WarmUp:
    """Tunes a kernel over ``n_steps`` steps."""

    def __init__(self, kernel: Tunable, x: Tensor, n_steps: int, chain_offset: int) -> None:
        dim = math.prod(x.shape[1:])
        self._kernel, self._offset, self._n = kernel, chain_offset, 0
        self._search = DualAveraging(kernel.first_guess(dim), kernel.target_accept)
        choice = kernel.metric_choice
        self._dense = choice == "dense" or (choice == "auto" and dim <= _DENSE_UP_TO)
        self._dim, self._device = dim, x.device
        self._first, self._ends = windows(n_steps)
        if choice == "unit":
            self._ends = []
        self._early = self._ends[0] if self._ends else self._first
        self._states = self._new_states()
        self._covariance: Tensor | None = None
        if n_steps < _SHORT:
            warnings.warn(
                f"warmup: {n_steps} steps are too few to adapt; expected at least {_SHORT}",
                RuntimeWarning,
                stacklevel=4,
            )

    def _new_states(self) -> Covariance:
        return Covariance(self._dim, dense=self._dense, device=self._device)

    @property
    def kernel(self) -> Tunable:
        """The kernel for the next step."""
        kernel = self._kernel.at_first() if self._n < self._early else self._kernel
        return kernel.with_step(self._search.step_size)

    @property
    def result(self) -> Tunable:
        """The kernel that was found."""
        return self._kernel.with_step(self._search.mean_step_size)

    def update(self, accepted: Tensor, x: Tensor) -> None:
        """Take in the acceptance probabilities ``(n_chains,)`` of a step and the state after it."""
        if len(x) == 0:
            return
        self._n += 1
        self._search.update(float(pooled_sum(accepted, self._offset)) / len(accepted))
        if not self._ends:
            return
        if self._n > self._first:
            self._states.add(x, self._offset)
        if self._n == self._ends[0]:
            if self._states.n > 1:
                self._use(self._states.estimate())
                self._search.restart(self._kernel.first_guess(self._dim))
            self._states = self._new_states()
            self._ends = self._ends[1:]

    def _use(self, covariance: Tensor) -> None:
        self._covariance = covariance
        self._kernel = self._kernel.with_metric(covariance)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds."""
        numbers = torch.tensor(
            [*self._search.numbers(), float(self._n), float(self._states.n)], dtype=torch.float64
        )
        held = {"numbers": numbers, **self._states.tensors()}
        return held if self._covariance is None else {**held, "covariance": self._covariance}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what a checkpoint held."""
        *search, n, n_states = tensors["numbers"].tolist()
        self._search.restore(search)
        self._n = int(n)
        self._ends = [end for end in self._ends if end > self._n]
        self._states.restore(tensors, int(n_states))
        if "covariance" in tensors:
            self._use(tensors["covariance"].to(self._device))
