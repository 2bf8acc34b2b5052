# SPDX-License-Identifier: Apache-2.0
"""How many steps the driver takes before it looks up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["SECONDS", "Pace"]

SECONDS = 0.1
"""Of a chunk, about."""
_IN_FLIGHT = 2
_GROWTH = 64  # of chunks, at most: the first may have been lucky


class Pace:
    """Chooses chunks of about 0.1 s from how long the last ones took, after one of ``first`` steps.

    Work on a GPU is only queued, so there a chunk is timed by events, and the host waits for the
    chunk before the last: it stays ahead of the GPU, and not so far that Ctrl-C comes late.
    """

    def __init__(self, device: torch.device, first: int = 1) -> None:
        self.chunk = first
        self._device = device
        self._queued: deque[tuple[int, torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def timed(self, n: int) -> Iterator[None]:
        """Take the time of a chunk of ``n`` steps."""
        if self._device.type != "cuda":
            began = time.perf_counter()
            yield
            self._learn(n, time.perf_counter() - began)
            return
        with torch.cuda.device(self._device):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            yield
            last.record()
        self._queued.append((n, first, last))
        if len(self._queued) > _IN_FLIGHT:
            steps, began_at, ended_at = self._queued.popleft()
            ended_at.synchronize()
            self._learn(steps, began_at.elapsed_time(ended_at) / 1000)

    def _learn(self, n: int, seconds: float) -> None:
        self.chunk = max(1, min(_GROWTH * n, int(n * SECONDS / max(seconds, 1e-9))))
