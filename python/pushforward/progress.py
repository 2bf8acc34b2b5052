# SPDX-License-Identifier: Apache-2.0
"""The progress bar: tqdm where it is installed and somebody watches, else nothing."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from typing import Any

_SECONDS = 2.0


class Report:
    """Adds what a run says of itself to a bar, if any, every two seconds and at the end."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _SECONDS

    def tell(self, bar: Any, run: Any, *, last: bool = False) -> None:
        """Ask ``run.so_far()`` and show it, if it is time or the last time."""
        if isinstance(bar, _Silent) or (time.monotonic() < self._next and not last):
            return
        bar.set_postfix(run.so_far())
        self._next = time.monotonic() + _SECONDS


class _Silent(AbstractContextManager["_Silent"]):
    def update(self, n: int) -> None:
        """Do nothing."""

    def __exit__(self, *exception: object) -> None:
        """Do nothing."""


def progress_bar(show: bool | None, *, total: int, unit: str = "step") -> Any:
    """Return a context manager with ``update(n)``.

    Args:
        show: whether to show a bar; None asks whether stderr is a terminal.
        total: number of units.
        unit: what is counted.

    Raises:
        TypeError: ``show`` is neither a bool nor None.
        ImportError: ``show`` is True and tqdm is not installed.

    """
    if show is not None and not isinstance(show, bool):
        raise TypeError(f"progress: expected True, False or None, got {type(show).__name__}")
    if show is False or (show is None and not sys.stderr.isatty()):
        return _Silent()
    try:
        from tqdm import tqdm
    except ImportError as error:
        if show is None:
            return _Silent()
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error
    return tqdm(total=total, unit=unit, file=sys.stderr, mininterval=0.2, dynamic_ncols=True)
