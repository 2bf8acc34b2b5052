# SPDX-License-Identifier: Apache-2.0
"""Markov chain kernels made for lattices, as frozen descriptions.

Each has ``check(target, x)``, which raises where the kernel cannot run, and ``advance``, which
takes ``n_steps`` in place in one native call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import Tensor

from pushforward._ops import lattice as ops
from pushforward.lattice.base import values
from pushforward.lattice.ising import Ising
from pushforward.lattice.phi4 import Phi4


def _must_be(target: Any, laws: tuple[type, ...], kernel: Any) -> None:
    if not isinstance(target, laws):
        names = " or ".join(law.__name__ for law in laws)
        raise TypeError(
            f"target: expected {names} for {type(kernel).__name__}, got {type(target).__name__}"
        )


class _OnIsing(ABC):
    """A kernel of the Ising model alone."""

    _on_checkerboard: ClassVar[bool]

    def check(self, target: Any, x: Tensor) -> None:
        """Raise unless the kernel can run on ``x`` under ``target``.

        Raises:
            TypeError: the target or a type is wrong.
            ValueError: the state or its shape is.

        """
        _must_be(target, (Ising,), self)
        target.check_state(x)
        if self._on_checkerboard:
            target.check_even()

    def advance(
        self, x: Tensor, target: Any, *, seed: int, first_step: int, n_steps: int, chain_offset: int
    ) -> None:
        """Take ``n_steps`` steps of ``x`` in place."""
        _must_be(target, (Ising,), self)
        self._turn(
            x, target, seed=seed, first_step=first_step, n_steps=n_steps, chain_offset=chain_offset
        )

    @abstractmethod
    def _turn(self, x: Tensor, target: Ising, **run: int) -> None: ...


def sweep(x: Tensor, target: Ising, *, heat_bath: bool, **run: Any) -> None:
    """Take sweeps of the Ising model in place, as :func:`pushforward._ops.lattice.ising_sweeps`."""
    placed = target.placed(x)
    ops.ising_sweeps(
        x,
        temperature=placed["temperature"],
        field=placed["field"],
        no_field=not target.in_field,
        heat_bath=heat_bath,
        **run,
    )


def move_clusters(x: Tensor, target: Ising, *, wolff: bool, **run: Any) -> None:
    """Take cluster moves in place, as :func:`pushforward._ops.lattice.ising_clusters`."""
    placed = target.placed(x)
    ops.ising_clusters(
        x, temperature=placed["temperature"], field=placed["field"], wolff=wolff, **run
    )


@dataclass(frozen=True, eq=False)
class Metropolis:
    r"""Single-site Metropolis on a checkerboard: a step visits every site once.

    Ising: a spin turns over with probability ``min(1, exp(-dE / T))``. phi^4: a site moves to
    ``phi + width (2 u - 1)`` with probability ``min(1, exp(-dS))``. First the sites whose
    coordinates add up to an even number, then the others, so all sizes must be even.

    Args:
        width: of the moves of a phi^4 site, positive, a number or one value a lattice; may be left
            out where a warm-up finds it, so that half of the moves are accepted. None for Ising,
            whose moves have no width.

    Raises:
        TypeError: ``width`` is no number.
        ValueError: ``width`` is not positive and finite.

    Reference: N. Metropolis et al. (1953), Equation of state calculations by fast computing
    machines, J. Chem. Phys. 21.

    Example:
        >>> import pushforward as pf, torch
        >>> law, x = pf.lattice.Ising((16, 16), temperature=1.0), torch.ones(2, 16, 16)
        >>> kernel = pf.lattice.Metropolis()
        >>> kernel.check(law, x)
        >>> kernel.advance(x, law, seed=0, first_step=0, n_steps=50, chain_offset=0)
        >>> bool((x.mean((1, 2)) > 0.98).all())
        True

    """

    width: Tensor | float | None = None

    def __post_init__(self) -> None:
        if self.width is not None:
            value = values(self.width, "width")
            if not bool((value > 0).all()):
                raise ValueError(f"width: expected positive values, got {self.width}")
            if isinstance(self.width, Tensor):  # the caller's may change
                object.__setattr__(self, "width", value)

    def check(self, target: Any, x: Tensor) -> None:
        """Raise unless the kernel can run on ``x`` under ``target``.

        Raises:
            TypeError: the target or a type is wrong.
            ValueError: the state, its shape or the width is.

        """
        _must_be(target, (Ising, Phi4), self)
        target.check_state(x)
        target.check_even()
        if isinstance(target, Ising) and self.width is not None:
            raise ValueError("width: expected None for Ising, whose moves have no width")
        if isinstance(target, Phi4):
            self.check_width(x)

    def check_width(self, x: Tensor) -> None:
        """Raise unless the moves have a width that goes with phi^4 fields ``x``.

        Raises:
            ValueError: there is none, or not one a lattice.

        """
        if self.width is None:
            raise ValueError(
                "width: expected the width of a site's moves for Phi4, or a warm-up to find it, "
                "got None"
            )
        if isinstance(self.width, Tensor) and self.width.ndim and len(self.width) != len(x):
            raise ValueError(
                f"width: expected one value a lattice, shape ({len(x)},), got "
                f"{tuple(self.width.shape)}"
            )

    def advance(
        self, x: Tensor, target: Any, *, seed: int, first_step: int, n_steps: int, chain_offset: int
    ) -> None:
        """Take ``n_steps`` sweeps of ``x`` in place."""
        _must_be(target, (Ising, Phi4), self)
        if isinstance(target, Phi4):
            self.check_width(x)
        run: dict[str, Any] = {
            "seed": seed,
            "first_step": first_step,
            "n_steps": n_steps,
            "chain_offset": chain_offset,
        }
        if isinstance(target, Ising):
            sweep(x, target, heat_bath=False, **run)
        else:
            width = cast("Tensor | float", self.width)
            ops.phi4_run("metropolis", x, target.native_parameters(x), width, **run)


@dataclass(frozen=True)
class HeatBath(_OnIsing):
    r"""The heat bath of the Ising model on a checkerboard: a step visits every site once.

    Each spin is drawn anew given its neighbours: it is up with probability ``1 / (1 + exp(-2 b /
    T))``, b the sum of its neighbours plus the field. All sizes must be even.

    Reference: M. Creutz, L. Jacobs and C. Rebbi (1979), Experiments with a gauge-invariant Ising
    system, Phys. Rev. Lett. 42.

    Example:
        >>> import pushforward as pf, torch
        >>> law, x = pf.lattice.Ising((8, 8), temperature=1e6), torch.ones(1000, 8, 8)
        >>> pf.lattice.HeatBath().advance(x, law, seed=0, first_step=0, n_steps=1, chain_offset=0)
        >>> bool(x.mean().abs() < 0.02)
        True

    """

    _on_checkerboard: ClassVar[bool] = True

    def _turn(self, x: Tensor, target: Ising, **run: int) -> None:
        sweep(x, target, heat_bath=True, **run)


@dataclass(frozen=True)
class SwendsenWang(_OnIsing):
    r"""Cluster moves of the Ising model: a step draws all bonds and gives every cluster a new sign.

    Any size will do. Bonds between equal spins hold with probability ``1 - exp(-2 / T)``; a cluster
    of n sites is up with probability ``1 / (1 + exp(-2 h n / T))``.

    Reference: R. H. Swendsen and J.-S. Wang (1987), Nonuniversal critical dynamics in Monte Carlo
    simulations, Phys. Rev. Lett. 58.

    Example:
        >>> import pushforward as pf, torch
        >>> law, x = pf.lattice.Ising((5, 7), temperature=2.0), torch.ones(100, 5, 7)
        >>> kernel = pf.lattice.SwendsenWang()
        >>> kernel.advance(x, law, seed=0, first_step=0, n_steps=10, chain_offset=0)
        >>> bool(x.mean((1, 2)).min() < 0 < x.mean((1, 2)).max())
        True

    """

    _on_checkerboard: ClassVar[bool] = False

    def _turn(self, x: Tensor, target: Ising, **run: int) -> None:
        move_clusters(x, target, wolff=False, **run)


@dataclass(frozen=True)
class Wolff(_OnIsing):
    r"""Cluster moves of the Ising model: a step grows one cluster from a random site and turns it.

    Any size will do. A step costs as much as its cluster has sites, a fraction of a sweep above
    the critical temperature. In a field the cluster turns over with probability
    ``min(1, exp(-2 s h n / T))``.

    Reference: U. Wolff (1989), Collective Monte Carlo updating for spin systems, Phys. Rev. Lett.
    62.

    Example:
        >>> import pushforward as pf, torch
        >>> law, x = pf.lattice.Ising((6, 6), temperature=0.1), torch.ones(1, 6, 6)
        >>> kernel = pf.lattice.Wolff()  # at this temperature the cluster is the lattice
        >>> kernel.advance(x, law, seed=0, first_step=0, n_steps=1, chain_offset=0)
        >>> x.mean().item()
        -1.0

    """

    _on_checkerboard: ClassVar[bool] = False

    def _turn(self, x: Tensor, target: Ising, **run: int) -> None:
        move_clusters(x, target, wolff=True, **run)
