# SPDX-License-Identifier: Apache-2.0
"""One step of a torch target captured in a CUDA graph."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from pushforward.sweeps import native_sweeps

if TYPE_CHECKING:
    from pushforward.run import Run

__all__ = ["StepGraph", "graphed"]

_WARM_UP = 3


class StepGraph:
    """A captured step of a run. A replay reads its step from the GPU, so its noise is fresh.

    Capturing takes no step: the run's state is put back, whether it works or not, and one replay is
    compared with the same step taken eagerly. A step that records is another one than before.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._step = torch.zeros((), dtype=torch.int64, device=run.x.device)
        self._next = -1  # what the GPU's counter holds
        saved = [t.clone() for t in self._tensors()]
        try:
            self._graph, self._value = self._capture()
            self._put_back(saved)
            self._compare(saved)
        finally:
            self._put_back(saved)
            self._next = -1

    def step(self, step: int) -> Tensor:
        """Take one step and return the log-density before it."""
        if step != self._next:
            self._step.fill_(step)
        self._graph.replay()
        self._next = step + 1
        return self._value

    def _tensors(self) -> list[Tensor]:
        return [*self._run.state.tensors(), self._step]

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        run = self._run

        def body() -> Tensor:
            value = run.kernel.step(run.state, self._step)
            self._step.add_(1)
            return value

        side = torch.cuda.Stream(device=run.x.device)
        side.wait_stream(torch.cuda.current_stream(run.x.device))
        try:
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    body()
        finally:
            torch.cuda.current_stream(run.x.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            value = body()
        return graph, value

    def _put_back(self, saved: list[Tensor]) -> None:
        for tensor, value in zip(self._tensors(), saved, strict=True):
            tensor.copy_(value)

    def _compare(self, saved: list[Tensor]) -> None:
        run, first = self._run, self._run.next_step
        replayed = [self.step(first).clone(), run.x.clone()]
        self._put_back(saved)
        eager = [run.kernel.step(run.state, first), run.x.clone()]
        same = (
            torch.equal(a.nan_to_num(), b.nan_to_num())
            for a, b in zip(replayed, eager, strict=True)
        )
        if not all(same):
            raise RuntimeError("a replayed step differs from the same step taken eagerly")


def graphed(run: Run, target: Any, wanted: Literal["auto"] | bool) -> StepGraph | None:
    """Return a captured step of ``run``, or None where a graph is of no use or not wanted.

    Raises:
        ValueError: ``wanted`` is True and the state is not on a GPU.
        RuntimeError: ``wanted`` is True and the step cannot be captured.

    """
    if wanted is False:
        return None
    if run.x.device.type != "cuda":
        if wanted is True:
            raise ValueError(f"cuda_graph: expected a state on a GPU, got one on {run.x.device}")
        return None
    if run.native or native_sweeps(run.kernel, target) is not None:
        return None  # they are one launch a chunk
    if wanted == "auto" and not _is_still(target):
        return None
    return _captured(run, required=wanted is True)


def _captured(run: Run, *, required: bool) -> StepGraph | None:
    try:
        return StepGraph(run)
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        if required:
            raise RuntimeError(f"cuda_graph: the step cannot be captured: {cause}") from error
        warnings.warn(
            f"the step was not captured in a CUDA graph and runs eagerly: {cause}",
            RuntimeWarning,
            stacklevel=4,
        )
        return None


def _is_still(target: Any) -> bool:
    """Whether a model does the same at every call: a module in eval mode, or a compiled one."""
    model = getattr(target, "fn", target)
    if isinstance(model, nn.Module):
        return not model.training
    return hasattr(model, "_torchdynamo_orig_callable")
