# SPDX-License-Identifier: Apache-2.0
"""Native runs on lattices, as the driver takes them: many sweeps of all fields in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from pushforward import lattice
from pushforward._ops.lattice import Phi4Move, phi4_run
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
    if isinstance(kernel, Langevin) and _is_one(kernel.beta):
        return _phi4("langevin", kernel.step_size, target)
    if isinstance(kernel, MALA) and _is_one(kernel.beta) and kernel.step_size is not None:
        return _phi4("mala", kernel.step_size, target)
    if isinstance(kernel, HMC) and kernel.is_plain and kernel.step_size is not None:
        return _phi4("hmc", kernel.step_size, target, n_leapfrog=kernel.n_leapfrog)
    return None


def _is_one(beta: Tensor | float) -> bool:
    return not isinstance(beta, Tensor) and beta == 1.0


def _phi4(
    move: Phi4Move, step_size: Tensor | float, target: lattice.Phi4, n_leapfrog: int = 1
) -> Sweeps:
    def sweep(state: State, first_step: int, n_steps: int) -> None:
        x, counts = state.x, state.counts
        accepts = move != "langevin"
        phi4_run(
            move,
            x,
            target.native_parameters(x),
            step_size,
            seed=state.seed,
            first_step=first_step,
            n_steps=n_steps,
            chain_offset=state.chain_offset,
            n_leapfrog=n_leapfrog,
            accepted=counts.accepted if accepts else None,
            accepted_squares=counts.accepted_squares if accepts else None,
            n_nonfinite=counts.n_nonfinite,
        )

    return sweep
