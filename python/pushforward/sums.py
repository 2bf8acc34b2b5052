# SPDX-License-Identifier: Apache-2.0
"""The streaming sums of a run: of all its recorded steps, of the first half, and of batches."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pushforward import _ops, diagnostics

__all__ = ["WAIT_ON", "StreamingSums"]

_MANY = 128  # steps, of whose halves one may be a few shorter
WAIT_ON = frozenset({"cpu"})
"""Types of the devices on which states of torch targets wait for the sums; a GPU's captured graphs
add them themselves."""
_MOST_WAITING = 1 << 28  # bytes of states that wait
_LINE = 64  # bytes of a cache's line; states an odd number of them apart have sets of their own
_LONG, _MANY = 32, 64  # numbers of a chain and chains from which on proposals themselves wait


class StreamingSums:
    """Sums over the recorded steps of each chain, about its state before them.

    Args:
        x: the state, which is copied.
        n_steps: steps to come.
        native: whether native steps add their states, real ones in groups.
        left_out: the number of steps of each chain that do not count so far, int64 ``(n_chains,)``,
            which changes as they are taken; None where all count.

    """

    def __init__(
        self,
        x: Tensor,
        n_steps: int,
        *,
        native: bool,
        left_out: Tensor | None = None,
    ) -> None:
        real = x.is_floating_point()
        waits = real and not native and x.device.type in WAIT_ON
        self._x, self.in_groups = x, real and (native or waits)
        self.waiting = WaitingStates(x, left_out) if waits else None
        # Steps of the first half. Of many it ends with a group, so that nothing has to be added up.
        self.n_first = n_steps // 2
        if n_steps >= _MANY:
            self.n_first -= self.n_first % _ops.GROUP
        sums, shift, group = _ops.sums_about(x, 6, in_groups=self.in_groups)
        self.moments = _ops.BatchMoments(
            shift, sums[0], sums[1], sums[2], sums[3], group, diagnostics.batch_size(n_steps)
        )
        self._half = sums[4], sums[5]
        self.half: tuple[Tensor, Tensor, Tensor] | None = None
        self._open_batch: Tensor | None = None  # its sum, once the run has ended

    def _close_batch(self, steps_done: int) -> None:
        """Close a batch if one ends with a step that has added its state."""
        m = self.moments
        if steps_done % m.batch == 0:
            m.batch_squares.add_((m.sum - m.sum_at_batch).square_())
            m.sum_at_batch.copy_(m.sum)

    def take(self, x: Tensor, steps_done: int) -> None:
        """Take in the state after a step, unless the step itself has added it."""
        if self.waiting is None:
            self._close_batch(steps_done)
            return
        self.waiting.take(x, steps_done)
        if self.waiting.is_full or steps_done % self.moments.batch == 0:
            self.settle()

    def settle(self) -> None:
        """Add the states that wait."""
        if self.waiting is not None:
            self.waiting.leave(self.moments)

    def at_half(self, steps_done: int, n_nonfinite: Tensor) -> None:
        """Remember the sums if the first half ends with this step."""
        if steps_done != self.n_first or steps_done == 0:
            return
        self.settle()
        if self.in_groups:
            _ops.totals(self._x, self.moments, *self._half)
        else:
            for to, source in zip(self._half, self.totals(steps_done), strict=True):
                _ops.copy_(to, source)
        self.half = *self._half, _ops.copied(n_nonfinite)

    def totals(self, steps_done: int) -> tuple[Tensor, Tensor]:
        """Return the sum and the sum of squares of all states so far."""
        self.settle()
        m = self.moments
        if m.open_group is None or steps_done % _ops.GROUP == 0:
            return m.sum, m.sum_of_squares
        return _ops.totals(self._x, m, torch.empty_like(m.sum), torch.empty_like(m.sum))

    def finish(self) -> None:
        """Take in the group that is open, since no step will. What batches need is used up."""
        self.settle()
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
        self.settle()
        held = {f"moments.{i}": part for i, part in enumerate(self.moments.tensors())}
        return held | {f"half.{i}": part for i, part in enumerate(self.half or ())}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what a checkpoint held, of a run on another type of device, too."""
        held = {k: v for k, v in tensors.items() if k.startswith("moments.")}
        m = self.moments
        if m.open_group is None and "moments.5" in held:  # it ends early
            shift, total, squares, *more, group = (held[f"moments.{i}"] for i in range(6))
            before = _ops.BatchMoments(shift, total, squares, more[0], more[1], group, m.batch)
            _ops.totals(torch.empty_like(shift), before, total, squares)
        for i, part in enumerate(m.tensors()):
            if f"moments.{i}" in held:
                part.copy_(held[f"moments.{i}"])
        if m.open_group is not None and "moments.5" not in held:  # one without a state so far
            n = self._x.numel()
            m.open_group.zero_()[:n].copy_(self._x.flatten())
        if self.waiting is not None:
            self.waiting.restore()
        if "half.0" in tensors:
            total, squares, invalid = (tensors[f"half.{i}"].to(self._x.device) for i in range(3))
            self.half = total, squares, invalid


