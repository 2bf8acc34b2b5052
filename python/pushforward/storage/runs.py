# SPDX-License-Identifier: Apache-2.0
"""The draws of a run that has ended, read back from the store that it streamed them to."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from pushforward.storage.store import DrawStore

__all__ = ["first_coordinates", "store_of_run"]


def store_of_run(
    path: Path,
    *,
    n_chains: int,
    event: tuple[int, ...],
    seed: int,
    n_steps: int,
    identity: str | None,
) -> tuple[DrawStore, int]:
    """Return the store that a run wrote, and how many of the draws in it are the run's.

    There are more where a checkpoint let the run go on later.

    Args:
        path: of the store.
        n_chains: chains of the run.
        event: shape of a chain's state.
        seed: of the run.
        n_steps: steps that it recorded.
        identity: what the store should have as attribute ``run``; None for a result that has none.

    Raises:
        ImportError: Zarr is not installed.
        FileNotFoundError: there is nothing at ``path``.
        OSError: the store cannot be read.
        ValueError: it is damaged, another run's, or has fewer draws.

    """
    try:
        store = DrawStore.open(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            error.errno,
            f"store {path.absolute()}: expected the draws that this run wrote, got nothing there: "
            "it was moved or deleted",
        ) from error
    expected = {"seed": seed, "n_chains": n_chains, "event": event, "run": identity}
    found = {key: store.attributes.get(key) for key in ("seed", "run")}
    found |= {"n_chains": store.n_chains, "event": store.event}
    if identity is None:
        del expected["run"]
    thin = store.attributes.get("thin")
    other = any(found[key] != value for key, value in expected.items())
    if other or not isinstance(thin, int) or thin < 1:
        ours, theirs = (
            ", ".join(f"{key} {facts[key]}" for key in expected) for facts in (expected, found)
        )
        raise ValueError(
            f"store {store.path}: expected the draws of the run with {ours}, got those of another "
            f"with {theirs}"
        )
    n = n_steps // thin
    if store.n_written < n:
        raise ValueError(
            f"store {store.path}: expected the {n} draws of this run, got {store.n_written}"
        )
    return store, n


def first_coordinates(store: DrawStore, n_draws: int, n_coordinates: int) -> Tensor:
    """Return the first coordinates of the first draws, with one chunk in memory at a time.

    Returns:
        ``(n_draws, n_chains, n)``, where n is ``n_coordinates`` or how many there are.

    Raises:
        OSError, ValueError: as :meth:`DrawStore.read`.

    """
    dim, each = math.prod(store.event), store._layout.n_chunk
    kept = torch.empty(n_draws, store.n_chains, min(n_coordinates, dim), dtype=store.dtype)
    for start in range(0, n_draws, each):
        stop = min(start + each, n_draws)
        draws, _ = store.read(start, stop)
        kept[start:stop] = draws.reshape(*draws.shape[:2], dim)[..., :n_coordinates]
    return kept
