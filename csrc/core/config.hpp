// SPDX-License-Identifier: Apache-2.0
// The one place that knows which compiler and which backend compile this translation unit.
//
// PF_BACKEND names the namespace of the backend (cpu_baseline, cpu_v3, cpu_v4, cuda). Everything
// below core/, kernels/ and ops/ lives in pf::PF_BACKEND, so that the linker can never hand the
// AVX-512 copy of a function to a caller compiled for an older processor.
#pragma once

#include <stdint.h>

#if !defined(PF_BACKEND)
#error "PF_BACKEND must name the backend's namespace"
#endif

// Kernels of the CUDA backend: compiled by nvcc, or by the host compiler for the emulator of
// tests/emulator, which runs the same source without a GPU.
#if defined(__CUDACC__)
#define PF_CUDA 1
#elif defined(PF_EMULATOR)
#define PF_CUDA 1
#include <emulator.hpp>
#endif

#if defined(__CUDACC__)
#define PF_HD __host__ __device__ __forceinline__
#define PF_UNROLL _Pragma("unroll")
#elif defined(__clang__)
#define PF_HD inline __attribute__((always_inline))
#define PF_NOINLINE __attribute__((noinline))
#define PF_UNROLL _Pragma("unroll")
#else
#define PF_HD inline __attribute__((always_inline))
#define PF_NOINLINE __attribute__((noinline))
#define PF_UNROLL _Pragma("GCC unroll 32")
#endif
// Of a lambda on a path that the compiler takes for cold: without it there is a weak symbol.
#if defined(__CUDACC__)
#define PF_INLINE_LAMBDA
#else
#define PF_INLINE_LAMBDA __attribute__((always_inline))
#endif
// One function for many callers where code is big; a GPU has no cheap calls.
#if defined(__CUDACC__)
#define PF_SHARED_CODE PF_HD
#else
#define PF_SHARED_CODE static PF_NOINLINE
#endif
