// SPDX-License-Identifier: Apache-2.0
// The CUDA runtime as the walks need it: which device, how much shared memory, what went wrong.
#pragma once

#include <stdint.h>

#include "core/view.hpp"
#if defined(PF_EMULATOR)
#include <emulator.hpp>
#else
#include <cuda_runtime_api.h>
#endif

namespace pf {

// Makes a device current and gives the caller's back.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = -1;
};

// std::runtime_error "CUDA: <doing>: <cause>" unless the status is success.
void check_cuda(cudaError_t status, const char* doing);
// std::runtime_error for more blocks than a grid can have.
void check_launch_size(int64_t blocks);
// Of the call's device: its multiprocessors, and the most shared memory that one block can have.
int64_t n_multiprocessors(const Place& place);
int64_t shared_memory_limit(const Place& place);
// Lets blocks of a kernel have so much of it, or throws as below.
void ask_for_shared_memory(const Place& place, const void* kernel, int64_t bytes);
// How many blocks of a kernel can run at once, so that they may wait for each other; 0 where the
// device has no launch for such.
int64_t blocks_at_once(const Place& place, const void* kernel, int threads, int64_t shared_bytes);
// Zeros in memory of the device, in the call's stream.
void clear(const Place& place, void* memory, int64_t bytes);
[[noreturn]] void out_of_shared_memory(int64_t needed, int64_t limit);
// std::invalid_argument for a lattice x of more than kernels count.
[[noreturn]] void too_many_sites(int64_t n_sites);

}  // namespace pf
