# SPDX-License-Identifier: Apache-2.0
"""The PTX tools on small kernels whose answers are known."""

import re
from struct import pack

import numpy as np
import pytest

from ptx import rounding, spills
from ptx.hard_numbers import exact_fmas, hard_numbers, same_bits
from ptx.interpreter import launch
from ptx.memory import Memory
from ptx.nvcc import EXACT_FLAGS, needs_nvcc, nvcc, ptx_of
from ptx.ptx import Module

KERNELS = r"""
#include <stdint.h>
__constant__ int weights[4] = {3, 1, 4, 1};
__device__ __noinline__ float series(const float* x, int n) {
  float sum = 0;
  for (int i = 0; i < n; ++i) sum = fmaf(x[i], 0.5f, sum);
  return sum;
}
template <class T> __global__ void fused(const T* a, const T* b, const T* c, T* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = fma(a[i], b[i], c[i]);
}
template __global__ void fused<float>(const float*, const float*, const float*, float*, int);
template __global__ void fused<double>(const double*, const double*, const double*, double*, int);

extern "C" __global__ void collatz(const uint64_t* start, int* steps, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  uint64_t x = start[i];
  int count = 0;
  while (x != 1) {
    if (x % 2 == 0) {
      x /= 2;
    } else {
      x = 3 * x + 1;
      if (count > 1000) break;
    }
    ++count;
  }
  steps[i] = count;
}
extern "C" __global__ void local_arrays(const int* pick, float* out) {  // call, stack, constants
  float x[8];
  for (int k = 0; k < 8; ++k) x[k] = static_cast<float>(k * k + weights[k % 4]);
  x[pick[threadIdx.x]] = static_cast<float>(weights[threadIdx.x % 4]);
  out[threadIdx.x] = series(x, 1 + static_cast<int>(threadIdx.x) % 8);
}
extern "C" __global__ void reversed(float4* rows) {  // in shared memory, a block at a time
  extern __shared__ float4 buffer[];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  buffer[threadIdx.x] = rows[i];
  __syncthreads();
  rows[i] = buffer[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void warp_sums(const int* x, int* sums, unsigned* odd, const int* rounds) {
  const int warp = threadIdx.x / 32;
  for (int k = 0; k < rounds[warp]; ++k) {  // warps go different ways
    int sum = x[k * blockDim.x + threadIdx.x];
    const unsigned ballot = __ballot_sync(0xffffffffu, sum & 1);
    for (int stride = 16; stride > 0; stride /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, stride);
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      sums[warp] += sum;
      odd[warp] ^= ballot;
    }
  }
}
extern "C" __global__ void atomics(const int* x, unsigned* counts, long long* ends, unsigned* found) {
  const int i = threadIdx.x;
  found[i] = atomicAdd(counts + x[i] % 4, 1u);
  atomicMin(ends, static_cast<long long>(x[i]));
  atomicMax(ends + 1, static_cast<long long>(x[i]));
}
extern "C" __global__ void conversions(const float* x, int* rounded, unsigned* cut, float* back) {
  const int i = threadIdx.x;
  rounded[i] = __float2int_rn(x[i]);
  cut[i] = static_cast<unsigned>(x[i]);
  back[i] = static_cast<float>(rounded[i] ^ 0x1234567) / 3.0f + sqrtf(fabsf(x[i]));
}
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return Module(ptx_of(KERNELS, tmp_path_factory.mktemp("kernels"), "-ptx", *EXACT_FLAGS))


class Run:
    """Launches a kernel on arrays and numbers, in the order of its parameters."""

    def __init__(self, entry, *arguments, grid=1, block=32, **options):
        memory = Memory()
        given = [
            pack("<Q", memory.add(a)) if isinstance(a, np.ndarray) else pack("<i", a)
            for a in arguments
        ]
        launch(entry, grid=grid, block=block, arguments=given, memory=memory, **options)


# ---- kernels -------------------------------------------------------------------------------------


@needs_nvcc
@pytest.mark.parametrize(("name", "dtype"), [("float", np.float32), ("double", np.float64)])
def test_a_kernel_of_fma(kernels, name, dtype):
    a, b, c = (np.ascontiguousarray(v) for v in hard_numbers(dtype, 300))
    out = np.zeros_like(a)
    n = len(a)
    Run(kernels.entry(f"fused<{name}>"), a, b, c, out, n, grid=-(-n // 128), block=128)
    assert same_bits(out, exact_fmas(a, b, c)).all()


@needs_nvcc
def test_divergent_loops(kernels):
    start = np.array([*range(1, 90), 27, 97, 871, 6171, 2**30 - 1], np.uint64)
    steps = np.zeros(len(start), np.int32)
    Run(kernels.entry("collatz"), start, steps, len(start), grid=3, block=40)

    def count(x):
        n = 0
        while x != 1:
            x, n = (x // 2 if x % 2 == 0 else 3 * x + 1), n + 1
        return n

    assert steps.tolist() == [count(int(x)) for x in start]


@needs_nvcc
def test_calls_local_memory_and_constants(kernels):
    weights = [3, 1, 4, 1]
    pick, out = np.arange(32, dtype=np.int32) * 5 % 8, np.zeros(32, np.float32)
    Run(kernels.entry("local_arrays"), pick, out)
    for t in range(32):
        x = [k * k + weights[k % 4] for k in range(8)]
        x[pick[t]] = weights[t % 4]
        assert out[t] == sum(x[: 1 + t % 8]) / 2


@needs_nvcc
def test_shared_memory_is_a_blocks_own(kernels):
    rows = np.arange(3 * 48 * 4, dtype=np.float32).reshape(3, 48, 4)
    expected = rows[:, ::-1].copy()
    Run(kernels.entry("reversed"), rows, grid=3, block=48, shared_bytes=48 * 16)
    assert (rows == expected).all()


@needs_nvcc
def test_warps_meet_at_shuffles(kernels):
    x = np.random.default_rng(3).integers(0, 1000, (5, 96), np.int32)
    sums, odd, rounds = np.zeros(3, np.int32), np.zeros(3, np.uint32), np.array([5, 2, 4], np.int32)
    Run(kernels.entry("warp_sums"), x, sums, odd, rounds, block=96)
    for w in range(3):
        part = x[: rounds[w], 32 * w : 32 * w + 32]
        assert sums[w] == part.sum()
        bits = sum(int(b) << k for k, b in enumerate(np.bitwise_xor.reduce(part & 1, 0)))
        assert odd[w] == bits


@needs_nvcc
def test_threads_that_change_one_number_do_so_one_after_another(kernels):
    x = np.random.default_rng(4).integers(0, 1000, 32, np.int32)
    counts, ends, found = np.zeros(4, np.uint32), np.array([2**40, -1]), np.zeros(32, np.uint32)
    Run(kernels.entry("atomics"), x, counts, ends, found)
    assert counts.tolist() == np.bincount(x % 4, minlength=4).tolist()
    assert ends.tolist() == [x.min(), x.max()]
    for k in range(4):
        assert sorted(found[x % 4 == k]) == list(range(counts[k]))


@needs_nvcc
def test_conversions_in_a_kernel(kernels):
    x = np.linspace(-40, 5e9, 32).astype(np.float32)
    rounded, cut, back = np.zeros(32, np.int32), np.zeros(32, np.uint32), np.zeros(32, np.float32)
    Run(kernels.entry("conversions"), x, rounded, cut, back)
    assert (rounded == np.clip(np.rint(x.astype(float)), -(2**31), 2**31 - 1)).all()
    assert (cut == np.clip(np.trunc(x.astype(float)), 0, 2**32 - 1)).all()
    expected = (rounded ^ 0x1234567).astype(np.float32) / np.float32(3) + np.sqrt(np.abs(x))
    assert (back == expected).all()


# ---- what must fail ------------------------------------------------------------------------------

HEAD = ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p)\n{\n"
HEAD += ".reg .b64 %rd<4>;\n.reg .f32 %f<4>;\n.reg .b32 %r<4>;\n.reg .pred %p<2>;\n"


def run_body(body, array=None):
    array = np.zeros(32, np.float32) if array is None else array
    Run(Module(HEAD + body + "\n}\n").entry("k"), array)
    return array


def test_an_access_outside_the_buffers_names_the_instruction():
    with pytest.raises(
        IndexError, match=r"128 bytes start at[\s\S]*line 11: st.global.f32 \[%rd1\+128\], %f1"
    ):
        run_body("ld.param.u64 %rd1, [p];\nst.global.f32 [%rd1+128], %f1;\nret;")
    with pytest.raises(IndexError, match=r"outside all buffers[\s\S]*ld\.global\.u32"):
        run_body("mov.u64 %rd1, 0;\nld.global.u32 %r1, [%rd1];\nret;")
    with pytest.raises(IndexError, match=r"no multiple of 8[\s\S]*v2"):
        run_body("ld.param.u64 %rd1, [p];\nst.global.v2.f32 [%rd1+4], {%f1, %f2};\nret;")


def test_unknown_instructions_and_dead_ends():
    with pytest.raises(NotImplementedError, match=r"ex2\.approx\.f32"):
        run_body("mov.f32 %f1, 0f3F800000;\nex2.approx.f32 %f2, %f1;\nret;")
    with pytest.raises(NotImplementedError, match=r"add\.rz\.f32"):
        run_body("add.rz.f32 %f2, %f1, %f1;\nret;")
    alone = "mov.u32 %r1, %tid.x;\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 bra $L;\n{0};\n$L:\nret;"
    with pytest.raises(RuntimeError, match="wait here for ever"):
        run_body(
            "mov.u32 %r1, %tid.x;\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 bra $L;\nbar.sync 0;\nbar.sync 0;\n$L:\nbar.sync 0;\nret;"
        )
    assert (
        run_body(alone.replace("{0}", "bar.sync 0")) is not None
    )  # who has returned is not awaited
    with pytest.raises(RuntimeError, match="too many steps"):
        launch(
            Module(HEAD + "$L:\nbra $L;\n}").entry("k"),
            grid=1,
            block=1,
            arguments=[bytes(8)],
            max_steps=9,
        )


def test_a_branch_by_table():
    body = """ld.param.u64 %rd1, [p];
    mov.u32 %r1, %tid.x;
    and.b32 %r2, %r1, 1;
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd1, %rd1, %rd2;
    mov.f32 %f1, 0f3F800000;
    $T: .branchtargets $A, $B;
    brx.idx %r2, $T;
    $A: mov.f32 %f1, 0f40000000;
    $B: st.global.f32 [%rd1], %f1;
    ret;"""
    assert run_body(body).tolist() == [2.0, 1.0] * 16


# ---- the checks of rounding and spills -----------------------------------------------------------

ROUNDING = """
__global__ void mixed(float* x, double* y, int n) {
  x[0] = x[1] * x[2] + x[3];
  x[4] = x[5] / x[6] + sqrtf(x[7]);
  x[8] = static_cast<float>(n) + static_cast<float>(y[0]);
  y[1] = y[2] * y[3] + static_cast<double>(x[9]);
  y[4] = static_cast<double>(static_cast<int>(y[5])) / y[6];
}
"""


@needs_nvcc
def test_rounding_accepts_exact_flags_and_no_others(tmp_path):
    assert rounding.violations(ptx_of(ROUNDING, tmp_path, *EXACT_FLAGS)) == []

    fused = rounding.violations(ptx_of(ROUNDING, tmp_path))
    assert fused
    assert {v.reason for v in fused} == {"no .rn"}
    assert all(v.entry == "mixed(float*, double*, int)" for v in fused)

    text = ptx_of(ROUNDING, tmp_path, "--use_fast_math")
    fast = rounding.violations(text)
    assert {v.reason for v in fast} >= {".approx", ".ftz"}
    first = fast[0]
    assert text.splitlines()[first.line - 1].split() == f"{first.text};".split()


def test_rounding_knows_each_kind():
    lines = {
        "add.f32 %f1, %f2, %f3": "no .rn", "mul.rz.f32 %f1, %f2, %f3": "no .rn", "fma.rn.f32 %f1, %f2, %f3, %f1": None,
        "sqrt.approx.f32 %f1, %f2": ".approx", "div.full.f32 %f1, %f2, %f3": ".full", "div.rn.ftz.f32 %f1, %f2, %f3": ".ftz",
        "cvt.rn.f32.u32 %f1, %r1": None, "cvt.rz.f32.u32 %f1, %r1": "conversion without .rn",
        "cvt.rzi.s32.f32 %r1, %f1": None, "cvt.rni.f32.f32 %f1, %f2": None, "cvt.f64.f32 %rd1, %f1": None,
        "cvt.rz.f32.f64 %f1, %rd1": "conversion without .rn", "cvt.u64.u32 %rd1, %r1": None,
        "atom.global.add.f32 %f1, [%rd1], %f2": "an operation that this check does not know",
        "tanh.approx.f32 %f1, %f2": ".approx", "neg.f32 %f1, %f2": None, "ld.global.v4.f32 {%f1, %f2, %f3, %f1}, [%rd1]": None,
    }  # fmt: skip
    body = HEAD + "".join(f"{line};\n" for line in lines) + "ret;\n}\n"
    found = {v.text: v.reason for v in rounding.violations(body)}
    assert found == {line: why for line, why in lines.items() if why}


SPILLS = """
template <class T> __global__ void %s(T* p, int n) {
  T v[48];
  #pragma unroll
  for (int i = 0; i < 48; ++i) v[i] = p[i * n + threadIdx.x];
  for (int k = 0; k < n; ++k) {
    #pragma unroll
    for (int i = 0; i < 48; ++i) v[i] = v[i] * v[(i * 7 + 3) %% 48] + v[(i + 1) %% 48];
  }
  #pragma unroll
  for (int i = 0; i < 48; ++i) p[i * n + threadIdx.x] = v[i];
}
template __global__ void %s(float*, int);
"""


@needs_nvcc
def test_spills_are_named(tmp_path):
    source, output = tmp_path / "spills.cu", tmp_path / "spills.cubin"
    crowded = SPILLS % ("__launch_bounds__(1024, 2) crowded", "crowded<float>")
    roomy = SPILLS % ("roomy", "roomy<float>")
    indexed = "__global__ void indexed(int* p) { int v[32]; for (int i = 0; i < 32; ++i) v[p[i] & 31] = i; p[0] = v[p[9] & 31]; }"
    source.write_text(crowded + roomy + indexed)
    log = nvcc(source, output, "-cubin", "-Xptxas", "-v")
    found = {re.match(r"(?:void )?(\w+)", line)[1]: line for line in spills.violations(log)}
    assert set(found) == {"crowded", "indexed"}
    assert "crowded<float>(float*, int) (sm_90)" in found["crowded"]
    assert not re.search(r"\b0 bytes spill stores", found["crowded"])
    assert re.search(r"\b0 bytes spill stores", found["indexed"])
    use = {u.name.split("<")[0].split(" ")[-1]: u for u in spills.usages(log)}
    assert use["roomy"].registers > use["crowded"].registers > 0


def test_spills_wants_ptxas_output():
    with pytest.raises(ValueError, match="-Xptxas -v"):
        spills.violations("warning: nothing here\n")
