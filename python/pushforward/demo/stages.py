# SPDX-License-Identifier: Apache-2.0
"""Saying what runs and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stages:
    """The demo's stages, announced as they begin and timed as they end.

    Attributes:
        seconds: wall-clock seconds of each finished stage, by title.

    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Print the title now and the seconds at the end."""
        print(f"{title} ...", flush=True)
        began = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - began
        print(f"  {self.seconds[title]:.1f} s", flush=True)

    def total(self) -> float:
        """Return the seconds since the first stage could begin."""
        return time.perf_counter() - self._began


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, for networks too small to gain much from two.

    Two of torch's threads that wait for each other on a busy machine are slower by an order.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
