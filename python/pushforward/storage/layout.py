# SPDX-License-Identifier: Apache-2.0
"""How the draws of a run lie in a store: variables, types, lengths of chunks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pushforward import _ops

__all__ = ["DTYPES", "Layout", "variables"]

DTYPES = (torch.float16, torch.float32, torch.float64, torch.int8)
"""Types of draws: numbers, except bfloat16, which arrays on disk do not have, and spins."""

_CHUNK = 4 << 20  # bytes of a chunk of the largest variable, where one draw is not larger
_LARGEST_CHUNK = 16 << 20
_BUFFER = 64 << 20  # bytes of the chunks of all variables together


@dataclass(frozen=True)
class Layout:
    """What is fixed when a store is made.

    Attributes:
        n_kept: how many draws there is room for.
        n_chains: chains of each draw.
        event: shape of a chain's state.
        dtype: of draws, without ``torch.``.
        names: the variables that an event is split into, in order, with their shapes; None for
            one, ``x``.
        n_chunk: draws of a chunk, in every variable.

    """

    n_kept: int
    n_chains: int
    event: tuple[int, ...]
    dtype: str
    names: dict[str, tuple[int, ...]] | None
    n_chunk: int = 0

    @classmethod
    def of(cls, n_kept: Any, n_chains: Any, event: Any, dtype: Any, names: Any) -> Layout:
        """Return the layout for checked arguments, with chunks of 1 to 16 MB where that can be.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: it has the right type and a wrong value.

        """
        n_kept, n_chains = _ops.count(n_kept, "n_kept"), _ops.count(n_chains, "n_chains")
        event = shape(event, "event")
        if dtype not in DTYPES:
            raise TypeError(f"dtype: expected float16, float32, float64 or int8, got {dtype}")
        if names is not None:
            names = variables(names, event)
        per_variable = [
            dtype.itemsize * n_chains * math.prod(s) for s in (names or {"x": event}).values()
        ]
        n_chunk = min(
            _CHUNK // max(1, max(per_variable, default=1)),
            _BUFFER // max(1, sum(per_variable)),
            max(1, n_kept),
        )
        kind = str(dtype).removeprefix("torch.")
        return cls(n_kept, n_chains, event, kind, names, max(1, n_chunk))

    @classmethod
    def from_json(cls, found: Any) -> Layout:
        """Return what :meth:`to_json` gave.

        Raises:
            TypeError, ValueError, KeyError: it is something else.

        """
        names = found["names"]
        if names is not None:
            names = {name: shape(s, "names") for name, s in names}
        dtype = getattr(torch, found["dtype"])
        layout = cls.of(found["n_kept"], found["n_chains"], found["event"], dtype, names)
        n_chunk = _ops.count(found["n_chunk"], "n_chunk", 1)
        return replace(layout, n_chunk=n_chunk)

    def to_json(self) -> dict[str, Any]:
        """Return the layout as JSON can hold it."""
        names = None if self.names is None else [[k, list(s)] for k, s in self.names.items()]
        return {
            "n_kept": self.n_kept,
            "n_chains": self.n_chains,
            "event": list(self.event),
            "dtype": self.dtype,
            "names": names,
            "n_chunk": self.n_chunk,
        }

    def expected(self, n_chains: Any, event: Any, dtype: Any, names: Any) -> dict[str, Any]:
        """Return what a call expects of this layout, as in :meth:`to_json`; None is anything."""
        found: dict[str, Any] = {}
        if n_chains is not None:
            found["n_chains"] = _ops.count(n_chains, "n_chains")
        if event is not None:
            found["event"] = list(shape(event, "event"))
        if dtype is not None:
            found["dtype"] = str(dtype).removeprefix("torch.")
        if names is not None:
            of = self.event if event is None else tuple(found["event"])
            found["names"] = [[name, list(size)] for name, size in variables(names, of).items()]
        return found

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of draws."""
        return getattr(torch, self.dtype)

    @property
    def density_dtype(self) -> str:
        """The type of log-densities, without ``torch.``: that of draws, float64 for spins."""
        return "float64" if self.dtype == "int8" else self.dtype

    @property
    def nothing(self) -> float:
        """What a draw is that was not written."""
        return 0 if self.dtype == "int8" else math.nan

    def check_draws(self, value: Any) -> None:
        """Raise unless ``value`` is a tensor of draws ``(n, n_chains, *event)``."""
        _check(value, self.dtype, (self.n_chains, *self.event), "draws")

    def check_log_density(self, value: Any) -> None:
        """Raise unless ``value`` is a tensor of log-densities ``(n, n_chains)``."""
        _check(value, self.density_dtype, (self.n_chains,), "log_density")

    def parts(self) -> Iterator[tuple[str, tuple[int, ...], slice]]:
        """Name, shape and place in the flat event of each variable."""
        start = 0
        for name, size in (self.names or {"x": self.event}).items():
            stop = start + math.prod(size)
            yield name, size, slice(start, stop)
            start = stop

    def chunk(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a chunk of a variable: ``n_chunk`` draws of chains of that shape.

        A single draw of more than 16 MB is cut along the chains, then along the event.
        """
        lengths = [self.n_chains, self.n_chunk, *size]
        for axis in (0, *range(2, len(lengths))):
            whole = self.torch_dtype.itemsize * math.prod(lengths)
            if whole > _LARGEST_CHUNK:
                lengths[axis] = max(1, lengths[axis] * _LARGEST_CHUNK // whole)
        return tuple(max(1, n) for n in lengths)


def shape(value: Any, name: str) -> tuple[int, ...]:
    """Return a shape as a tuple of ints."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name}: expected a shape, got {type(value).__name__}")
    return tuple(_ops.count(n, name) for n in value)


