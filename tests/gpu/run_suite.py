# SPDX-License-Identifier: Apache-2.0
"""Run tests of the CPU on a GPU: ``python tests/gpu/run_suite.py tests/test_ops.py -q``.

Their tensors are made on the CPU. Here each function of the native module has its arguments'
memory copied to the GPU, works there, and has it copied back, so that the tests need not know.
Without a GPU the copies stay on the CPU, which shows that this file itself works. Left out are the
tests that say nothing about the CUDA kernels, as on the emulator.
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pushforward as pf
from emulator.test_suite_on_emulator import ELSEWHERE
from pushforward import _native, _ops

HERE = "cuda" if torch.cuda.is_available() and _native.cuda_architectures else "cpu"
# What works on the CPU wherever x is.
ON_THE_CPU = {"Target", "advise_huge_pages"}


class Memory:
    """Copies of the storages of a call, so that views, strides and overlaps stay what they are."""

    def __init__(self):
        self._copies, self._tensors = {}, {}

    def copied(self, value):
        """Return an argument with its tensors on the GPU."""
        if isinstance(value, torch.Tensor):
            if id(value) not in self._tensors:
                self._tensors[id(value)] = self._tensor(value)
            return self._tensors[id(value)]
        if isinstance(value, dict):
            return {name: self.copied(part) for name, part in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self.copied, value))
        if isinstance(value, (tuple, list)):
            return type(value)(map(self.copied, value))
        return value

    def _tensor(self, t):
        is_counter = t.ndim == 0 and t.dtype == torch.int64  # which the CPU's ops refuse
        if t.device.type != "cpu" or t.layout != torch.strided or t.is_neg() or is_counter:
            return t
        storage = t.untyped_storage()
        if storage.data_ptr() not in self._copies:
            copy = storage.cuda() if HERE == "cuda" else storage.clone()
            self._copies[storage.data_ptr()] = storage, copy
        there = torch.empty(0, dtype=t.dtype, device=HERE)
        there.set_(self._copies[storage.data_ptr()][1], t.storage_offset(), t.shape, t.stride())
        return there.requires_grad_(t.requires_grad)

    def give_back(self):
        """Copy everything back."""
        for storage, copy in self._copies.values():
            storage.copy_(copy)


def on_gpu(function):
    """Return a native function that works on copies."""

    def call(*arguments):
        memory = Memory()
        try:
            return function(*memory.copied(arguments))
        finally:
            memory.give_back()

    return call


def main(arguments):
    """Run pytest with the native module's functions on the GPU."""
    real = _native.Target
    _native.Target = _ops.NativeHandle = lambda *args: real(*Memory().copied(args))
    for name, function in vars(_native).items():
        if callable(function) and not name.startswith("_") and name not in ON_THE_CPU:
            setattr(_native, name, on_gpu(function))
    print("device:", HERE, "CPU level:", pf.build_info()["CPU level"], flush=True)
    return pytest.main(["-k", f"not ({ELSEWHERE})", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
