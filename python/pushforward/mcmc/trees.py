# SPDX-License-Identifier: Apache-2.0
"""Trees of the no-U-turn sampler, grown for all chains at once.

Chains double their trajectories together, so that all growing ones are at the same leaf. A new half
is cut into the aligned blocks of a binary counter: before leaf n one block waits for each bit of n
that is set, and two blocks of one size become one. What a block needs are the momenta at its ends
and their sum, so that memory grows with the depth and not with the length of the trajectory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pushforward import _ops, random
from pushforward.mcmc.base import State, normals
from pushforward.mcmc.hamiltonian import DIVERGENCE, half_square
from pushforward.mcmc.metric import Metric

_DRAWN = 64  # uniforms a chain that are drawn at once


class Block(NamedTuple):
    """A stretch of a trajectory: the sum of its momenta, the first and the last of them."""

    total: Tensor
    first: Tensor
    last: Tensor


def goes_on(one: Block, two: Block, total: Tensor) -> Tensor:
    """Whether a trajectory of two stretches has turned neither within nor across them.

    Across means from the first to one point of the second, and from the last point of the first.
    """
    if one.first is one.last and two.first is two.last:  # two points: the rest says the same
        return torch.minimum((total * one.first).sum(1), (total * two.last).sum(1)) > 0
    sums = torch.stack((total, one.total + two.first, two.total + one.last))
    first = torch.stack((one.first, one.first, one.last))
    last = torch.stack((two.last, two.first, two.last))
    return torch.minimum((sums * first).sum(2), (sums * last).sum(2)).amin(0) > 0


class Trees:
    """The trees of one step: those that still grow, and what became of the others.

    Momenta are those in the coordinates of the metric, where velocity and momentum are the same.

    Attributes:
        x: next state ``(n_chains, dim)``.
        score: there.
        log_density: there, ``(n_chains,)``.
        accepted: sum over the leaves of the probability that a proposal there were accepted.
        n_leaves: how many leaves that is.
        diverged: whether the energy grew without bound or was no finite number.

    """

    # What belongs to a growing tree: chains are the last dimension but one, or the last.
    _VECTORS = (
        "_ends", "_total", "_x", "_score", "_at", "_half", "_far", "_near", "_half_h", "_new_x",
        "_new_score",
    )  # fmt: skip
    _SCALARS = (
        "_rows", "_h", "_bits", "_forward", "_log_u", "_log_accept", "_start", "_kinetic", "_value",
        "_weight", "_new_value", "_new_weight", "_alive", "_accepted", "_running", "_leaves",
        "_diverged", "_nonfinite",
    )  # fmt: skip

    def __init__(
        self, state: State, metric: Metric, step_size: Tensor | float, step: int, max_depth: int
    ) -> None:
        self._state, self._metric, self._max_depth = state, metric, max_depth
        self._first_entry = step << max_depth
        x, score = _ops.rows(state.x), _ops.rows(state.memory["score"])
        value = state.memory["log_density"]
        zeros = torch.zeros_like(value)
        none = torch.zeros_like(value, dtype=torch.bool)
        self.x, self.score, self.log_density = x.clone(), score.clone(), value.clone()
        self.accepted, self.n_leaves = zeros.clone(), zeros.clone()
        self.diverged, self.nonfinite = none.clone(), none.clone()
        self._rows = torch.arange(len(x), device=x.device)
        self._h = torch.as_tensor(step_size, dtype=x.dtype, device=x.device).expand(len(x))
        self._bits = self._uniforms(0, 1)[0]
        # The trajectory: its two ends (state, momentum, pulled score), backward and forward, the
        # sum of its momenta, the logarithm of the sum of its weights, and the state drawn from it.
        momentum = _ops.rows(normals(state, step, random.PURPOSES["momentum"]))
        self._ends = torch.stack((x, momentum, metric.pull(score))).expand(2, -1, -1, -1)
        self._total, self._weight = momentum, zeros
        self._x, self._score, self._value = x, score, value
        self._start, self._kinetic = value, half_square(momentum)
        self._alive, self._diverged, self._nonfinite = ~none, none, none
        # Of the trees that have ended: the sum over their leaves, and how many; that of the others.
        self._accepted, self._leaves, self._running, self._visited = zeros, zeros, zeros, 0

    def grow(self) -> None:
        """Double trajectories until each has turned, diverged or reached the greatest depth."""
        left = len(self._rows)
        for depth in range(self._max_depth):
            if left == 0:
                break
            left = self._double(depth)
        self._end(self._alive)
        self._retire()

    def _uniforms(self, first: int, count: int) -> Tensor:
        """Return entries of the growing chains' sequences for this step, ``(count, n)``."""
        drawn = random.uniform(
            len(self.x),
            count,
            seed=self._state.seed,
            purpose="tree",
            start=self._first_entry + first,
            chain_offset=self._state.chain_offset,
            dtype=self.x.dtype,
            device=self.x.device,
        )
        chosen = drawn if len(self._rows) == len(drawn) else drawn[self._rows]
        return chosen.mT.contiguous()

    def _double(self, depth: int) -> int:
        """Double the trajectories; return how many still grow."""
        twice = self._bits + self._bits
        self._forward = twice > 1
        self._bits = twice - self._forward.to(twice)
        self._half_h = (0.5 * torch.where(self._forward, self._h, -self._h))[:, None]
        backward, forward = self._ends
        side = self._forward[:, None]
        self._at, self._near, pulled = torch.where(side, forward, backward)
        self._far = torch.where(side, backward[1], forward[1])
        self._half = self._near + self._half_h * pulled
        self._blocks: list[Block | None] = [None] * depth
        n_leaves = left = 1 << depth
        for leaf in range(n_leaves):
            if leaf % _DRAWN == 0:
                u = self._uniforms(n_leaves + leaf, min(n_leaves, _DRAWN))
                self._log_u = _ops.elementwise_math("log", u)
            if leaf == 0:
                self._log_accept = self._log_u[0]
            left = self._visit(leaf, is_last=leaf + 1 == n_leaves)
            if left == 0:
                break
        return left

    def _visit(self, leaf: int, *, is_last: bool) -> int:
        """Move on by one leaf of the new half; return how many trees still grow."""
        self._at = self._at.addcmul(self._half_h, self._metric.push(self._half), value=2)
        value, score = self._evaluate()
        pulled = self._metric.pull(score)
        kick = self._half_h * pulled
        momentum = self._half + kick
        self._half = momentum + kick
        self._visited += 1
        before = self._alive
        has_diverged = self._weigh(leaf, momentum, value, score)
        block = self._join(leaf, Block(momentum, momentum, momentum))
        if is_last:
            self._unite(block, torch.stack((self._at, momentum, pulled)))
        if self._alive is before:
            return len(self._alive)  # none ended here, and others are no concern of the caller
        left = int(self._alive.sum())
        self._end(before & ~self._alive)
        if has_diverged or 2 * left < len(self._alive):
            self._drop()
        elif left < len(self._alive):
            self._half_h = self._half_h.where(self._alive[:, None], 0.0)  # the others stand still
        return left

    def _evaluate(self) -> tuple[Tensor, Tensor]:
        """Return the log-density and the score at the leaves.

        The target is given a row of each chain, since it may hold data of each: where a tree has
        ended it is the chain's next state.
        """
        state, rows = self._state, self._rows
        all_grow = len(rows) == len(self.x)
        points = self._at if all_grow else self.x.index_copy(0, rows, self._at)
        value, score = state.evaluate(points.reshape(-1, *state.x.shape[1:]))
        if state.raised is not None:
            value = value.masked_fill(state.raised, torch.nan)
        score = _ops.rows(score)
        if all_grow:
            return value, score
        return value.index_select(0, rows), score.index_select(0, rows)

    def _weigh(self, leaf: int, momentum: Tensor, value: Tensor, score: Tensor) -> bool:
        """Take in the weight of a leaf; return whether any trajectory diverged there."""
        square = (momentum * momentum).sum(1)
        gain = (value - self._start) + torch.sub(self._kinetic, square, alpha=0.5)
        probability = _ops.elementwise_math("exp", gain.clamp(max=0.0))
        lowest, highest = gain.aminmax()
        has_diverged = not (float(lowest) >= -DIVERGENCE and float(highest) < torch.inf)
        if has_diverged:
            finite = gain < torch.inf
            fine = finite & (gain >= -DIVERGENCE)
            probability = probability.where(finite, 0.0)
            self._diverged = self._diverged | (self._alive & ~fine)
            self._nonfinite = self._nonfinite | (self._alive & ~finite)
            self._alive = self._alive & fine
        self._running = self._running + probability
        if leaf == 0:
            self._new_weight, self._new_value = gain, value
            self._new_x, self._new_score = self._at, score
            return has_diverged
        self._new_weight = _add_logs(self._new_weight, gain)
        taken = self._log_u[leaf % _DRAWN] <= gain - self._new_weight
        self._new_value = torch.where(taken, value, self._new_value)
        taken = taken[:, None]
        self._new_x = torch.where(taken, self._at, self._new_x)
        self._new_score = torch.where(taken, score, self._new_score)
        return has_diverged

    def _join(self, leaf: int, block: Block) -> Block:
        """Join the block that ends at a leaf to those that wait for it; return the longest."""
        size = 0
        while leaf >> size & 1:
            waiting = self._blocks[size]
            if waiting is None:
                raise RuntimeError("a leaf without the block before it")
            total = waiting.total + block.total
            self._alive = self._alive & goes_on(waiting, block, total)
            block = Block(total, waiting.first, block.last)
            self._blocks[size] = None
            size += 1
        if size < len(self._blocks):
            self._blocks[size] = block
        return block

    def _unite(self, block: Block, end: Tensor) -> None:
        """Add the new half, which is complete, to the trajectories."""
        taken = self._alive & (self._log_accept <= self._new_weight - self._weight)
        self._weight = _add_logs(self._weight, self._new_weight)
        self._value = torch.where(taken, self._new_value, self._value)
        self._x = torch.where(taken[:, None], self._new_x, self._x)
        self._score = torch.where(taken[:, None], self._new_score, self._score)
        total = self._total + block.total
        before = Block(self._total, self._far, self._near)
        if len(self._blocks) == 0:  # one point and one point
            before = before._replace(first=self._near, last=self._near)
        self._alive = self._alive & goes_on(before, block, total)
        self._total = total
        side = torch.stack((~self._forward, self._forward))[:, None, :, None]
        self._ends = torch.where(side, end, self._ends)

    def _end(self, ended: Tensor) -> None:
        """Note what the trees that end here have visited."""
        self._accepted = torch.where(ended, self._running, self._accepted)
        self._leaves = self._leaves.masked_fill(ended, self._visited)

    def _drop(self) -> None:
        """Leave out the trees that have ended, after noting what became of them."""
        self._retire()
        keep = self._alive.nonzero()[:, 0]
        for name in self._VECTORS:
            setattr(self, name, getattr(self, name).index_select(-2, keep))
        for name in self._SCALARS:
            setattr(self, name, getattr(self, name).index_select(-1, keep))
        self._blocks = [block and _rows_of(block, keep) for block in self._blocks]

    def _retire(self) -> None:
        for result, now in (
            (self.x, self._x),
            (self.score, self._score),
            (self.log_density, self._value),
            (self.accepted, self._accepted),
            (self.n_leaves, self._leaves),
            (self.diverged, self._diverged),
            (self.nonfinite, self._nonfinite),
        ):
            result.index_copy_(0, self._rows, now)


def _add_logs(a: Tensor, b: Tensor) -> Tensor:
    """Return log(e^a + e^b) by functions whose bits do not depend on the place in a tensor."""
    smaller = _ops.elementwise_math("exp", (a - b).abs_().neg_())
    return torch.maximum(a, b) + _ops.elementwise_math("log1p", smaller)


def _rows_of(block: Block, rows: Tensor) -> Block:
    total, first = block.total.index_select(0, rows), block.first.index_select(0, rows)
    last = first if block.last is block.first else block.last.index_select(0, rows)
    return Block(total, first, last)
