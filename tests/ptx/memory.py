# SPDX-License-Identifier: Apache-2.0
"""The memory that interpreted kernels see: NumPy buffers at made-up 64-bit addresses.

One address means one thing in all spaces, so conversions between them (cvta) change nothing. A
buffer belongs to all threads, or has a copy for each thread (.local) or each block (.shared).
Between buffers lies nothing: an access that is not inside one raises IndexError.
"""

from bisect import bisect_right, insort

import numpy as np

FIRST_ADDRESS = {
    "param": 0x0000_0001_0000,
    "shared": 0x0000_0100_0000,  # below 2^32, as its addresses fit 32-bit registers
    "local": 0x0001_0000_0000,
    "module": 0x0100_0000_0000,
    "global": 0x7F00_0000_0000,
}
UNSET = 0xA5  # fresh memory and registers: a value that nobody computes with by mistake


class Buffer:
    def __init__(self, address, rows, row_of_thread=None):
        self.address, self.size = address, rows.shape[1]
        self.row_of_thread = row_of_thread
        self._rows, self._views = rows, {}

    def view(self, dtype):
        if dtype not in self._views:
            whole = self.size // dtype.itemsize * dtype.itemsize
            self._views[dtype] = self._rows[:, :whole].view(dtype)
        return self._views[dtype]

    def rows(self, threads):
        return 0 if self.row_of_thread is None else self.row_of_thread[threads]


class Memory:
    """Global memory of a launch; `add` puts a caller's array into it and gives its address."""

    def __init__(self):
        self._addresses, self._buffers = [], {}
        self._next = dict(FIRST_ADDRESS)

    def add(self, array, offset=0):
        """Map a contiguous array, which the kernel then reads and writes itself.

        The address is a multiple of 256 plus `offset`.
        """
        if not array.flags.c_contiguous:
            raise ValueError("expected a contiguous array")
        rows = array.reshape(1, -1).view(np.uint8)
        address = self._reserve("global", rows.size + offset) + offset
        self._insert(Buffer(address, rows))
        return address

    def fresh(self, space, size, copies=1, row_of_thread=None):
        """Map a new buffer and return it."""
        rows = np.full((copies, -(-size // 16) * 16), UNSET, np.uint8)
        buffer = Buffer(self._reserve(space, size), rows, row_of_thread)
        buffer.size = size
        return self._insert(buffer)

    def remove(self, buffer):
        self._addresses.remove(buffer.address)
        del self._buffers[buffer.address]

    def _reserve(self, space, size):
        address = self._next[space]
        self._next[space] += -(-(size + 256) // 256) * 256
        return address

    def _insert(self, buffer):
        insort(self._addresses, buffer.address)
        self._buffers[buffer.address] = buffer
        return buffer

    def _pieces(self, addresses, size):
        """(buffer, which accesses, offsets) for accesses of `size` bytes; None stands for all."""
        if (addresses & np.uint64(size - 1)).any():
            raise IndexError(f"address {int(addresses.max()):#x} is no multiple of {size}")
        at = bisect_right(self._addresses, int(addresses[0])) - 1
        if at >= 0:
            buffer = self._buffers[self._addresses[at]]
            offset = addresses - np.uint64(buffer.address)  # wraps below the buffer
            if buffer.size >= size and (offset <= np.uint64(buffer.size - size)).all():
                yield buffer, None, offset
                return
        found = np.searchsorted(np.array(self._addresses, np.uint64), addresses, "right") - 1
        for k in np.unique(found):
            which = np.flatnonzero(found == k)
            buffer = self._buffers[self._addresses[k]] if k >= 0 else None
            inside = addresses[which] - np.uint64(buffer.address) if buffer else None
            limit = buffer.size - size if buffer else -1
            if limit < 0 or (inside > np.uint64(limit)).any():
                bad = which[0 if limit < 0 else np.argmax(inside > np.uint64(limit))]
                near = f"; {buffer.size} bytes start at {buffer.address:#x}" if buffer else ""
                raise IndexError(
                    f"{size} bytes at {int(addresses[bad]):#x} are outside all buffers{near}"
                )
            yield buffer, which, inside

    def load(self, addresses, dtype, threads):
        """The values at `addresses`, which are one a thread or one for all."""
        addresses = np.broadcast_to(addresses, threads.shape)
        values = np.empty(threads.shape, dtype)
        for buffer, which, offset in self._pieces(addresses, dtype.itemsize):
            index = offset >> np.uint64(dtype.itemsize.bit_length() - 1)
            who = threads if which is None else threads[which]
            values[slice(None) if which is None else which] = buffer.view(dtype)[
                buffer.rows(who), index
            ]
        return values

    def store(self, addresses, values, threads):
        addresses = np.broadcast_to(addresses, threads.shape)
        values = np.broadcast_to(values, threads.shape)
        dtype = values.dtype
        for buffer, which, offset in self._pieces(addresses, dtype.itemsize):
            index = offset >> np.uint64(dtype.itemsize.bit_length() - 1)
            who, what = (threads, values) if which is None else (threads[which], values[which])
            buffer.view(dtype)[buffer.rows(who), index] = what
