# SPDX-License-Identifier: Apache-2.0
"""What a run records: draws in memory or on disk, and streaming statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pushforward import _ops, diagnostics
from pushforward.diagnostics.streaming import rhat_of_sums
from pushforward.mcmc.adaptation import Covariance
from pushforward.storage import DrawStore
from pushforward.sums import StreamingSums

__all__ = ["Recorder", "Store"]

Store = Literal["draws", "stats", "last"] | Path

_BUFFER = 1 << 22  # numbers that pass through memory at a time where nothing keeps them


class Recorder:
    """Takes in the states after each step and holds what is kept of them.

    Args:
        x: the state, whose shape, type and device the records have.
        n_steps: steps to come.
        thin: a draw is kept after steps ``thin, 2 thin, ...``.
        store: where draws go.
        covariance: whether the covariance is added up over all steps.
        quantiles: whether draws that are not kept in memory are sketched.
        chain_offset: global index of the first chain.
        attributes: what a store on disk says of the run.
        held: which chains no step can move, ``(n_chains,)``, or None: what is pooled over chains
            leaves them out.
        names: the variables of a store on disk, by default one.
        native: whether steps add to the streaming sums, see :class:`StreamingSums`.
        left_out: likewise.

    """

    def __init__(
        self,
        x: Tensor,
        n_steps: int,
        thin: int,
        store: Store,
        *,
        covariance: bool,
        quantiles: bool,
        chain_offset: int,
        attributes: dict[str, Any] | None = None,
        resumed: bool = False,
        held: Tensor | None = None,
        names: Mapping[str, tuple[int, ...]] | None = None,
        native: bool = False,
        left_out: Tensor | None = None,
    ) -> None:
        self._held, self._moves = held, None if held is None else (~held).nonzero()[:, 0]
        self.thin, self.n_steps, self.steps_done = thin, n_steps, 0
        self._x, self._offset = x, chain_offset
        self.draws: Tensor | None = None
        self.log_density: Tensor | None = None
        self.disk: DrawStore | None = None
        self.sums: StreamingSums | None = None
        if store != "last":
            self.sums = StreamingSums(x, n_steps, native=native, left_out=left_out)
        self.covariance: Covariance | None = None
        self.sketch: diagnostics.QuantileSketch | None = None
        # Of the draws that no memory keeps: the sum of their log-densities, and how many they are.
        self.log_densities = torch.zeros(2, dtype=torch.float64, device=x.device)
        self._owed: Tensor | None = None  # the last draw, whose log-density is not yet known
        kept = n_steps // thin
        if store == "draws":
            shape = (kept, *x.shape)
            real = x.dtype if x.is_floating_point() else torch.float64
            spins = real != x.dtype
            self.draws = (
                x.new_empty(shape) if spins else _ops.empty(shape, dtype=real, device=x.device)
            )
            self.log_density = _ops.empty(shape[:2], dtype=real, device=x.device)
        elif isinstance(store, Path):
            self.disk = _open(store, x, kept, attributes or {}, names, resumed)
        dim = math.prod(x.shape[1:])
        if quantiles and self.draws is None:
            self.sketch = diagnostics.QuantileSketch(dim, x.device)
        if covariance:
            self.covariance = Covariance(dim, dense=True, device=x.device)

    @property
    def moments(self) -> _ops.BatchMoments | None:
        """What a step itself adds to, if anything."""
        if self.sums is None or self.sums.waiting is not None:
            return None
        return self.sums.moments

    @property
    def place(self) -> Callable[[], _ops.Place] | None:
        """What gives the memory where a step's proposals wait, if any do."""
        if self.sums is None or self.sums.waiting is None:
            return None
        return self.sums.waiting.place

    # ---- steps of a native run -------------------------------------------------------------------

    def room(self) -> int:
        """Return how many steps may come at once: up to the half, and what the buffers hold."""
        half = 0 if self.sums is None else self.sums.n_first
        room = half - self.steps_done if self.steps_done < half else self.n_steps - self.steps_done
        if any(wanting is not None for wanting in (self.covariance, self.disk, self.sketch)):
            room = min(room, max(1, _BUFFER // max(1, self._x.numel())))
        return room

    def outputs(self, n: int) -> dict[str, Any]:
        """Return where a native run of ``n`` steps writes."""
        done, draws, log_density = self.steps_done, None, None
        thin = 1 if self.covariance is not None else self.thin  # which wants every state
        wanted = slice(done // thin, (done + n) // thin)
        if self.draws is not None and self.log_density is not None and thin == self.thin:
            draws, log_density = self.draws[wanted], self.log_density[wanted]
        else:
            shape = (wanted.stop - wanted.start, *self._x.shape)
            if self._keeps:
                draws, log_density = self._x.new_empty(shape), self._x.new_empty(shape[:2])
            elif self.covariance is not None:
                draws = self._x.new_empty(shape)
        return {
            "steps_done": done,
            "thin": thin,
            "draws": draws,
            "log_density": log_density,
            "moments": self.moments,
        }

    def _moving(self, states: Tensor, chains: int = 1) -> Tensor:
        """Return what chains that move have of states; ``chains`` is the chains' dimension."""
        return states if self._moves is None else states.index_select(chains, self._moves)

    @property
    def _keeps(self) -> bool:
        """Whether every draw is looked at."""
        return self.draws is not None or self._passes_on

    def took(self, n: int, outputs: dict[str, Any], n_nonfinite: Tensor) -> None:
        """Take in what a native run of ``n`` steps wrote."""
        draws, log_density = outputs["draws"], outputs["log_density"]
        if self.covariance is not None:
            self.covariance.add(self._moving(draws), self._offset)
        if outputs["thin"] != self.thin and self._keeps:
            first = self.thin - 1 - self.steps_done % self.thin
            draws, log_density = draws[first :: self.thin], log_density[first :: self.thin]
            if self.draws is not None and self.log_density is not None:
                at = self.steps_done // self.thin
                self.draws[at : at + len(draws)] = draws
                self.log_density[at : at + len(draws)] = log_density
        if self._passes_on:
            self._pass_on(draws, log_density)
        self.steps_done += n
        if self.sums is not None:
            self.sums.at_half(self.steps_done, n_nonfinite)

    # ---- a step of a torch target ----------------------------------------------------------------

    def pay(self, value: Tensor) -> None:
        """Take in the log-density of the last state."""
        if self._owed is None:
            return
        if self.log_density is not None:
            self._owed.copy_(value)
        else:
            self._pass_on(self._owed[None], value[None])
        self._owed = None

    @property
    def _passes_on(self) -> bool:
        """Whether draws are looked at and not kept in memory."""
        return self.disk is not None or self.sketch is not None

    def _pass_on(self, draws: Tensor, values: Tensor) -> None:
        """Take in draws that no memory keeps, and their log-densities."""
        if self.disk is not None:
            self.disk.append(draws, values)
        if self.sketch is not None:
            self.sketch.add(self._moving(draws).reshape(-1, math.prod(draws.shape[2:])))
        values = self._moving(values)
        total = self.log_densities[:1]  # one draw after another, however they come in blocks
        _ops.add_chain_sums_(total, values[..., None], chain_offset=self._offset)
        self.log_densities[1] += values.numel()

    @property
    def is_owed(self) -> bool:
        """Whether the log-density of the last draw is not yet known."""
        return self._owed is not None

    def take(self, x: Tensor, n_nonfinite: Tensor) -> None:
        """Take in the state after a step."""
        self.steps_done += 1
        if self.sums is not None:
            self.sums.take(x, self.steps_done)
        self._keep(x, n_nonfinite)

    def _keep(self, x: Tensor, n_nonfinite: Tensor) -> None:
        if self.covariance is not None:
            self.covariance.add(self._moving(x[None]), self._offset)
        if self.steps_done % self.thin == 0:
            at = self.steps_done // self.thin - 1
            if self.draws is not None and self.log_density is not None:
                self.draws[at] = x
                self._owed = self.log_density[at]
            elif self._passes_on:
                self._owed = x.clone()
        if self.sums is not None:
            self.sums.at_half(self.steps_done, n_nonfinite)

    # ---- sweeps of a lattice, whose states are seen from outside ---------------------------------

    def unseen(self) -> int:
        """Return how many steps may pass before a state must be seen."""
        if self.covariance is not None:
            return 1
        return self.thin - self.steps_done % self.thin if self._keeps else 1 << 62

    def see(self, x: Tensor, n: int, n_nonfinite: Tensor) -> None:
        """Take in the state after ``n`` steps, of which only the last may matter."""
        self.steps_done += n
        self._keep(x, n_nonfinite)

    # ---- the end ---------------------------------------------------------------------------------

    @property
    def n_kept(self) -> int:
        """How many draws were kept so far."""
        return self.steps_done // self.thin

    def rhat(self) -> Tensor | None:
        """Return the R-hat so far: of half chains, or of whole ones before half of the run."""
        if self.sums is None:
            return None
        held = None if self._held is None else self._held * self.steps_done
        tallies = self.sums.tallies(self.steps_done, held)
        if tallies is not None:
            return diagnostics.streaming_rhat(tallies)
        if self.steps_done < 2:
            return None
        sums = (self.sums.moments.shift, *self.sums.totals(self.steps_done))
        shift, total, squares = (self._moving(part, 0) for part in sums)
        return rhat_of_sums(self.steps_done, shift, total, squares)

    def finish(self) -> None:
        """Write what is left, mark the log-density that could not be computed, end open sums."""
        if self._owed is not None:
            self.pay(self._x.new_full((len(self._x),), torch.nan))
        if self.disk is not None:
            self.disk.close()
        if self.sums is not None:
            self.sums.finish()

    # ---- a checkpoint ----------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds."""
        held: dict[str, Tensor] = {}
        for name in ("draws", "log_density"):
            value = getattr(self, name)
            if value is not None:
                held[name] = value[: self.n_kept]
        if self.sums is not None:
            held |= self.sums.tensors()
        if self.covariance is not None:
            held |= {f"covariance.{k}": v for k, v in self.covariance.tensors().items()}
        if self.sketch is not None:
            held |= {f"sketch.{k}": v for k, v in self.sketch.tensors().items()}
        if self._passes_on:
            held["log_densities"] = self.log_densities
        return held

    def restore(self, tensors: dict[str, Tensor], steps_done: int) -> None:
        """Put back what a checkpoint held after ``steps_done`` steps."""
        self.steps_done = steps_done
        for name in ("draws", "log_density"):
            value = getattr(self, name)
            if value is not None:
                value[: self.n_kept] = tensors[name].to(value.device)
        if self.sums is not None:
            self.sums.restore(tensors)
        if self.covariance is not None:
            names = ("shift", "sums")
            self.covariance.restore(
                {k: tensors[f"covariance.{k}"] for k in names},
                steps_done * (len(self._x) if self._moves is None else len(self._moves)),
            )
        if self.sketch is not None:
            parts = ("first", "counts", "ends", "edges", "done")
            self.sketch.restore({k: tensors[f"sketch.{k}"] for k in parts})
        if self._passes_on:
            self.log_densities.copy_(tensors["log_densities"])
        if self.disk is not None:
            self.disk.truncate(self.n_kept)


def _open(
    path: Path,
    x: Tensor,
    kept: int,
    attributes: dict[str, Any],
    names: Mapping[str, tuple[int, ...]] | None,
    resumed: bool,
) -> DrawStore:
    kind: dict[str, Any] = {
        "n_chains": len(x),
        "event": tuple(x.shape[1:]),
        "dtype": x.dtype,
        "attributes": attributes,
        "names": names,
    }
    if resumed and path.exists():
        return DrawStore.open(path, **kind)
    return DrawStore.create(path, n_kept=kept, **kind)
