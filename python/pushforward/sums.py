# SPDX-License-Identifier: Apache-2.0
"""The streaming sums of a run: of all its recorded steps, of the first half, and of batches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pushforward import _ops, diagnostics

__all__ = ["StreamingSums"]

_MANY = 128  # steps, of whose halves one may be a few shorter


class StreamingSums:
    """Sums over the recorded steps of each chain, about its state before them.

    Args:
        x: the state, which is copied.
        n_steps: steps to come.
        in_groups: whether native steps on real states add to them, which they do in groups.

    """

    def __init__(self, x: Tensor, n_steps: int, *, in_groups: bool) -> None:
        self._x, self.in_groups = x, in_groups
        # Steps of the first half. Of many it ends with a group, so that nothing has to be added up.
        self.n_first = n_steps // 2
        if n_steps >= _MANY:
            self.n_first -= self.n_first % _ops.GROUP
        sums, shift, group = _ops.sums_about(x, 6, in_groups=in_groups)
        self.moments = _ops.BatchMoments(
            shift, sums[0], sums[1], sums[2], sums[3], group, diagnostics.batch_size(n_steps)
        )
        self._half = sums[4], sums[5]
        self.half: tuple[Tensor, Tensor, Tensor] | None = None
        self._open_batch: Tensor | None = None  # its sum, once the run has ended

    def close_batch(self, steps_done: int) -> None:
        """Close a batch if one ends with a step that has added its state."""
        m = self.moments
        if steps_done % m.batch == 0:
            m.batch_squares.add_((m.sum - m.sum_at_batch).square_())
            m.sum_at_batch.copy_(m.sum)

    def at_half(self, steps_done: int, n_nonfinite: Tensor) -> None:
        """Remember the sums if the first half ends with this step."""
        if steps_done != self.n_first or steps_done == 0:
            return
        if self.in_groups:
            _ops.totals(self._x, self.moments, *self._half)
        else:
            for to, source in zip(self._half, self.totals(steps_done), strict=True):
                _ops.copy_(to, source)
        self.half = *self._half, _ops.copied(n_nonfinite)

    def totals(self, steps_done: int) -> tuple[Tensor, Tensor]:
        """Return the sum and the sum of squares of all states so far."""
        m = self.moments
        if m.open_group is None or steps_done % _ops.GROUP == 0:
            return m.sum, m.sum_of_squares
        return _ops.totals(self._x, m, torch.empty_like(m.sum), torch.empty_like(m.sum))

    def finish(self) -> None:
        """Take in the group that is open, since no step will. What batches need is used up."""
        m = self.moments
        if self._open_batch is not None:
            return
        if self.in_groups:
            _ops.totals(self._x, m, m.sum, m.sum_of_squares, m.sum_at_batch)
        else:
            torch.sub(m.sum, m.sum_at_batch, out=m.sum_at_batch)
        self._open_batch, self.moments = m.sum_at_batch, m._replace(open_group=None)

    def tallies(
        self,
        steps_done: int,
        n_invalid: Tensor | None = None,
        invalid_before: Tensor | None = None,
    ) -> diagnostics.Tallies | None:
        """Return the sums, if the run has come far enough.

        Args:
            steps_done: recorded steps so far.
            n_invalid: steps of each chain that the sums leave out, ``(n_chains,)``; None for none.
            invalid_before: what was counted before anything was recorded; None where the steps
                that are left out are all of a chain's.

        """
        if self.half is None or steps_done <= self.n_first:
            return None
        half_total, half_squares, invalid_at_half = self.half
        total, squares = self.totals(steps_done)
        open_batch = self._open_batch
        if open_batch is None:
            open_batch = total - self.moments.sum_at_batch
        n_valid = half_valid = None
        if n_invalid is not None and bool(n_invalid.any()):
            n_valid = steps_done - n_invalid
            half_valid = n_valid.clamp(max=self.n_first)
            if invalid_before is not None:
                half_valid = self.n_first - (invalid_at_half - invalid_before)
        return diagnostics.Tallies(
            n_steps=steps_done,
            half_steps=self.n_first,
            batch=self.moments.batch,
            shift=self.moments.shift,
            total=total,
            squares=squares,
            half_total=half_total,
            half_squares=half_squares,
            batch_squares=self.moments.batch_squares,
            open_total=open_batch,
            n_valid=n_valid,
            half_valid=half_valid,
        )

    # ---- a checkpoint ----------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds."""
        held = {f"moments.{i}": part for i, part in enumerate(self.moments.tensors())}
        return held | {f"half.{i}": part for i, part in enumerate(self.half or ())}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what a checkpoint held."""
        for i, part in enumerate(self.moments.tensors()):
            part.copy_(tensors[f"moments.{i}"])
        if "half.0" in tensors:
            total, squares, invalid = (tensors[f"half.{i}"].to(self._x.device) for i in range(3))
            self.half = total, squares, invalid
