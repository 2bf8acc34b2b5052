// SPDX-License-Identifier: Apache-2.0
// Launching a kernel: the only place of the project that does, on a GPU or in the emulator.
#pragma once

#include "backend/device.hpp"
#include "core/config.hpp"
#include "core/view.hpp"

// A kernel with room for two blocks on a multiprocessor, or, with all of its registers, for one.
#if defined(PF_EMULATOR)
#define PF_KERNEL(threads) static __global__ void
#define PF_LARGE_KERNEL(threads) static __global__ void
#else
#define PF_KERNEL(threads) static __global__ void __launch_bounds__(threads, 2)
#define PF_LARGE_KERNEL(threads) static __global__ void __launch_bounds__(threads, 1)
#endif

namespace pf::PF_BACKEND {

template <class A>
struct Same {  // as the type of an argument, from which A is then not deduced
  using type = A;
};

// What a thread sees of its launch. nvcc's host pass parses kernels but never runs them.
#if defined(__CUDA_ARCH__) || defined(PF_EMULATOR)
PF_HD int64_t thread_in_block() { return threadIdx.x; }
PF_HD int64_t block_in_grid() { return blockIdx.x; }
PF_HD int64_t block_size() { return blockDim.x; }
PF_HD void sync_block() { __syncthreads(); }
PF_HD bool sync_block_any(bool mine) { return __syncthreads_or(mine) != 0; }  // whether of any
PF_HD void sync_warp() { __syncwarp(); }
// What this thread, and those it has synchronised with, wrote before, others see who do the same.
PF_HD void fence() { __threadfence(); }
PF_HD double of_lane(double x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }
PF_HD uint32_t atomic_add(uint32_t* at, uint32_t n) { return atomicAdd(at, n); }
PF_HD uint32_t atomic_min(uint32_t* at, uint32_t n) { return atomicMin(at, n); }
PF_HD uint32_t atomic_exchange(uint32_t* at, uint32_t n) { return atomicExch(at, n); }
PF_HD void atomic_add(int64_t* at, int64_t n) {
  atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(n));
}
PF_HD void atomic_count(int64_t* at) { atomic_add(at, 1); }
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
PF_HD bool sync_block_any(bool mine) { return mine; }
PF_HD void sync_warp() {}
PF_HD void fence() {}
PF_HD double of_lane(double x, int) { return x; }
PF_HD uint32_t atomic_add(uint32_t*, uint32_t) { return 0; }
PF_HD uint32_t atomic_min(uint32_t*, uint32_t) { return 0; }
PF_HD uint32_t atomic_exchange(uint32_t*, uint32_t) { return 0; }
PF_HD void atomic_add(int64_t*, int64_t) {}
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
PF_HD void wait_for_others() {  // where a thread can do nothing until another one has
#if defined(PF_EMULATOR)
  emulator::spin();
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

// A barrier among n_blocks blocks of a launch that run at once, by one thread of each. `count`, in
// global memory, is zero before the first. Its lower bits count who has come; the last one to come
// clears them and turns the top bit over.
PF_HD void meet_blocks(uint32_t* count, uint32_t n_blocks, bool is_first) {
  constexpr uint32_t kTop = 0x80000000u;
  fence();
  const uint32_t before = atomic_add(count, is_first ? kTop - (n_blocks - 1) : 1u);
  while (((read_now(count) ^ before) & kTop) == 0) wait_for_others();
  fence();
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
  ask_for_shared_memory(place, reinterpret_cast<const void*>(kernel), shared_bytes);
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

// The same for blocks that wait for each other: they all run at once, or it is an error.
template <class... P>
static void launch_together(const Place& place, int64_t blocks, int threads, int64_t shared_bytes,
                            void (*kernel)(P...), typename Same<P>::type... args) {
  const DeviceGuard guard(place.device);
  check_launch_size(blocks);
  ask_for_shared_memory(place, reinterpret_cast<const void*>(kernel), shared_bytes);
  const unsigned grid = static_cast<unsigned>(blocks), block = static_cast<unsigned>(threads);
#if defined(PF_EMULATOR)
  emulator::launch_together(grid, block, static_cast<size_t>(shared_bytes), place.stream, kernel,
                            args...);
#else
  void* arguments[] = {&args...};
  cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), dim3(grid), dim3(block),
                              arguments, static_cast<size_t>(shared_bytes),
                              static_cast<cudaStream_t>(place.stream));
#endif
  check_cuda(cudaGetLastError(), "launching a kernel");
}

}  // namespace pf::PF_BACKEND