class WaitingStates:
    """The states of some steps of a CPU's chains, which are added to streaming sums together.

    Reading and writing the sums costs more than adding a state: they are of twice its precision,
    and there are several. Of many long chains only what a step takes waits, with marks of whose it
    is; of others the whole state does.

    Args:
        x: the state itself, which steps change.
        left_out: see :class:`StreamingSums`.

    """

    def __init__(self, x: Tensor, left_out: Tensor | None) -> None:
        self._x, self._done, self._is_empty = x, 0, x.numel() == 0
        few = _ops.GROUP * x.numel() * x.element_size() <= _MOST_WAITING
        n_lines = -(-x.numel() * x.element_size() // _LINE) | 1
        shape = (_ops.GROUP if few else 1, n_lines * _LINE // x.element_size())
        states = _ops.empty(shape, dtype=x.dtype, device=x.device)
        self._states = [state[: x.numel()].view(x.shape) for state in states]
        self._marks = torch.empty(shape[0], len(x), dtype=torch.uint8)
        self._places = list(zip(self._marks, self._states, strict=True))
        self._has_places = few and math.prod(x.shape[1:]) >= _LONG and len(x) >= _MANY
        self._left_out = left_out
        self._begin()

    def _begin(self) -> None:
        self._n = 0
        self._is_marked = self._was_placed = False  # some that wait, the latest step
        self._some_left_out = False  # of the open group
        self._before = _ops.copied(self._x) if self._has_places else self._x
        self._notice()

    def _notice(self) -> None:
        if self._left_out is not None:
            self._counted, self._total = self._left_out.clone(), int(self._left_out.numpy().sum())

    def place(self) -> _ops.Place:
        """Return where a step marks the chains that take its proposal, and where it keeps that."""
        if not self._has_places:
            return None, None
        self._was_placed = True
        return self._places[self._n]

    def take(self, x: Tensor, steps_done: int) -> None:
        """Let the state after step number ``steps_done`` wait, unless the step has seen to it."""
        if self._is_empty:
            return
        marks, state = self._places[self._n]
        if self._was_placed:
            self._was_placed, self._is_marked = False, True
        else:
            _ops.copy_(state, x)  # without torch's threads, which then wait for more
            if self._left_out is not None or self._some_left_out:  # else nobody reads them
                marks.numpy().fill(_ops.TAKEN)
        if self._left_out is not None and int(self._left_out.numpy().sum()) != self._total:
            marks.add_(_ops.LEFT_OUT * (self._left_out != self._counted))
            self._some_left_out = True
            self._notice()
        self._n, self._done = self._n + 1, steps_done

    @property
    def is_full(self) -> bool:
        """Whether there is no room, or the group ends."""
        return self._n == len(self._states) or self._done % _ops.GROUP == 0

    def leave(self, moments: _ops.BatchMoments) -> None:
        """Add the states to the sums."""
        n = self._n
        if n == 0:
            return
        marked = self._is_marked or self._some_left_out
        marks = (self._before, self._marks[:n]) if marked else (None, None)
        _ops.add_states(self._x, self._states[:n], moments, self._done - n, *marks)
        if self._has_places:
            _ops.copy_(self._before, self._x)
        self._n, self._is_marked = 0, False
        if self._done % _ops.GROUP == 0:
            self._some_left_out = False

    def restore(self) -> None:
        """Begin anew after sums were put back, of whose open group some states may not count."""
        self._begin()
        self._some_left_out = True
