# SPDX-License-Identifier: Apache-2.0
"""A stand-in for ``torch.cuda`` that records on the CPU and replays there."""

import warnings
from functools import partial
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pushforward import _native, sums
from pushforward._ops import arguments

aten = torch.ops.aten
READS = [aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default]
INDEXED = [aten.index.Tensor, aten.index_put_.default]


class Gpu(TorchDispatchMode):
    """Sees torch's operations and the native calls, and for which of them one waits on a GPU.

    A capture records them, a replay does them again on the same memory: whatever Python computed
    is frozen, as in a CUDA graph. What a native call reads does not count: on a GPU it reads there.
    """

    def __init__(self, patch):
        super().__init__()
        self.callers = self.stream = stream(None)
        self.sync = 1  # the debug mode "warn"
        self.recorded, self.reads, self.replays = None, [], 0
        self.in_native = self.is_invalid = False
        self.is_busy = self.is_blind = False  # no capture can begin; the debug mode misses reads
        for name, function in list(vars(_native).items()):
            if callable(function) and not isinstance(function, type) and name[0] != "_":
                patch.setattr(_native, name, partial(self.native, function))
        cuda = {
            "Stream": stream,
            "current_stream": lambda device: self.stream,
            "stream": partial(On, self),
            "CUDAGraph": partial(Recording, self),
            "graph": partial(Capture, self),
            "get_sync_debug_mode": lambda: self.sync,
            "set_sync_debug_mode": self.set_mode,
        }
        for name, value in cuda.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(arguments, "_modes_active", lambda: 0)  # a GPU is no mode
        patch.setattr(sums, "WAIT_ON", frozenset())

    def native(self, function, *args):
        self.in_native = True
        result = function(*args)
        self.in_native = False
        if self.recorded is not None:
            self.recorded.append(partial(self.native, function, *args))
        return result

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        call = partial(function, *args, **(kwargs or {}))
        if self.in_native:
            return call()
        masks = [t for t in args[1] if t is not None] if function in INDEXED else []
        if function in READS or any(t.dtype == torch.bool for t in masks):
            self._read(function)
        out = call()
        aliases = [value.alias_info for value in function._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        if self.recorded is not None and not is_view:
            self.recorded.append(partial(self._again, call, out))
        return out

    def set_mode(self, mode):
        self.sync = mode
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)

    def _again(self, call, out):
        for to, value in zip(tree_leaves(out), tree_leaves(call()), strict=True):
            to.copy_(value)

    def _read(self, function):
        if self.recorded is not None:
            self.is_invalid = True
            raise RuntimeError("operation not permitted when stream is capturing")
        if self.sync == "error" and not self.is_blind:
            raise RuntimeError("called a synchronizing CUDA operation")
        self.reads.append(function)


def stream(device):
    return SimpleNamespace(wait_stream=lambda other: None)


class On:
    """``torch.cuda.stream``."""

    def __init__(self, gpu, stream):
        self.gpu, self.stream = gpu, stream

    def __enter__(self):
        self.before, self.gpu.stream = self.gpu.stream, self.stream

    def __exit__(self, *raised):
        self.gpu.stream = self.before


class Recording:
    """``torch.cuda.CUDAGraph``."""

    def __init__(self, gpu):
        self.gpu, self.calls = gpu, []

    def replay(self):
        self.gpu.replays += 1
        with torch.no_grad():
            for call in self.calls:
                call()


class Capture:
    """``torch.cuda.graph``, which leaves its stream current where its beginning or end raises."""

    def __init__(self, gpu, graph, stream):
        self.gpu, self.graph, self.on = gpu, graph, On(gpu, stream)

    def __enter__(self):
        self.on.__enter__()
        if self.gpu.is_busy:
            raise RuntimeError("another capture is underway")
        self.gpu.recorded = self.graph.calls

    def __exit__(self, *raised):
        self.gpu.recorded = None
        if self.gpu.is_invalid:
            raise RuntimeError("operation failed due to a previous error during capture")
        self.on.__exit__(*raised)