def variables(
    names: Any, event: tuple[int, ...], argument: str = "names"
) -> dict[str, tuple[int, ...]]:
    """Return the variables that an event is split into.

    Args:
        names: a dict from names to shapes, or a list of names of numbers.
        event: shape of what is split; it is read row by row.
        argument: what the caller's argument is called, for an error.

    Raises:
        TypeError: ``names`` is neither.
        ValueError: a name cannot be one on a disk, or the shapes have another number of entries.

    """
    if isinstance(names, str) or not isinstance(names, (Mapping, Sequence)):
        raise TypeError(f"{argument}: expected a dict or a list, got {type(names).__name__}")
    if not isinstance(names, Mapping):
        if len(set(names)) < len(names):
            raise ValueError(f"{argument}: expected names that differ, got {list(names)}")
        names = dict.fromkeys(names, ())
    found: dict[str, tuple[int, ...]] = {}
    for name, size in names.items():
        if not isinstance(name, str):
            raise TypeError(f"{argument}: expected names, got {name!r}")
        odd = not re.fullmatch(r"[^\W_][^/\\\0]*|_[^_/\\\0][^/\\\0]*", name)
        if odd or name in ("chain", "draw", "zarr.json") or re.search(r"_dim_\d+$", name):
            raise ValueError(f"{argument}: expected a name that a variable can have, got {name!r}")
        found[name] = shape(size, f"{argument}[{name!r}]")
    total = sum(math.prod(size) for size in found.values())
    if total != math.prod(event):
        raise ValueError(
            f"{argument}: expected {math.prod(event)} entries in all for event {event}, got {total}"
        )
    return found


def _check(value: Any, dtype: str, each: tuple[int, ...], name: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.dtype != getattr(torch, dtype):
        raise TypeError(f"{name}: expected torch.{dtype}, got {value.dtype}")
    if value.ndim != 1 + len(each) or value.shape[1:] != each:
        wanted = ", ".join(["n", *map(str, each)])
        raise ValueError(f"{name}: expected shape ({wanted}), got {tuple(value.shape)}")
