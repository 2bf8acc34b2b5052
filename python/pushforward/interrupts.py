# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C that waits until the state of a run is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Interrupt", "deferred_interrupt"]


class Interrupt:
    """Whether Ctrl-C was pressed, and whose handler was there before ours."""

    def __init__(self, before: Any = None) -> None:
        self.before = before
        self.pressed = False
        self._holds = False

    def hold(self) -> None:
        """Let no Ctrl-C raise: the state is being changed, and what is counted with it."""
        self._holds = True

    def release(self) -> None:
        """Let a second Ctrl-C raise again: the state is whole."""
        self._holds = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold, and release at the end."""
        self.hold()
        try:
            yield
        finally:
            self.release()

    def is_set(self) -> bool:
        """Whether to end the run."""
        return self.pressed

    def handle(self, number: int, frame: Any) -> None:
        """Note the first Ctrl-C; a second one, for a target that never returns, raises at once."""
        if self.pressed and not self._holds:
            raise KeyboardInterrupt
        self.pressed = True

    def deliver(self) -> None:
        """Hand a Ctrl-C to a handler of the caller's, now that the state is whole."""
        if self.pressed and self.before is not signal.default_int_handler:
            self.pressed = False
            self.before(signal.SIGINT, None)


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Let Ctrl-C wait for the end of a chunk, so that what is returned is whole."""
    before = signal.getsignal(signal.SIGINT)
    interrupt = Interrupt(before)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupt  # signals do not arrive here, or are not for Python
        return
    signal.signal(signal.SIGINT, interrupt.handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
    interrupt.deliver()
