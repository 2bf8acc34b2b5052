// SPDX-License-Identifier: Apache-2.0
// Launching a kernel: the only place of the project that does, on a GPU or in the emulator.
#pragma once

#include "backend/device.hpp"
#include "core/config.hpp"
#include "core/view.hpp"

#if defined(PF_EMULATOR)
#define PF_KERNEL(threads) static __global__ void
#else
#define PF_KERNEL(threads) static __global__ void __launch_bounds__(threads, 2)
#endif

namespace pf::PF_BACKEND {

template <bool kFirst, class A, class B>
struct Select {
  using type = A;
};
template <class A, class B>
struct Select<false, A, B> {
  using type = B;
};

// What a thread sees of its launch. nvcc's host pass parses kernels but never runs them.
#if defined(__CUDA_ARCH__) || defined(PF_EMULATOR)
PF_HD int64_t thread_in_block() { return threadIdx.x; }
PF_HD int64_t block_in_grid() { return blockIdx.x; }
PF_HD int64_t block_size() { return blockDim.x; }
PF_HD void sync_block() { __syncthreads(); }
PF_HD uint32_t atomic_add(uint32_t* at, uint32_t n) { return atomicAdd(at, n); }
PF_HD uint32_t atomic_min(uint32_t* at, uint32_t n) { return atomicMin(at, n); }
PF_HD uint32_t atomic_exchange(uint32_t* at, uint32_t n) { return atomicExch(at, n); }
PF_HD void atomic_count(int64_t* at) { atomicAdd(reinterpret_cast<unsigned long long*>(at), 1ull); }
PF_HD void atomic_min(int64_t* at, int64_t n) {
  atomicMin(reinterpret_cast<long long*>(at), static_cast<long long>(n));
}
PF_HD void atomic_max(int64_t* at, int64_t n) {
  atomicMax(reinterpret_cast<long long*>(at), static_cast<long long>(n));
}
#else
PF_HD int64_t thread_in_block() { return 0; }
PF_HD int64_t block_in_grid() { return 0; }
PF_HD int64_t block_size() { return 1; }
PF_HD void sync_block() {}
PF_HD uint32_t atomic_add(uint32_t*, uint32_t) { return 0; }
PF_HD uint32_t atomic_min(uint32_t*, uint32_t) { return 0; }
PF_HD uint32_t atomic_exchange(uint32_t*, uint32_t) { return 0; }
PF_HD void atomic_count(int64_t*) {}
PF_HD void atomic_min(int64_t*, int64_t) {}
PF_HD void atomic_max(int64_t*, int64_t) {}
#endif
// What other threads change meanwhile: read from memory and written there, not kept in registers.
PF_HD void let_others_run() {
#if defined(PF_EMULATOR)
  emulator::interleave();
#endif
}
PF_HD uint32_t read_now(const uint32_t* at) {
  let_others_run();
  return *static_cast<const volatile uint32_t*>(at);
}
PF_HD void write_now(uint32_t* at, uint32_t n) {
  let_others_run();
  *static_cast<volatile uint32_t*>(at) = n;
}
#if defined(PF_EMULATOR)
inline void* shared_memory() { return emulator::dynamic_shared(); }
#else
__device__ __forceinline__ void* shared_memory() {
  extern __shared__ double2 dynamic_shared_memory[];
  return dynamic_shared_memory;
}
#endif

// Runs kernel(args...) in the caller's stream. Throws std::runtime_error with the cause, so that
// a launch that failed never looks like one that worked.
template <class... P, class... A>
static void launch(const Place& place, int64_t blocks, int threads, int64_t shared_bytes,
                   void (*kernel)(P...), const A&... args) {
  if (blocks == 0) return;
  const DeviceGuard guard(place.device);
  check_launch_size(blocks);
  if (shared_bytes > kPlainSharedMemory) {
    const int64_t limit = shared_memory_limit(place);
    if (shared_bytes > limit) out_of_shared_memory(shared_bytes, limit);
    // All that there is: other host threads may launch the same kernel with more.
    check_cuda(
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(limit)),
        "asking for shared memory");
  }
#if defined(PF_EMULATOR)
  emulator::launch(static_cast<unsigned>(blocks), static_cast<unsigned>(threads),
                   static_cast<size_t>(shared_bytes), place.stream, kernel, args...);
#else
  const auto stream = static_cast<cudaStream_t>(place.stream);
  const unsigned grid = static_cast<unsigned>(blocks), block = static_cast<unsigned>(threads);
  // clang-format off
  kernel<<<grid, block, static_cast<size_t>(shared_bytes), stream>>>(args...);
  // clang-format on
#endif
  check_cuda(cudaGetLastError(), "launching a kernel");
}

}  // namespace pf::PF_BACKEND
