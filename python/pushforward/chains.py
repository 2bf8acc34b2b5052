# SPDX-License-Identifier: Apache-2.0
"""What a run of Markov chains returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward import _ops, diagnostics
from pushforward.diagnostics.table import names_of
from pushforward.mcmc import Kernel
from pushforward.storage import DrawStore
from pushforward.storage.runs import first_coordinates, store_of_run

if TYPE_CHECKING:
    import arviz
    from matplotlib.figure import Figure

__all__ = ["Chains"]


@dataclass(frozen=True, eq=False)
class Chains:
    """What :func:`pushforward.sample` returns; see :class:`pushforward.NamedChains` for dicts.

    Attributes:
        x: state after the last step, ``(n_chains, *event)``.
        draws: kept states ``(n_kept, n_chains, *event)``, or None unless ``store="draws"``.
        log_density: the target's log-density at them, ``(n_kept, n_chains)``, or None.
        mean: mean over all steps and chains after the burn-in, float64, shape ``event``; None
            with ``store="last"``. Chains that were :attr:`held` are left out.
        var: variance likewise.
        kernel: the kernel with what a warm-up found and what it needs to go on.
        accept_rate: each chain's mean acceptance probability ``min(1, r)`` over the steps after the
            burn-in, float64 ``(n_chains,)``; None for kernels that count none. Of
            :class:`pushforward.lattice.Metropolis` it is the share of the sites that moved.
        accept_var: variance of that probability from step to step, likewise.
        n_nonfinite: how often each chain's step after the warm-up left the finite numbers and was
            not taken, int64 ``(n_chains,)``. Such a step repeats the state in ``draws``; kernels
            that accept or refuse count it as refused, the others leave it out of ``mean`` and
            ``var``.
        n_divergent: how many trajectories after the burn-in diverged, int64 ``(n_chains,)``.
        seed: the seed that was used.
        first_step: index of the first step.
        next_step: index of the step that comes next: pass it as ``first_step`` to go on.
        n_steps: number of steps done after the burn-in.
        interrupted: whether Ctrl-C was pressed during the run or the callback ended it early. A
            loop around :func:`pushforward.sample` should look at it, since Ctrl-C raises nothing.
        path: where draws were streamed to with ``store=Path(...)``, absolute, or None.
            :meth:`to_arviz` and :meth:`plot` read them there; everything else has the streaming
            statistics.
        tallies: the streaming sums that ``rhat``, ``ess`` and ``mcse`` use where draws were not
            kept, or None.
        covariance: streaming covariance over all steps and chains, float64 ``(dim, dim)``, where
            ``sample(..., covariance=True)`` asked for it; see :attr:`cov`.
        sketch: the quantiles of draws that were not kept in memory, where
            ``sample(..., quantiles=True)`` asked for them; see :meth:`quantile`.
        streamed_energy: mean of ``-log pi`` over the draws that went to disk or were sketched, or
            None; see :attr:`energy`.
        held: bool ``(n_chains,)``, or None where there are none: the chains that no step could
            move, since the log-density at their start, or the score where the kernel uses it, is no
            finite number. ``x`` and ``draws`` have them; all that is said of the law leaves them
            out.
        identity: a digest of all that the run was given on which its draws depend, except the
            target; its store has it as attribute ``run``. None where there is no store.

    """

    x: Tensor
    draws: Tensor | None
    log_density: Tensor | None
    mean: Tensor | None
    var: Tensor | None
    kernel: Kernel
    accept_rate: Tensor | None
    accept_var: Tensor | None
    n_nonfinite: Tensor
    n_divergent: Tensor
    seed: int
    first_step: int
    next_step: int
    n_steps: int
    interrupted: bool
    path: Path | None = None
    tallies: diagnostics.Tallies | None = field(default=None, repr=False)
    covariance: Tensor | None = field(default=None, repr=False)
    sketch: diagnostics.QuantileSketch | None = field(default=None, repr=False)
    streamed_energy: float | None = field(default=None, repr=False)
    held: Tensor | None = field(default=None, repr=False)
    identity: str | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Chains(x={tuple(self.x.shape)}, {self._steps_said})"

    @property
    def _steps_said(self) -> str:
        kept = 0 if self.draws is None else len(self.draws)
        said = f"n_steps={self.n_steps}, n_kept={kept}, seed={self.seed}"
        return f"{said}, next_step={self.next_step}" + ", interrupted" * self.interrupted

    @cached_property
    def cov(self) -> Tensor | None:
        """Covariance of the flattened coordinates, float64 ``(dim, dim)``.

        Over all steps where ``sample(..., covariance=True)`` added it up, else over the kept draws;
        None where there is neither.
        """
        if self.draws is None and self.covariance is None:
            return None
        if self._all_held:
            dim = self.x[:1].numel()
            return self.x.new_full((dim, dim), torch.nan, dtype=torch.float64)
        if self.covariance is not None:
            return self.covariance
        rows = self._moving(self._draws).flatten(2).flatten(0, 1).double()
        away = rows - rows.mean(0)
        return away.mT @ away / max(len(rows) - 1, 1)

    @cached_property
    def energy(self) -> float | None:
        """Mean of ``-log pi`` over all chains and the draws that were kept or sketched.

        None where there are neither.
        """
        if self.log_density is not None and self.log_density.numel() > 0:
            return -float(self._moving(self.log_density).double().mean())
        return self.streamed_energy

    def quantile(self, q: Tensor | float) -> Tensor:
        """Return quantiles of each coordinate over all chains and draws.

        Exact where draws were kept in memory, from :attr:`sketch` otherwise.

        Args:
            q: probabilities, a number or a tensor of any shape.

        Returns:
            float64, ``(*q.shape, *event)``.

        Raises:
            ValueError: a probability is not between 0 and 1, or there is neither a draw nor a
                sketch.

        Example:
            >>> import pushforward as pf, torch
            >>> law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
            >>> start = law.sample(1000, seed=0)
            >>> chains = pf.sample(law, pf.MALA(0.8), start, n_steps=100, thin=5, store="stats",
            ...                    quantiles=True, seed=1)
            >>> bool((chains.quantile(0.975) - 1.96).abs().max() < 0.05)
            True

        """
        if self.draws is not None and self.draws.numel() > 0:
            if self._all_held:
                shape = (*torch.as_tensor(q).shape, *self.x.shape[1:])
                return self.x.new_full(shape, torch.nan, dtype=torch.float64)
            return diagnostics.quantile(self._moving(self.draws), q)
        if self.sketch is None:
            raise ValueError(
                "quantile: expected kept draws or a run with quantiles=True, got neither"
            )
        rows = self.sketch.quantile(q)
        return rows.reshape(*rows.shape[:-1], *self.x.shape[1:])

    @cached_property
    def rhat(self) -> Tensor | None:
        """Convergence of each coordinate, shape ``event``; near 1 is good, above 1.01 is not.

        Rank-normalised and split where draws were kept, split from streaming sums otherwise; None
        with ``store="last"`` or where there are too few steps.
        """
        if self._has_draws:
            return diagnostics.rhat(self._moving(self._draws))
        return None if self.tallies is None else diagnostics.streaming_rhat(self.tallies)

    @cached_property
    def ess(self) -> Tensor | None:
        """Effective number of draws of each coordinate, shape ``event``.

        The bulk's where draws were kept, by batch means otherwise; None likewise.
        """
        if self._has_draws:
            return diagnostics.ess(self._moving(self._draws))
        return None if self.tallies is None else diagnostics.streaming_ess(self.tallies)

    @cached_property
    def mcse(self) -> Tensor | None:
        """Standard error of :attr:`mean`, shape ``event``; None likewise.

        From the autocorrelation of the draws where they were kept. Those of a thinned run bound it
        where they are nearly independent, and the batches of all steps tell it.
        """
        by_batches = None if self.tallies is None else diagnostics.streaming_mcse(self.tallies)
        if not self._has_draws:
            return by_batches
        draws = self._moving(self._draws)
        by_draws = diagnostics.mcse(draws)
        if by_batches is None or len(draws) == self.n_steps:
            return by_draws
        n_draws = draws.shape[0] * draws.shape[1]
        return torch.where(diagnostics.ess(draws) < n_draws / 2, by_draws, by_batches)

    @property
    def _has_draws(self) -> bool:
        return self.draws is not None and len(self.draws) >= 4

    @property
    def _draws(self) -> Tensor:
        if self.draws is None:
            raise ValueError(
                'draws: expected a run with store="draws" or a pathlib.Path, got one that kept none'
            )
        return self.draws

    def _on_disk(self) -> tuple[DrawStore, int] | None:
        """Return the store that has the draws, and how many; None where none was written."""
        if self.draws is not None or self.path is None:
            return None
        n_chains, *event = self.x.shape
        return store_of_run(
            self.path,
            n_chains=n_chains,
            event=tuple(event),
            seed=self.seed,
            n_steps=self.n_steps,
            identity=self.identity,
        )

    def _kept(self) -> tuple[Tensor, Tensor | None]:
        """Return all draws and their log-densities, wherever they are."""
        disk = self._on_disk()
        return (self._draws, self.log_density) if disk is None else disk[0].read(0, disk[1])

    def _first_coordinates(self, n: int) -> Tensor:
        """Return the draws with ``n`` coordinates at least, wherever they are."""
        disk = self._on_disk()
        return self._draws if disk is None else first_coordinates(*disk, n)

    @property
    def _all_held(self) -> bool:
        return self.held is not None and bool(self.held.all())

    def _moving(self, draws: Tensor) -> Tensor:
        """Return what chains that were not held have of ``(n_kept, n_chains, ...)``."""
        return draws if self.held is None else draws[:, ~self.held]

    def summary(self) -> diagnostics.Summary:
        """Return a table of mean, spread, quantiles, errors, ESS and R-hat of each coordinate.

        Where draws were not kept in memory it is made of the streaming statistics: without the
        error of the spread and the tails' effective size, without quantiles unless they were asked
        for.

        Raises:
            ValueError: there are neither draws nor streaming statistics.

        Example:
            >>> import pushforward as pf, torch
            >>> law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
            >>> chains = pf.sample(law, pf.MALA(0.8), torch.zeros(8, 2), n_steps=200, seed=0)
            >>> table = chains.summary()

        """
        if self._has_draws:
            return diagnostics.summary(self._moving(self._draws))
        mcse, ess, rhat = self.mcse, self.ess, self.rhat
        if self.mean is None or self.var is None or mcse is None or ess is None or rhat is None:
            raise ValueError(
                "summary: expected a run with four draws or with statistics of as many steps, got "
                f"one of {self.n_steps} steps that kept neither"
            )
        low, median, high = (
            (None, None, None)
            if self.sketch is None
            else self.quantile(torch.tensor([0.05, 0.5, 0.95])).unbind(0)
        )
        return diagnostics.Summary(
            names=names_of(tuple(self.x.shape[1:])),
            mean=self.mean,
            sd=self.var.sqrt(),
            mcse_mean=mcse,
            mcse_sd=None,
            q5=low,
            median=median,
            q95=high,
            ess_bulk=ess,
            ess_tail=None,
            rhat=rhat,
        )

    def to_arviz(self, name: str = "x") -> arviz.InferenceData:
        """Return the draws as ArviZ takes them: one variable, dimensions chain and draw first.

        Those of a run with ``store=Path(...)`` are read back whole: they must fit in memory twice.

        Args:
            name: of the variable.

        Returns:
            The group ``posterior`` with the draws ``(n_chains, n_kept, *event)``, and
            ``sample_stats`` with their log-density ``lp``, ``(n_chains, n_kept)``.

        Raises:
            ValueError: no draws were kept, those on disk are damaged or another run's, or the name
                is chain or draw.
            FileNotFoundError: the store was moved or deleted.
            OSError: it cannot be read.
            ImportError: ArviZ is not installed, or Zarr where draws are on disk.

        """
        draws, log_density = self._kept()
        return inference_data({name: draws}, log_density)

    def plot(self, max_coordinates: int = 6, max_chains: int = 8) -> Figure:
        """Return a figure: the trace and the histogram of each of the first coordinates.

        Of a run with ``store=Path(...)`` all chunks are read, one after another, and only the
        coordinates that are shown are held in memory.

        Args:
            max_coordinates: how many coordinates are shown at most.
            max_chains: how many chains a trace shows at most; a histogram is of all.

        Raises:
            TypeError: an argument is not an int.
            ValueError: an argument is not positive, a state has no coordinates, no draws were kept,
                or those on disk are damaged or another run's.
            FileNotFoundError: the store was moved or deleted.
            OSError: it cannot be read.
            ImportError: matplotlib is not installed, or Zarr where draws are on disk.

        Example:
            >>> import pushforward as pf, tempfile, torch
            >>> from pathlib import Path
            >>> law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     chains = pf.sample(law, pf.MALA(0.8), torch.zeros(8, 2), n_steps=200, seed=0,
            ...                        store=Path(folder) / "draws.zarr")
            ...     figure = chains.plot(max_chains=4)
            >>> len(figure.axes)  # a trace and a histogram of each coordinate
            4

        """
        from pushforward.plotting import trace_plot

        n = _ops.count(max_coordinates, "max_coordinates", 1)
        max_chains = _ops.count(max_chains, "max_chains", 1)
        return trace_plot(self._first_coordinates(n), n, max_chains)


def inference_data(draws: Mapping[str, Tensor], log_density: Tensor | None) -> arviz.InferenceData:
    """Return draws as ArviZ takes them.

    Args:
        draws: of each variable, ``(n_kept, n_chains, *shape)``.
        log_density: at them, ``(n_kept, n_chains)``, or None.

    Raises:
        ValueError: a variable is called chain or draw, or like a dimension of another.
        ImportError: ArviZ is not installed.

    """
    taken = {"chain": "", "draw": ""}
    for name, value in draws.items():
        taken |= {f"{name}_dim_{i}": f" of {name!r}" for i in range(value.ndim - 2)}
    for name in draws:
        if name in taken:  # ArviZ would drop it, or all variables, and raise nothing
            raise ValueError(
                f"name: expected another one than that of a dimension{taken[name]}, got {name!r}"
            )
    try:
        import arviz
    except ImportError as error:
        raise ImportError("to_arviz needs ArviZ: pip install pushforward[arviz]") from error
    posterior = {name: value.transpose(0, 1).cpu().numpy() for name, value in draws.items()}
    groups: dict[str, Any] = {"posterior": posterior}
    if log_density is not None:
        groups["sample_stats"] = {"lp": log_density.mT.cpu().numpy()}
    try:
        return arviz.from_dict(**groups)
    except TypeError:
        return arviz.from_dict(groups)  # from version 1 on, one dict of groups
