# SPDX-License-Identifier: Apache-2.0
"""The files of a store: arrays in two groups, and the one file that counts the draws.

The group ``posterior`` has the draws and ``sample_stats`` their log-density, each array with the
dimensions ``chain``, ``draw`` and those of the variable. Arrays have room for all draws from the
start; how many there are is in one place, the root's ``zarr.json``, which is replaced whole after
each chunk and consolidates the arrays' descriptions with just that many draws. So a reader finds
complete draws and nothing else, whenever it looks and however the writer ended.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pushforward import _ops
from pushforward.files import FULL, sync_folder, write_atomically
from pushforward.storage.layout import Layout

LOG_DENSITY = "sample_stats/lp"
COORDINATES = ("posterior/draw", "sample_stats/draw")

_FORMAT = "pushforward.draws"
_VERSION = 1
_LEAST_ZARR = (3, 1, 3)  # whose writes of a chunk are atomic


class StoreFull(OSError):
    """The disk has no room for the next chunk; the draws before it are whole and recorded."""


def zarr_module() -> Any:
    """Return the module ``zarr``.

    Raises:
        ImportError: it is not installed, or older than what is needed.

    """
    try:
        import zarr
    except ImportError as error:
        raise ImportError("a store of draws needs Zarr: pip install pushforward[store]") from error
    found = tuple(
        int("".join(filter(str.isdigit, n)) or 0) for n in zarr.__version__.split(".")[:3]
    )
    if found < _LEAST_ZARR:
        raise ImportError(
            f"a store of draws needs Zarr {'.'.join(map(str, _LEAST_ZARR))}, got "
            f"{zarr.__version__}: pip install pushforward[store]"
        )
    return zarr


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Give errors of the system the store's path, and those of a full disk their own class."""
    try:
        yield
    except StoreFull:
        raise
    except OSError as error:
        number, reason = error.errno or 0, error.strerror or str(error)
        if number in FULL:
            raise StoreFull(number, f"store {path}: the disk is full: {reason}") from error
        raise OSError(number, f"store {path}: {reason}") from error


def check_free(path: Path) -> None:
    """Raise ValueError if there is something at ``path``."""
    if os.path.lexists(path):
        raise ValueError(f"path: expected one where there is nothing, got {path}, which exists")


def build(path: Path, layout: Layout, attributes: Mapping[str, Any]) -> None:
    """Make an empty store, which is there whole or not at all."""
    zarr = zarr_module()
    building = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(building, ignore_errors=True)  # of one that was killed on the way
    try:
        building.mkdir()
        root = zarr.create_group(building, zarr_format=3)
        root.create_group("posterior")
        root.create_group("sample_stats")
        for name, size, _ in layout.parts():
            _array(root, f"posterior/{name}", size, layout, layout.dtype, layout.nothing)
        _array(root, LOG_DENSITY, (), layout, layout.density_dtype, math.nan)
        for key in COORDINATES:
            _counted(root, key, layout.n_kept)
            _counted(root, f"{key.partition('/')[0]}/chain", layout.n_chains)
        record(building, layout, 0, attributes)
        os.rename(building, path)
        sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _array(
    root: Any, key: str, size: tuple[int, ...], layout: Layout, dtype: str, nothing: float
) -> None:
    from zarr.codecs import Crc32cCodec

    name = key.partition("/")[2]
    root.create_array(
        key,
        shape=(layout.n_chains, layout.n_kept, *size),
        chunks=layout.chunk(size),
        dtype=dtype,
        fill_value=nothing,
        compressors=[Crc32cCodec()],  # the low bits of draws are noise: a checksum is all they need
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=["chain", "draw", *(f"{name}_dim_{i}" for i in range(len(size)))],
    )


def _counted(root: Any, key: str, n: int) -> None:
    array = root.create_array(
        key,
        shape=(n,),
        chunks=(max(1, n),),
        dtype="int64",
        compressors=None,
        dimension_names=[key.partition("/")[2]],
    )
    array[:] = np.arange(n)


def record(path: Path, layout: Layout, n: int, attributes: Mapping[str, Any]) -> None:
    """Say in the root that there are ``n`` draws."""
    facts = {"format": _FORMAT, "format_version": _VERSION, "n_written": n, **layout.to_json()}
    nodes = {
        file.parent.relative_to(path).as_posix(): _of_length(json.loads(file.read_bytes()), n)
        for file in _nodes(path)
    }
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {**attributes, "pushforward": facts},
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": nodes},
    }
    write_atomically(path / "zarr.json", [json.dumps(root, indent=1).encode()])


def make_room(path: Path, n: int) -> None:
    """Give each array the length of ``n`` draws, whatever chunks it has."""
    for file in _nodes(path):
        content = file.read_bytes()
        changed = _of_length(json.loads(content), n)
        if changed != json.loads(content):
            write_atomically(file, [json.dumps(changed, indent=1).encode()])


def _nodes(path: Path) -> list[Path]:
    return [*sorted(path.glob("*/zarr.json")), *sorted(path.glob("*/*/zarr.json"))]


def _of_length(node: dict[str, Any], n: int) -> dict[str, Any]:
    """Return the description of an array or group with ``n`` draws."""
    named = zip(node.get("shape", ()), node.get("dimension_names", ()), strict=True)
    shape = [n if name == "draw" else size for size, name in named]
    return {**node, "shape": shape} if shape else node


def read_root(path: Path) -> tuple[Layout, int, dict[str, Any]]:
    """Return the layout, the number of draws and the attributes of a store.

    Raises:
        ValueError: it is no store of draws, is damaged, or is of a later version.
        OSError: it cannot be read.

    """
    file = path / "zarr.json"
    with explained(path):
        if path.exists() and not file.exists():
            raise ValueError(f"store {path}: expected a store of draws, got no zarr.json in it")
        content = file.read_bytes()
    try:
        attributes = json.loads(content)["attributes"]
        found = attributes.pop("pushforward")
        if found["format"] != _FORMAT:
            raise KeyError("format")
        version = _ops.count(found["format_version"], "format_version", 1)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"store {path}: expected a store of draws, got another file") from error
    if version > _VERSION:
        raise ValueError(
            f"store {path}: is of format version {version}; this version of pushforward reads "
            f"{_VERSION}"
        )
    try:
        layout = Layout.from_json(found)
        n = _ops.count(found["n_written"], "n_written")
        if n > layout.n_kept:
            raise ValueError(f"n_written: expected at most {layout.n_kept}, got {n}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"store {path}: is damaged ({error})") from error
    return layout, n, attributes
