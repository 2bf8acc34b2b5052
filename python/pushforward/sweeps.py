# SPDX-License-Identifier: Apache-2.0
"""Native runs on lattices, as the driver takes them: many sweeps of all fields in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pushforward import lattice
from pushforward._ops import lattice as lattice_ops
from pushforward.mcmc import HMC, MALA, Kernel, Langevin, State
from pushforward.targets import Target

__all__ = ["Sweeps", "as_kernel", "native_sweeps"]

Sweeps = Callable[[State, int, int], None]
"""Takes the state, the index of the first step and how many to take."""


@dataclass(frozen=True, eq=False)
class LatticeKernel(Kernel):
    """A kernel of :mod:`pushforward.lattice` in the driver's terms."""

    moves: Any
    name: ClassVar[str] = "lattice"

    def prepare(self, x: Tensor) -> LatticeKernel:
        """Return the kernel; what it needs of the target is checked at the start."""
        return self

    def begin(self, state: State) -> None:
        """Check the state under the target."""
        self.moves.check(state.target, state.x)

    def parameters(self, state: State, first_step: int, n_steps: int) -> dict[str, Any]:
        """Return nothing: sweeps are no run of a native target."""
        return {}

    def step(self, state: State, step: int | Tensor) -> Tensor:
        """Take one sweep; return the log-density before it."""
        before = self.log_density(state)
        self.sweep(state, int(step), 1)
        return before

    def sweep(self, state: State, first_step: int, n_steps: int) -> None:
        """Take ``n_steps`` sweeps."""
        self.moves.advance(
            state.x,
            state.target,
            seed=state.seed,
            first_step=first_step,
            n_steps=n_steps,
            chain_offset=state.chain_offset,
        )

    def log_density(self, state: State) -> Tensor:
        """Return the log-density at the state."""
        return state.target.log_density(state.x)

    def finished(self, state: State) -> Any:
        """Return the lattice kernel itself."""
        return self.moves


def as_kernel(kernel: Any) -> Kernel:
    """Return what a caller passed as a kernel.

    Raises:
        TypeError: it is none.

    """
    if isinstance(kernel, Kernel):
        return kernel
    moves = (lattice.Metropolis, lattice.HeatBath, lattice.Wolff, lattice.SwendsenWang)
    if isinstance(kernel, moves):
        return LatticeKernel(kernel)
    raise TypeError(f"kernel: expected a kernel such as Langevin, got {type(kernel).__name__}")


def native_sweeps(kernel: Kernel, target: Target) -> Sweeps | None:
    """Return the native run of ``kernel`` on a lattice, or None where there is none."""
    if isinstance(kernel, LatticeKernel):
        return kernel.sweep
    if not isinstance(target, lattice.Phi4):
        return None
    if isinstance(kernel, Langevin) and kernel.beta == 1.0:
        return _phi4(lattice_ops.phi4_langevin_run, kernel.step_size, target, accepts=False)
    if isinstance(kernel, MALA) and kernel.beta == 1.0 and kernel.step_size is not None:
        return _phi4(lattice_ops.phi4_mala_run, kernel.step_size, target)
    plain = isinstance(kernel, HMC) and kernel.is_plain
    if plain and isinstance(kernel, HMC) and kernel.step_size is not None:
        more: dict[str, Any] = {"n_leapfrog": kernel.n_leapfrog}
        return _phi4(lattice_ops.phi4_hmc_run, kernel.step_size, target, **more)
    return None


def _phi4(
    run: Callable[..., None],
    step_size: Tensor | float,
    target: lattice.Phi4,
    *,
    accepts: bool = True,
    **more: Any,
) -> Sweeps:
    def sweep(state: State, first_step: int, n_steps: int) -> None:
        given: dict[str, Any] = dict(more)
        x, counts = state.x, state.counts
        if accepts:  # the run adds to its own pair of sums, from the first step to the last
            pairs = torch.stack((counts.accepted, counts.accepted_squares), 1)
            given["accept"] = pairs
        run(
            x,
            target.native_parameters(x),
            step_size=step_size,
            seed=state.seed,
            first_step=first_step,
            n_steps=n_steps,
            chain_offset=state.chain_offset,
            n_nonfinite=counts.n_nonfinite,
            **given,
        )
        if accepts:
            counts.accepted.copy_(pairs[:, 0])
            counts.accepted_squares.copy_(pairs[:, 1])

    return sweep
