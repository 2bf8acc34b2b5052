# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: when they are written, and what must agree before one is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward import _ops, checkpoint, random
from pushforward.files import check_writable
from pushforward.fingerprints import fingerprint
from pushforward.parameters import NamedTarget
from pushforward.storage.disk import check_free, read_root

if TYPE_CHECKING:
    from pushforward.run import Plan, Run

__all__ = ["Resume"]


class Resume:
    """The checkpoint of a call of :func:`pushforward.sample`, or none.

    Args:
        path: the file, or None.
        every: steps between two of them; None for one where the run ends or is stopped.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: ``every`` without a file, or a file that is no checkpoint.

    """

    def __init__(self, path: str | Path | None, every: int | None) -> None:
        if every is not None:
            every = _ops.count(every, "every", 1)
            if path is None:
                raise ValueError("every: expected a checkpoint to write, got checkpoint=None")
        self._path = None if path is None else Path(path)
        self._every = every
        self._facts: dict[str, Any] = {}
        self._saved_at = -1
        self._found: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        if self._path is not None and self._path.exists():
            self._found = checkpoint.read(self._path)

    def seed(self, given: int | torch.Generator | None) -> int:
        """Return the seed of a run: as given, else the file's, where there is one, else fresh."""
        if given is None and self._found is not None:
            given = int(self._found[1]["run"]["seed"])
        return random.resolve_seed(given)

    def load(
        self,
        run: Run,
        target: Any,
        kernel: Any,
        x: Tensor | Mapping[str, Tensor],
        store: str | Path,
    ) -> None:
        """Begin the run, or go on where the file ends.

        Args:
            run: to begin.
            target: as it was given, as are the others; a relative path of a store is compared as
                such, so that its folder may be moved together with the file.
            kernel: likewise.
            x: the start.
            store: where draws go.

        Raises:
            OSError: the file cannot be written.
            ValueError: it is of another call; the message names each difference. Or the store
                lacks draws that the run has written.

        """
        if self._path is None:
            run.begin()
            return
        plan = run.plan
        if self._found is None or int(self._found[1]["position"]) < plan.total:
            check_writable(self._path)  # rather than after all those steps
        self._facts = {
            "target": fingerprint(target),
            "kernel": fingerprint(kernel),
            "start": fingerprint(x),
            "seed": plan.seed,
            "warmup": plan.warmup,
            "burn_in": plan.burn_in,
            "n_steps": plan.n_steps,
            "thin": plan.thin,
            "store": str(store),
            "covariance": plan.covariance,
            "quantiles": plan.quantiles,
            "first_step": plan.first_step,
            "chain_offset": plan.chain_offset,
        }
        if isinstance(run.target, NamedTarget):  # in their order, which a dict in JSON has not
            shapes = run.target.parameters.shapes
            self._facts["parameters"] = [f"{name} {shape}" for name, shape in shapes.items()]
        if self._found is None:
            run.begin()
            if isinstance(plan.store, Path):  # from the first a store belongs to a checkpoint
                check_free(plan.store)
                self.save(run, at_once=True)
            return
        tensors, facts = self._found
        other = checkpoint.difference(self._facts, facts.get("run", {}))
        if other:
            raise ValueError(f"checkpoint: {self._path} is of another run: {other}")
        position = int(facts["position"])
        _check_store(plan, position)
        run.restore(tensors, position)
        self._saved_at, self._found = run.position, None

    def room(self, run: Run) -> int:
        """Return how many steps there are to the next checkpoint."""
        left = max(1, run.plan.total - run.position)
        return left if self._every is None else self._every - run.position % self._every

    def save(self, run: Run, *, at_once: bool = False) -> None:
        """Write a checkpoint if one is due."""
        due = at_once or (self._every is not None and run.position % self._every == 0)
        if self._path is None or not due or run.position == self._saved_at:
            return
        facts = {"run": self._facts, "position": run.position}
        checkpoint.write(self._path, run.tensors(), facts)
        self._saved_at = run.position


def _check_store(plan: Plan, position: int) -> None:
    """Raise ValueError if the store lacks draws that a checkpoint counts on."""
    kept = max(0, position - plan.silent) // plan.thin
    if not isinstance(plan.store, Path) or kept == 0:
        return
    expected = f"store {plan.store}: expected the {kept} draws before the checkpoint"
    if not plan.store.exists():
        raise ValueError(f"{expected}, got no store there")
    _, found, _ = read_root(plan.store)
    if found < kept:
        raise ValueError(f"{expected}, got {found}")
