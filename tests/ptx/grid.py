# SPDX-License-Identifier: Apache-2.0
"""The threads of a launch, as arrays: who they are, and what warps and blocks do together."""

import numpy as np

from ptx.memory import UNSET

_LANES = np.arange(32, dtype=np.uint32)


class Grid:
    """Number i is thread i % block of block i // block."""

    def __init__(self, grid, block):
        n, warps = grid * block, -(-block // 32)
        thread = np.arange(n, dtype=np.uint32)
        tid, ctaid = thread % block, thread // block
        lane = tid % 32
        self.n_blocks, self.n_threads = grid, n
        self.exited = np.zeros(n, bool)
        self.block_of, self.lane_of = ctaid, lane
        self.warp_of = ctaid * warps + tid // 32
        self._thread_at = np.full((warps * grid, 32), -1)
        self._thread_at[self.warp_of, lane] = thread
        below = (np.uint32(1) << lane) - np.uint32(1)
        self.special = {
            "tid": tid,
            "ntid": np.full(n, block, np.uint32),
            "ctaid": ctaid,
            "nctaid": np.full(n, grid, np.uint32),
            "laneid": lane,
            "warpid": tid // 32,
            "lanemask_eq": below + np.uint32(1),
            "lanemask_lt": below,
            "lanemask_le": below << 1 | 1,
            "lanemask_gt": ~(below << 1 | 1),
            "lanemask_ge": ~below,
        }

    def complete_blocks(self, threads):
        """Which threads have all threads of their block that are still running among them."""
        missing = np.bincount(self.block_of[~self.exited], minlength=self.n_blocks)
        missing -= np.bincount(self.block_of[threads], minlength=self.n_blocks)
        return missing[self.block_of[threads]] == 0

    def complete_warps(self, threads, mask):
        """The same for the lanes of the thread's warp that its mask names."""
        absent = (self._thread_at >= 0) & ~self.exited[self._thread_at]
        absent[self.warp_of[threads], self.lane_of[threads]] = False
        return ~(self._named(mask) & absent[self.warp_of[threads]]).any(1)

    def shuffle(self, mode, threads, value, b, bound):
        """shfl.sync: each thread's value from another lane, and whether that lane was in range."""
        lane = self.lane_of[threads].astype(int)
        b, bound = b.astype(int) & 31, bound.astype(int)
        segment = bound >> 8 & 31
        last = (lane & segment) | (bound & 31 & ~segment)
        choices = {"up": lane - b, "down": lane + b, "bfly": lane ^ b}
        source = choices[mode] if mode in choices else (lane & segment) | (b & ~segment)
        in_range = source >= last if mode == "up" else source <= last
        table = self._lanes(threads, np.uint32(UNSET * 0x01010101), value)
        return table[self.warp_of[threads], np.where(in_range, source, lane)], in_range

    def vote(self, mode, threads, said, mask):
        """vote.sync: any, all or the bits of a predicate of the lanes that the mask names."""
        named = self._named(mask)
        said = self._lanes(threads, False, said)[self.warp_of[threads]]
        if mode == "ballot":
            return ((said & named) * (np.uint32(1) << _LANES)).sum(1, dtype=np.uint32)
        return {"any": (said & named).any(1), "all": (said | ~named).all(1)}[mode]

    def _named(self, mask):
        return mask[:, None] >> _LANES & 1 == 1

    def _lanes(self, threads, fill, values):
        """Values of threads as a table (warps, 32)."""
        table = np.full(self._thread_at.shape, fill)
        table[self.warp_of[threads], self.lane_of[threads]] = values
        return table
