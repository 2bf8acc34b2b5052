# SPDX-License-Identifier: Apache-2.0
"""The store of draws: appended in memory, written chunk by chunk, truncated, read."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward import _ops
from pushforward.facts import as_json, difference
from pushforward.files import locked
from pushforward.storage.arrays import Arrays
from pushforward.storage.disk import (
    StoreFull,
    build,
    check_free,
    explained,
    make_room,
    read_root,
    record,
    zarr_module,
)
from pushforward.storage.layout import Layout

__all__ = ["DrawStore", "StoreFull"]


class DrawStore:
    """A store of draws ``(n_kept, n_chains, *event)`` and their log-densities on disk.

    Draws are gathered to whole chunks of some megabytes; each is checksummed, synchronised to the
    disk and only then counted. One process writes at a time; any number may read.

    Made by :meth:`create` and :meth:`open`; a context manager, which closes it.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from pushforward.storage import DrawStore
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "draws.zarr"
        ...     with DrawStore.create(
        ...         path, n_kept=5, n_chains=2, event=(3,), dtype=torch.float32
        ...     ) as store:
        ...         store.append(torch.ones(4, 2, 3), torch.zeros(4, 2))
        ...     store = DrawStore.open(path)
        ...     store.n_written, store.read(1, 3)[0].shape
        (4, torch.Size([2, 2, 3]))

    """

    def __init__(self, path: Path, layout: Layout, n_written: int, attributes: dict) -> None:
        """Not for callers: see :meth:`create` and :meth:`open`."""
        self.path, self.attributes = path, attributes
        self._layout, self._n_written = layout, n_written
        self._arrays = Arrays(path, layout)
        self._lock: int | None = None
        self._error: OSError | None = None
        self._closed = False
        self._start, self._fill = 0, 0  # the chunk being filled: its first draw, its draws
        self._draws = self._log_density = np.empty(0)

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        n_kept: int,
        n_chains: int,
        event: Sequence[int],
        dtype: torch.dtype,
        names: Mapping[str, Sequence[int]] | Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> DrawStore:
        """Make a store where there is nothing yet.

        Args:
            path: the folder to make, such as ``Path("draws.zarr")``.
            n_kept: how many draws to make room for; only what is written takes space.
            n_chains: chains of each draw.
            event: shape of a chain's state.
            dtype: float16, float32, float64, or int8 for spins, whose log-densities are float64.
            names: variables that an event is split into, row by row: a dict from names to shapes,
                or a list of names of numbers. By default there is one, ``x``, of shape ``event``.
            attributes: what the store should say of the run, as JSON can hold it.

        Raises:
            ImportError: Zarr is not installed.
            TypeError: an argument has the wrong type.
            ValueError: an argument has a wrong value, or ``path`` exists.
            OSError: the path cannot be written.
            StoreFull: the disk is full.

        """
        zarr_module()
        path = _checked(path)
        layout = Layout.of(n_kept, n_chains, event, dtype, names)
        facts = json.loads(as_json({} if attributes is None else attributes, "attributes"))
        if "pushforward" in facts:
            raise ValueError("attributes: expected other names, got 'pushforward', which is taken")
        check_free(path)
        with explained(path):
            build(path, layout, facts)
        try:
            store = cls(path, layout, 0, facts)
            store._own()
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return store

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        n_kept: int | None = None,
        n_chains: int | None = None,
        event: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        names: Mapping[str, Sequence[int]] | Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> DrawStore:
        """Open a store to read it, or to go on with :meth:`append`.

        What is given is compared with what the store has. ``n_kept`` may be larger than it was:
        the store then gets room for more.

        Raises:
            ImportError: Zarr is not installed.
            TypeError: an argument has the wrong type.
            ValueError: ``path`` is no store of draws, is damaged, or differs from the arguments.
            OSError: the path cannot be read.

        """
        zarr_module()
        path = _checked(path)
        layout, n_written, found = read_root(path)
        expected = layout.expected(n_chains, event, dtype, names)
        had: dict[str, Any] = {key: layout.to_json()[key] for key in expected}
        if attributes is not None:
            expected["attributes"], had["attributes"] = dict(attributes), found
        told = difference(expected, had, "the store")
        if told:
            raise ValueError(f"store {path}: {told}")
        if n_kept is not None and _ops.count(n_kept, "n_kept") < layout.n_kept:
            raise ValueError(
                f"store {path}: n_kept: the store has {layout.n_kept}, this call has {n_kept}"
            )
        store = cls(path, layout, n_written, found)
        if n_kept is not None:
            store._layout = replace(layout, n_kept=n_kept)
        return store

    # ---- what it is ------------------------------------------------------------------------------

    @property
    def n_written(self) -> int:
        """How many draws are on disk; after :meth:`append` there may be more in memory."""
        return self._n_written

    @property
    def n_kept(self) -> int:
        """How many draws there is room for."""
        return self._layout.n_kept

    @property
    def n_chains(self) -> int:
        """How many chains each draw has."""
        return self._layout.n_chains

    @property
    def event(self) -> tuple[int, ...]:
        """The shape of a chain's state."""
        return self._layout.event

    @property
    def dtype(self) -> torch.dtype:
        """The type of draws; log-densities have it too, or float64 where draws are spins."""
        return self._layout.torch_dtype

    def __repr__(self) -> str:
        return (
            f"DrawStore({str(self.path)!r}, n_written={self.n_written}, n_kept={self.n_kept}, "
            f"n_chains={self.n_chains}, event={self.event}, dtype={self.dtype})"
        )

    # ---- writing ---------------------------------------------------------------------------------

    def append(self, draws: Tensor, log_density: Tensor) -> None:
        """Add draws; whole chunks go to disk, the rest waits for more or for :meth:`flush`.

        Args:
            draws: ``(n, n_chains, *event)``.
            log_density: ``(n, n_chains)``.

        Raises:
            TypeError: an argument is not a tensor of the store's type.
            ValueError: it has another shape, there is no room for so many, or the store is closed.
            StoreFull: the disk is full. Then and afterwards the chunks before are whole,
                :attr:`n_written` counts them, and nothing more is taken.
            OSError: the disk refuses for another reason; likewise.

        """
        self._own()
        self._layout.check_draws(draws)
        self._layout.check_log_density(log_density)
        n, room = len(draws), self.n_kept - self._start - self._fill
        if len(log_density) != n:
            raise ValueError(f"log_density: expected {n} rows like draws, got {len(log_density)}")
        if n > room:
            raise ValueError(f"draws: expected at most {room} more draws, got {n}")
        done = 0
        while done < n:
            take = min(self._layout.n_chunk - self._fill, n - done)
            to, rows = slice(self._fill, self._fill + take), slice(done, done + take)
            self._draws[:, to] = draws[rows].detach().cpu().transpose(0, 1).numpy()
            self._log_density[:, to] = log_density[rows].detach().cpu().T.numpy()
            self._fill += take
            done += take
            if self._fill == self._layout.n_chunk:
                self._write()

    def flush(self) -> None:
        """Bring all draws to disk; :attr:`n_written` then counts all that were appended.

        Raises:
            ValueError: the store is closed.
            OSError: as in :meth:`append`.

        """
        self._own()
        if self._start + self._fill > self._n_written:
            self._write()

    def truncate(self, n: int) -> None:
        """Forget all draws but the first ``n``, to go on from there.

        Raises:
            TypeError: ``n`` is not an int.
            ValueError: there are fewer on disk, or the store is closed.
            OSError: as in :meth:`append`.

        """
        if not 0 <= _ops.count(n, "n") <= self._n_written:
            raise ValueError(f"n: expected at most {self._n_written} draws, got {n}")
        self._own()
        self._settle(n)

    def close(self) -> None:
        """Bring all draws to disk and let others write. A closed store can still be read.

        Raises:
            OSError: as in :meth:`append`.

        """
        if self._lock is None:
            self._closed = True
            return
        try:
            if self._error is None:
                self.flush()
                with self._writing():
                    make_room(self.path, self._n_written)
        finally:
            os.close(self._lock)
            self._lock, self._closed = None, True

    def __enter__(self) -> DrawStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- reading ---------------------------------------------------------------------------------

    def read(self, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """Return draws ``start .. stop - 1`` of those on disk.

        Args:
            start: first draw.
            stop: the draw after the last; by default all there are.

        Returns:
            Draws ``(n, n_chains, *event)`` and log-densities ``(n, n_chains)``.

        Raises:
            TypeError: an argument is not an int.
            ValueError: there are fewer draws, or a chunk is damaged or missing.

        """
        start = _ops.count(start, "start")
        stop = self._n_written if stop is None else _ops.count(stop, "stop")
        if not start <= stop <= self._n_written:
            raise ValueError(
                f"start, stop: expected 0 <= start <= stop <= {self._n_written}, got {start}, "
                f"{stop}"
            )
        with explained(self.path):
            draws, log_density = self._arrays.read(start, stop)
        return _by_draw(draws), _by_draw(log_density)

    # ---- the one writer --------------------------------------------------------------------------

    def _own(self) -> None:
        """Become the one who writes, and take up the chunk that was begun."""
        if self._closed:
            raise ValueError(f"store {self.path}: expected an open store, got a closed one")
        if self._error is not None:
            with explained(self.path):
                raise self._error
        if self._lock is not None:
            return
        with explained(self.path):
            lock = os.open(self.path, os.O_RDONLY)
            try:
                locked(lock)
                self._take_up()
            except BaseException:
                os.close(lock)
                raise
        self._lock = lock

    def _take_up(self) -> None:
        for rest in self.path.rglob("*.partial"):  # of a writer that was killed
            rest.unlink(missing_ok=True)
        room = self.n_kept
        layout, n, self.attributes = read_root(self.path)
        make_room(self.path, max(room, layout.n_kept))  # closing had left none
        self._arrays = Arrays(self.path, layout)
        if room > layout.n_kept:
            self._arrays.number(room)
            layout = replace(layout, n_kept=room)
        self._layout = layout
        block = (layout.n_chains, layout.n_chunk)
        self._draws = np.empty((*block, *layout.event), layout.dtype)
        self._log_density = np.empty(block, layout.density_dtype)
        self._settle(n)

    def _settle(self, n: int) -> None:
        """Leave ``n`` draws on disk and room for the rest, and fill the last chunk from them."""
        fill = n % self._layout.n_chunk
        with explained(self.path):
            draws, log_density = self._arrays.read(n - fill, n)
        self._start, self._fill = n - fill, fill
        self._draws[:, :fill], self._log_density[:, :fill] = draws, log_density
        with self._writing():
            record(self.path, self._layout, n, self.attributes)
            self._n_written = n
            self._arrays.forget(n)
            if fill:
                self._write_chunk()

    def _write(self) -> None:
        """Write the chunk being filled, count it, and begin the next if it is full."""
        with self._writing():
            self._write_chunk()
            n = self._start + self._fill
            record(self.path, self._layout, n, self.attributes)
            self._n_written = n
        if self._fill == self._layout.n_chunk:
            self._start, self._fill = n, 0

    def _write_chunk(self) -> None:
        rest = slice(self._fill, None)
        self._draws[:, rest], self._log_density[:, rest] = self._layout.nothing, np.nan
        index = self._start // self._layout.n_chunk
        self._arrays.write_chunk(index, self._draws, self._log_density)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with explained(self.path):
            try:
                yield
            except OSError as error:
                self._error = error
                raise


def _by_draw(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows.swapaxes(0, 1)))


def _checked(path: Any) -> Path:
    if not isinstance(path, Path):
        raise TypeError(f"path: expected a pathlib.Path, got {type(path).__name__}")
    return path.absolute()
