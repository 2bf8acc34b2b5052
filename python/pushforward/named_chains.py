# SPDX-License-Identifier: Apache-2.0
"""What a run whose states are dicts of tensors returns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pushforward import _ops
from pushforward.chains import Chains, inference_data
from pushforward.diagnostics import Summary
from pushforward.diagnostics.table import names_of
from pushforward.mcmc import Kernel
from pushforward.parameters import Parameters

if TYPE_CHECKING:
    import arviz
    from matplotlib.figure import Figure

__all__ = ["NamedChains"]

Named = dict[str, Tensor]
"""Tensors by the names of the parameters, in the order of the start."""


@dataclass(frozen=True, eq=False)
class NamedChains:
    """What :func:`pushforward.sample` returns where the start is a dict of tensors.

    It has what :class:`pushforward.Chains` has. What that gives for each coordinate is a dict here,
    with the names of the start in their order, of views of the flat tensors.

    Attributes:
        flat: the same result for flat states ``(n_chains, dim)``, in which the parameters lie one
            after the other, each row by row; also its ``tallies`` and its ``sketch``.
        parameters: names and shapes of the parameters.

    Example:
        >>> import pushforward as pf, torch
        >>> law = lambda x: -0.5 * (x["a"] ** 2 + (x["b"] - x["a"][:, None]).square().sum(1))
        >>> start = {"a": torch.zeros(200), "b": torch.zeros(200, 3)}
        >>> chains = pf.sample(law, pf.HMC(1.0, n_leapfrog=3), start, n_steps=50, seed=0)
        >>> chains.draws["b"].shape, chains.mean["a"].shape
        (torch.Size([50, 200, 3]), torch.Size([]))

    """

    flat: Chains
    parameters: Parameters

    def __repr__(self) -> str:
        shapes = self.parameters.said(len(self.flat.x))
        return f"NamedChains(x: {shapes}; {self.flat._steps_said})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return tuple(self.parameters.shapes)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The names of all coordinates, such as ``theta[0]``, in the order of :attr:`cov`."""
        shapes = self.parameters.shapes.items()
        return tuple(each for name, shape in shapes for each in names_of(shape, variable=name))

    # ---- of each parameter -----------------------------------------------------------------------

    @property
    def x(self) -> Named:
        """State after the last step, each ``(n_chains, *shape)``."""
        return self.parameters.unflatten(self.flat.x)

    @property
    def draws(self) -> Named | None:
        """Kept states, each ``(n_kept, n_chains, *shape)``, or None unless ``store="draws"``."""
        return self._named(self.flat.draws)

    @property
    def mean(self) -> Named | None:
        """Mean over all steps and chains after the burn-in, each float64 of its ``shape``."""
        return self._named(self.flat.mean)

    @property
    def var(self) -> Named | None:
        """Variance likewise."""
        return self._named(self.flat.var)

    @property
    def rhat(self) -> Named | None:
        """Convergence of each coordinate, see :attr:`pushforward.Chains.rhat`."""
        return self._named(self.flat.rhat)

    @property
    def ess(self) -> Named | None:
        """Effective number of draws of each coordinate, see :attr:`pushforward.Chains.ess`."""
        return self._named(self.flat.ess)

    @property
    def mcse(self) -> Named | None:
        """Standard error of :attr:`mean`, see :attr:`pushforward.Chains.mcse`."""
        return self._named(self.flat.mcse)

    def quantile(self, q: Tensor | float) -> Named:
        """Return quantiles of each coordinate, each float64 ``(*q.shape, *shape)``.

        Args:
            q: probabilities, a number or a tensor of any shape.

        Raises:
            ValueError: as :meth:`pushforward.Chains.quantile`.

        """
        return self.parameters.unflatten(self.flat.quantile(q))

    def _named(self, flat: Tensor | None) -> Named | None:
        return None if flat is None else self.parameters.unflatten(flat)

    # ---- of a chain or of the run ----------------------------------------------------------------

    @property
    def log_density(self) -> Tensor | None:
        """The target's log-density at the kept states, ``(n_kept, n_chains)``, or None."""
        return self.flat.log_density

    @property
    def kernel(self) -> Kernel:
        """The kernel with what a warm-up found and what it needs to go on."""
        return self.flat.kernel

    @property
    def accept_rate(self) -> Tensor | None:
        """Each chain's mean acceptance probability, float64 ``(n_chains,)``, or None."""
        return self.flat.accept_rate

    @property
    def accept_var(self) -> Tensor | None:
        """Variance of that probability from step to step, likewise."""
        return self.flat.accept_var

    @property
    def n_nonfinite(self) -> Tensor:
        """How often each chain's step left the finite numbers, int64 ``(n_chains,)``."""
        return self.flat.n_nonfinite

    @property
    def n_divergent(self) -> Tensor:
        """How many trajectories after the burn-in diverged, int64 ``(n_chains,)``."""
        return self.flat.n_divergent

    @property
    def held(self) -> Tensor | None:
        """The chains that no step could move, bool ``(n_chains,)``, or None."""
        return self.flat.held

    @property
    def cov(self) -> Tensor | None:
        """Covariance of all :attr:`coordinates`, float64 ``(dim, dim)``, or None."""
        return self.flat.cov

    @property
    def energy(self) -> float | None:
        """Mean of ``-log pi``, or None; see :attr:`pushforward.Chains.energy`."""
        return self.flat.energy

    @property
    def seed(self) -> int:
        """The seed that was used."""
        return self.flat.seed

    @property
    def first_step(self) -> int:
        """Index of the first step."""
        return self.flat.first_step

    @property
    def next_step(self) -> int:
        """Index of the step that comes next: pass it as ``first_step`` to go on."""
        return self.flat.next_step

    @property
    def n_steps(self) -> int:
        """Number of steps done after the burn-in."""
        return self.flat.n_steps

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed during the run or the callback ended it early."""
        return self.flat.interrupted

    @property
    def path(self) -> Path | None:
        """Where draws were streamed to, a variable a parameter, as an absolute path, or None."""
        return self.flat.path

    # ---- for people and other programs -----------------------------------------------------------

    def summary(self) -> Summary:
        """Return a table of all :attr:`coordinates`; its tensors have shape ``(dim,)``.

        Raises:
            ValueError: as :meth:`pushforward.Chains.summary`.

        """
        return replace(self.flat.summary(), names=self.coordinates)

    def to_arviz(self) -> arviz.InferenceData:
        """Return the draws as ArviZ takes them: a variable a parameter.

        Raises:
            ValueError: a parameter is called chain, draw or like a dimension of another, such as
                ``theta_dim_0`` beside a vector ``theta``; or as
                :meth:`pushforward.Chains.to_arviz`, as are the other errors.
            ImportError: ArviZ is not installed.

        """
        draws, log_density = self.flat._kept()
        return inference_data(self.parameters.unflatten(draws), log_density)

    def plot(self, max_coordinates: int = 6, max_chains: int = 8) -> Figure:
        """Return a figure: the trace and the histogram of each of the first coordinates.

        Args:
            max_coordinates: how many coordinates are shown at most.
            max_chains: how many chains a trace shows at most.

        Raises:
            ValueError: as :meth:`pushforward.Chains.plot`, as are the other errors.
            ImportError: matplotlib is not installed.

        """
        from pushforward.plotting import trace_plot

        n = _ops.count(max_coordinates, "max_coordinates", 1)
        max_chains = _ops.count(max_chains, "max_chains", 1)
        return trace_plot(self.flat._first_coordinates(n), n, max_chains, names=self.coordinates)
