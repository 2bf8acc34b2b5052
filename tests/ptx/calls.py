# SPDX-License-Identifier: Apache-2.0
"""Calls of the CUDA backend's kernels in the interpreter, as csrc/backend/cuda.cuh launches them.

A struct that has changed its size stops the launch, and an access outside the arrays names its
instruction.
"""

import tempfile
from ctypes import c_bool, c_int64, c_uint64
from functools import cache
from pathlib import Path

import pytest
import torch

import pushforward as pf
from ptx.interpreter import launch
from ptx.memory import Memory
from ptx.nvcc import EXACT_FLAGS, ROOT, needs_nvcc, nvcc
from ptx.ptx import Module
from ptx.structs import functor, read_structs

CSRC = ROOT / "csrc"
HEADERS = [CSRC / "core" / "view.hpp", CSRC / "ops" / "ops.hpp"]
S = read_structs(*(p.read_text() for p in HEADERS)) if CSRC.exists() else {}
# What a file of tests that compile the kernels is marked with.
needs_sources = [
    needs_nvcc,
    pytest.mark.skipif(not CSRC.exists(), reason="needs a checkout, not an installed wheel"),
]
BLOCK = 128
# Two bytes are storage: elements of these types are computed with in float32.
HALVES = {torch.bfloat16: "pf::cuda::BFloat16", torch.float16: "pf::cuda::Float16"}
NAMES = {torch.float32: "float", torch.float64: "double", **dict.fromkeys(HALVES, "float")}
PER_BLOCK = {torch.float32: 4, torch.float64: 2, **dict.fromkeys(HALVES, 4)}
DTYPES = [torch.float32, torch.float64]
SEED = 0x0123456789ABCDEF


@cache
def compile_op(name):
    """The PTX of an op of the CUDA backend."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / f"{name}.ptx"
        source = CSRC / "ops" / f"{name}.cpp"
        nvcc(source, output, "-ptx", *EXACT_FLAGS, "-DPF_BACKEND=cuda", "-Icsrc")
        return output.read_text()


@cache
def entry(op, *parts):
    return module(op).entry(*parts)


@cache
def module(op):
    return Module(compile_op(op))


class Call:
    """Memory of one launch, and the structs that point into it."""

    def __init__(self, dtype):
        self.dtype, self.memory = dtype, Memory()

    def at(self, tensor, offset=0):
        return 0 if tensor is None else self.memory.add(in_numpy(tensor), offset)

    def per_chain(self, value):
        if not isinstance(value, torch.Tensor):
            return S["PerChain"](number=value)
        return S["PerChain"](data=self.at(value), stride=value.ndim)

    def target(self, law, dim_type, largest=32):
        """TargetParams, and the target as the kernel holds it: (struct, C++ type, struct)."""
        kind, dim, k, tensors, scalars = law.native_arguments(self.dtype)
        data = [self.at(t.contiguous()) for t in tensors]
        pointers, t = (c_uint64 * 3)(*data), NAMES[self.dtype]
        params = S["TargetParams"](kind, dim, k, pointers, (S["double"] * 3)(*scalars))
        if "WarpDim" in dim_type or largest <= 4:  # one kernel for all targets
            return params, f"AnyTarget<{t}>", functor(params)
        numbers = [S[t](s) for s in scalars]
        addresses = [c_uint64(a) for a in data]
        mixture = "GaussianMixture<{}, (pf::cuda::Precision){}>"
        name, members = {
            0: ("GaussianDiagonal<{}>", [*addresses, numbers[0]]),
            1: ("GaussianDense<{}>", [*addresses, numbers[0]]),
            **{2 + p: (mixture, [*addresses, c_int64(k)]) for p in range(3)},
            5: ("DoubleWell<{}>", numbers[:2]),
            6: ("Banana<{}>", numbers),
            7: ("Funnel<{}>", numbers[:2]),
            8: ("Ring<{}>", numbers[:2]),
        }[kind]
        return params, name.format(t, kind - 2), functor(*members)

    def noise(self, purpose, start=0, chain_offset=0, seed=SEED, **indirect):
        number = pf.random.PURPOSES[purpose]
        return S["NoiseSource"](seed, chain_offset, start, number, **indirect)

    def elements(self, op, parts, shape, noise, kernel, *, phase, aligned):
        """for_each_element"""
        rows, n = shape
        per = PER_BLOCK[self.dtype]
        per_row = (phase + n + per - 1) // per
        arguments = [
            c_int64(rows),
            c_int64(n),
            c_int64(per_row),
            c_bool(aligned and n % per == 0),
            noise,
        ]
        name = NAMES[self.dtype]
        run = entry(op, f", {name}, ", *parts, f"<{HALVES.get(self.dtype, name)}")
        self.launch(run, -(-rows * per_row // BLOCK), arguments, kernel)

    def chains(self, op, parts, n_chains, dim, extra_bytes, kernel, n_rows):
        """for_each_chain: a chain a thread where the dimension has a kernel of its own"""
        if any("::Dim<" in p for p in parts):
            scratch, per_block, shared = extra_bytes, BLOCK, extra_bytes * BLOCK
        else:
            scratch = -(-(extra_bytes + n_rows * self.dtype.itemsize * dim) // 16) * 16
            per_block, shared = BLOCK // 32, scratch * BLOCK // 32
        arguments = [c_int64(n_chains), c_int64(scratch)]
        self.launch(entry(op, *parts), -(-n_chains // per_block), arguments, kernel, shared)

    def launch(self, run, grid, arguments, kernel, shared=0, block=BLOCK):
        given = [*map(bytes, arguments), bytes(kernel)]
        launch(
            run, grid=grid, block=block, arguments=given, memory=self.memory, shared_bytes=shared
        )


def of_dim(law, dtype, largest=32):
    """How the kernels of this target call its dimension, and the struct of it."""
    if law.kind.name == "GAUSSIAN_DENSE" or law.kind.name.startswith("MIXTURE"):
        largest = min(largest, 8)
    return walk(law.dim, dtype, largest)


def walk(dim, dtype, largest):
    """The same for a number of coordinates alone."""
    own = dtype == torch.float32 and dim in (1, 2, 3, 4, 8, 16, 32) and dim <= largest
    short = str(dim <= 32 and dtype == torch.float32).lower()
    return f"pf::cuda::Dim<{dim}>" if own else f"pf::cuda::WarpDim<{short}>", c_int64(dim)


def states(dtype, rows, n):
    """Any numbers, as x and score."""
    return [pf.random.normal(rows, n, seed=s, dtype=dtype) * 3 for s in (1, 2)]


def in_numpy(tensor):
    """The memory of a tensor; NumPy knows no bfloat16, so both types of two bytes are patterns."""
    return (tensor.view(torch.int16) if tensor.dtype in HALVES else tensor).numpy()


def same(x, y):
    """Equal bits, or NaN on both sides."""
    a, b = (in_numpy(t.contiguous()).view(f"u{t.itemsize}") for t in (x, y))
    both_nan = ((x != x) & (y != y)).numpy()
    return bool((x.dtype == y.dtype) & ((a == b) | both_nan).all())
