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

// Shared memory that every kernel may have without asking.
constexpr int64_t kPlainSharedMemory = 48 << 10;

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
// The most shared memory that one block can have on the call's device.
int64_t shared_memory_limit(const Place& place);
[[noreturn]] void out_of_shared_memory(int64_t needed, int64_t limit);

}  // namespace pf
