# SPDX-License-Identifier: Apache-2.0
"""One step of a torch target captured in a CUDA graph."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from pushforward.constrained import Constrained
from pushforward.lattice import Phi4
from pushforward.mcmc import (
    NUTS,
    AnnealedLangevin,
    Autoregressive,
    Gibbs,
    Kernel,
    LogNormal,
    MetropolisHastings,
)
from pushforward.sweeps import native_sweeps
from pushforward.targets import Energy, NativeTarget
from pushforward.targets.torch_targets import _LogDensity

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

    def _body(self) -> Tensor:
        value = self._run.kernel.step(self._run.state, self._step)
        self._step.add_(1)
        return value

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        device = self._run.x.device
        callers, side = torch.cuda.current_stream(device), torch.cuda.Stream(device=device)
        side.wait_stream(callers)
        # A capture that fails leaves its own stream current: this puts back the caller's.
        with torch.cuda.stream(callers):
            try:
                with torch.cuda.stream(side):
                    _warm_up(self._body)
            finally:
                callers.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=side):
                value = self._body()
        return graph, value

    def _put_back(self, saved: list[Tensor]) -> None:
        for tensor, value in zip(self._tensors(), saved, strict=True):
            tensor.copy_(value)

    def _compare(self, saved: list[Tensor]) -> None:
        run, first = self._run, self._run.next_step
        replayed = [t.clone() for t in (self.step(first), *self._tensors())]
        self._put_back(saved)
        value = run.kernel.step(run.state, first)
        self._step.fill_(first + 1)  # as a replay does
        # Exactly: both run the same operations on the same numbers. A model that does not give the
        # same numbers twice would not give the eager run's, be the difference ever so small.
        if not all(map(_same, replayed, (value, *self._tensors()))):
            raise RuntimeError("a replayed step differs from the same step taken eagerly")


def _warm_up(body: Callable[[], Any]) -> None:
    """Run a step before it is captured, as torch asks.

    The last time whatever waits for the GPU raises. In a capture it would raise as well, but that
    may leave torch's generator and its memory in the middle of a capture.
    """
    for _ in range(_WARM_UP - 1):
        body()
    mode = torch.cuda.get_sync_debug_mode()
    _set_sync_debug_mode("error")
    try:
        body()
    finally:
        _set_sync_debug_mode(mode)


def _set_sync_debug_mode(mode: int | str) -> None:
    with warnings.catch_warnings():
        # of a prototype that does not see everything: what it misses raises in the capture
        warnings.filterwarnings("ignore", "Synchronization debug mode", UserWarning)
        torch.cuda.set_sync_debug_mode(mode)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold equal numbers; NaN equals NaN and nothing else."""
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


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
    if wanted == "auto" and not (_is_fixed(run.kernel) and _is_still(target)):
        return None
    return _captured(run, required=wanted is True)


def _captured(run: Run, *, required: bool) -> StepGraph | None:
    handled = sys.exc_info()[1]
    try:
        return StepGraph(run)
    except Exception as error:
        first = _first(error, handled)
        cause = f"{type(first).__name__}: {first}"
        if required:
            raise RuntimeError(f"cuda_graph: the step cannot be captured: {cause}") from error
        warnings.warn(
            f"the step was not captured in a CUDA graph and runs eagerly: {cause}",
            RuntimeWarning,
            stacklevel=5,  # the caller of sample
        )
        return None


def _first(error: BaseException, handled: BaseException | None) -> BaseException:
    """Return the exception that led to ``error``.

    A model's own comes first: the capture that it ends raises another, and evaluating wraps it.
    What the caller was handling before all that has no part in it.
    """
    seen: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at is not handled and all(at is not e for e in seen):
        seen.append(at)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return seen[-1]


def _is_fixed(kernel: Kernel) -> bool:
    """Whether a step of ``kernel`` is the same operations every time, without Python's help."""
    if isinstance(kernel, MetropolisHastings):
        return isinstance(kernel.proposal, (LogNormal, Autoregressive))
    if isinstance(kernel, AnnealedLangevin):
        return isinstance(kernel.betas, Tensor)
    return not isinstance(kernel, (NUTS, Gibbs))


def _is_still(target: Any) -> bool:
    """Whether a target does the same at every call, as far as can be seen.

    The package's own laws do, modules in eval mode, compiled functions, and what is made of them:
    objects of the user's that hold modules, all of them in eval mode.
    """
    if isinstance(target, (NativeTarget, Phi4)):
        return True
    if isinstance(target, nn.Module):
        return not any(module.training for module in target.modules())
    if isinstance(target, Constrained):
        return _is_still(target._law)
    if isinstance(target, (Energy, _LogDensity)):
        return _is_still(target.fn)
    if inspect.ismethod(target):
        return _is_still(target.__self__)
    if hasattr(target, "_torchdynamo_orig_callable"):
        return True
    held = getattr(target, "__dict__", {}).values()
    modules = [value for value in held if isinstance(value, nn.Module)]
    return bool(modules) and all(map(_is_still, modules))
