# SPDX-License-Identifier: Apache-2.0
"""The arrays of a store: rows of draws in, rows of draws out."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from pushforward.files import sync_folder
from pushforward.storage.disk import COORDINATES, LOG_DENSITY, zarr_module
from pushforward.storage.layout import Layout

__all__ = ["Arrays"]


class Arrays:
    """The arrays that have one entry a draw.

    Raises:
        ValueError: they cannot be opened, or are not what the layout says.

    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path, self._layout = path, layout
        try:
            self._open(zarr_module())
        except Exception as error:  # json's, Zarr's, the system's
            raise ValueError(f"store {path}: is damaged ({error})") from error

    def _open(self, zarr: Any) -> None:
        layout = self._layout
        parts = [(f"posterior/{name}", size, layout.dtype) for name, size, _ in layout.parts()]
        parts.append((LOG_DENSITY, (), layout.density_dtype))
        # A chunk of nothing is written like any other, to be told from a missing one.
        with zarr.config.set({"array.write_empty_chunks": True}):
            self._held = {key: zarr.open_array(self._path / key, mode="r+") for key, _, _ in parts}
        self._draw = [zarr.open_array(self._path / key, mode="r+") for key in COORDINATES]
        for key, size, dtype in parts:
            array = self._held[key]
            found = ((array.shape[0], *array.shape[2:]), array.chunks, str(array.dtype))
            expected = ((layout.n_chains, *size), layout.chunk(size), dtype)
            if found != expected:
                raise ValueError(f"{key}: expected shape, chunks and type {expected}, got {found}")

    def number(self, n: int) -> None:
        """Write the coordinates of ``n`` draws."""
        for array in self._draw:
            array[:n] = np.arange(n)

    def forget(self, n: int) -> None:
        """Delete the chunks that have no draw before ``n``."""
        first = -(-n // self._layout.n_chunk)
        for key in self._held:
            for file in (self._path / key).glob("c.*"):
                if int(file.name.split(".")[2]) >= first:
                    file.unlink()

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return draws ``(n_chains, n, *event)`` and log-densities ``(n_chains, n)``.

        Raises:
            OSError: they cannot be read.
            ValueError: a chunk is damaged or missing.

        """
        n, layout = stop - start, self._layout
        flat = np.empty((layout.n_chains, n, math.prod(layout.event)), layout.dtype)
        self._check_files(start, stop)
        try:
            for name, _, place in layout.parts():
                part = self._held[f"posterior/{name}"][:, start:stop]
                flat[..., place] = part.reshape(layout.n_chains, n, place.stop - place.start)
            log_density = self._held[LOG_DENSITY][:, start:stop]
        except OSError:
            raise
        except Exception as error:  # a codec's, of any class
            raise ValueError(f"store {self._path}: a chunk is damaged ({error})") from error
        return flat.reshape(layout.n_chains, n, *layout.event), log_density

    def _check_files(self, start: int, stop: int) -> None:
        """Raise ValueError where a chunk is missing, which Zarr would fill with nothing."""
        if start == stop:
            return
        n = self._layout.n_chunk
        for key, array in self._held.items():
            counts = [-(-size // c) for size, c in zip(array.shape, array.chunks, strict=True)]
            places = [range(count) for count in counts]
            places[1] = range(start // n, -(-stop // n))
            for place in itertools.product(*places):
                file = self._path / key / ".".join(("c", *map(str, place)))
                if not file.exists():
                    raise ValueError(f"store {self._path}: a chunk is missing ({key}/{file.name})")

    def write_chunk(self, index: int, draws: np.ndarray, log_density: np.ndarray) -> None:
        """Write one chunk of draws ``(n_chains, n_chunk, *event)`` and bring it to the disk."""
        layout = self._layout
        start = index * layout.n_chunk
        stop = min(start + layout.n_chunk, self._held[LOG_DENSITY].shape[1])
        flat = draws.reshape(*log_density.shape, math.prod(layout.event))
        for name, size, place in layout.parts():
            part = flat[:, : stop - start, place].reshape(layout.n_chains, stop - start, *size)
            self._held[f"posterior/{name}"][:, start:stop] = part
        self._held[LOG_DENSITY][:, start:stop] = log_density[:, : stop - start]
        for key, array in self._held.items():
            _sync_chunk(self._path / key, index, array.ndim)


def _sync_chunk(array: Path, index: int, n_dims: int) -> None:
    """Bring the files that chunk ``index`` along the draws has to the disk."""
    for file in array.glob(f"c.*.{index}" + ".*" * (n_dims - 2)):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    sync_folder(array)
