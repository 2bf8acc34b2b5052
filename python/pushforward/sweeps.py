# SPDX-License-Identifier: Apache-2.0
"""Native runs on lattices, as the driver takes them: many sweeps of all fields in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from torch import Tensor

from pushforward import lattice
from pushforward._ops.lattice import Phi4Move, phi4_run
from pushforward.lattice.kernels import move_clusters, sweep
from pushforward.mcmc import HMC, MALA, Kernel, Langevin, State
from pushforward.mcmc.base import mean_of
from pushforward.parameters import NamedTarget
from pushforward.targets import Target

__all__ = ["Sweeps", "as_kernel", "native_sweeps"]


Sweeps: TypeAlias = Callable[[State, int, int, int], None]
"""Takes native sweeps and adds them to the state's streaming sums.

Called with the state, the index of the first step, how many to take, and how many were recorded
before.
"""


@dataclass(frozen=True, eq=False)
class LatticeKernel(Kernel):
    """A kernel of :mod:`pushforward.lattice` in the driver's terms."""

    moves: Any
    name: ClassVar[str] = "lattice"

    @property
    def title(self) -> str:
        """The class of the lattice kernel."""
        return type(self.moves).__name__

    def prepare(self, x: Tensor) -> Kernel:
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
        self.moves.advance(state.x, state.target, **_steps(state, int(step), 1))
        return before

    def log_density(self, state: State) -> Tensor:
        """Return the log-density at the state."""
        return known_log_density(state.target, state.x)

    def finished(self, state: State) -> Any:
        """Return the lattice kernel itself."""
        return self.moves


class SpinFlips(LatticeKernel):
    """Metropolis of spins, whose acceptance is the share of them that a sweep turns over."""

    accepts: ClassVar[bool] = True


class SiteMoves(LatticeKernel):
    """Metropolis moves of the sites of phi^4 fields, whose width a warm-up finds."""

    accepts: ClassVar[bool] = True
    target_accept: float = 0.5
    metric_choice: ClassVar[str] = "unit"
    steps_per_chain: ClassVar[bool] = True
    tuned: ClassVar[tuple[str, ...]] = ("width",)

    @property
    def width(self) -> Tensor | float | None:
        """Of the moves, or None for a warm-up to find."""
        return self.moves.width

    def prepare(self, x: Tensor) -> SiteMoves:
        """Return the kernel with its width checked against the state ``x``."""
        self.moves.check_width(x)
        return self

    def with_step(self, step_size: Tensor | float) -> SiteMoves:
        """Return the kernel with moves of another width, or of one a lattice."""
        return self._with(width=step_size)

    def _with(self, **changes: Any) -> SiteMoves:
        return SiteMoves(lattice.Metropolis(**{"width": self.width, **changes}))

    def with_metric(self, covariance: Tensor) -> SiteMoves:
        """Return the kernel itself: it has no metric."""
        return self

    def first_guess(self, dim: int) -> float:
        """Return the width that a warm-up begins with."""
        return mean_of(self.width, 1.0)


def as_kernel(kernel: Any, target: Target) -> Kernel:
    """Return what a caller passed as a kernel.

    Raises:
        TypeError: it is none.
        ValueError: it moves through the reals and the target's states are spins.

    """
    if isinstance(kernel, Kernel):
        if isinstance(target, lattice.Ising):
            raise ValueError(
                "kernel: expected lattice.Metropolis, lattice.HeatBath, lattice.Wolff or "
                "lattice.SwendsenWang for Ising, whose spins are +1 and -1, got "
                f"{type(kernel).__name__}"
            )
        return kernel
    if isinstance(kernel, lattice.Metropolis) and isinstance(target, lattice.Phi4):
        return SiteMoves(kernel)
    if isinstance(kernel, lattice.Metropolis) and isinstance(target, lattice.Ising):
        return SpinFlips(kernel)
    moves = (lattice.Metropolis, lattice.HeatBath, lattice.Wolff, lattice.SwendsenWang)
    if isinstance(kernel, moves) and not isinstance(target, NamedTarget):
        return LatticeKernel(kernel)
    raise TypeError(f"kernel: expected a kernel such as Langevin, got {type(kernel).__name__}")


def known_log_density(target: Any, x: Tensor) -> Tensor:
    """Return the log-density at a state that moves have made, whose spins need no look."""
    if isinstance(target, lattice.Ising):
        return target.log_density_of_spins(x)
    return target.log_density(x)


def native_sweeps(kernel: Kernel, target: Target) -> Sweeps | None:
    """Return the native run of ``kernel`` on a lattice, or None where there is none."""
    if isinstance(target, lattice.Phi4):
        return _phi4_sweeps(kernel, target)
    if not isinstance(kernel, LatticeKernel):
        return None
    moves = kernel.moves
    if isinstance(moves, lattice.Metropolis):
        return _spins(sweep, accepts=True, heat_bath=False)
    if isinstance(moves, lattice.HeatBath):
        return _spins(sweep, heat_bath=True)
    return _spins(move_clusters, wolff=isinstance(moves, lattice.Wolff))


def _steps(state: State, first_step: int, n_steps: int) -> dict[str, int]:
    return {
        "seed": state.seed,
        "first_step": first_step,
        "n_steps": n_steps,
        "chain_offset": state.chain_offset,
    }


def _phi4_sweeps(kernel: Kernel, target: lattice.Phi4) -> Sweeps | None:
    if isinstance(kernel, SiteMoves) and kernel.width is not None:
        return _phi4("metropolis", kernel.width, target)
    if isinstance(kernel, Langevin) and _is_one(kernel.beta):
        return _phi4("langevin", kernel.step_size, target)
    if isinstance(kernel, MALA) and _is_one(kernel.beta) and kernel.step_size is not None:
        return _phi4("mala", kernel.step_size, target)
    if isinstance(kernel, HMC) and kernel.has_unit_metric and kernel.step_size is not None:
        trajectory = {"n_leapfrog": kernel.n_leapfrog, "jitter": kernel.jitter}
        return _phi4("hmc", kernel.step_size, target, **trajectory)
    return None


def _spins(move: Callable[..., None], *, accepts: bool = False, **how: bool) -> Sweeps:
    def take(state: State, first_step: int, n_steps: int, steps_done: int) -> None:
        counts, shares = state.counts, {}
        if accepts:
            shares = {
                "accepted": counts.accepted,
                "accepted_squares": counts.accepted_squares,
            }
        move(
            state.x,
            state.target,
            **how,
            **shares,
            moments=state.moments,
            steps_done=steps_done,
            **_steps(state, first_step, n_steps),
        )

    return take


def _is_one(beta: Tensor | float) -> bool:
    return not isinstance(beta, Tensor) and beta == 1.0


def _phi4(
    move: Phi4Move, step_size: Tensor | float, target: lattice.Phi4, **trajectory: Any
) -> Sweeps:
    def take(state: State, first_step: int, n_steps: int, steps_done: int) -> None:
        counts, accepts = state.counts, move != "langevin"
        phi4_run(
            move,
            state.x,
            target.native_parameters(state.x),
            step_size,
            accepted=counts.accepted if accepts else None,
            accepted_squares=counts.accepted_squares if accepts else None,
            n_nonfinite=counts.n_nonfinite,
            n_divergent=counts.n_divergent if move == "hmc" else None,
            moments=state.moments,
            steps_done=steps_done,
            **trajectory,
            **_steps(state, first_step, n_steps),
        )

    return take
