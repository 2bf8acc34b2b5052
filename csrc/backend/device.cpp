// SPDX-License-Identifier: Apache-2.0
#include "backend/device.hpp"

#include <stdexcept>
#include <string>

namespace pf {
namespace {

// What to do about an error that comes from how this build and the driver fit, or nothing.
const char* hint(cudaError_t status) {
  switch (status) {
    case cudaErrorNoKernelImageForDevice:
      return " (this build has no code for the architecture of this GPU; see pushforward info)";
    case cudaErrorInsufficientDriver:
      return " (a build with CUDA 13 needs a driver of the 580 series or later, one with CUDA 12 "
             "of the 525 series or later; nvidia-smi says which is installed)";
    case cudaErrorUnsupportedPtxVersion:
      return " (the driver is older than the compiler of this build, which has no code for the "
             "architecture of this GPU: update the driver, or build with PF_CUDA_ARCHITECTURES)";
    default: return "";
  }
}

int64_t attribute(const Place& place, cudaDeviceAttr which, const char* doing) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, which, place.device < 0 ? 0 : place.device), doing);
  return value;
}

}  // namespace

void check_cuda(cudaError_t status, const char* doing) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // told here, and not once more to whoever calls next
  throw std::runtime_error(std::string("CUDA: ") + doing + ": " + cudaGetErrorString(status) +
                           hint(status));
}

DeviceGuard::DeviceGuard(int device) {
  // An error left by somebody else must not be taken for ours.
  check_cuda(cudaPeekAtLastError(), "an earlier call failed");
  if (device < 0) return;
  int now = 0;
  check_cuda(cudaGetDevice(&now), "asking for the current device");
  if (now == device) return;
  check_cuda(cudaSetDevice(device), "choosing the device");
  before_ = now;
}
DeviceGuard::~DeviceGuard() {
  if (before_ >= 0) cudaSetDevice(before_);
}

void check_launch_size(int64_t blocks) {
  constexpr int64_t kMostBlocks = INT64_C(0x7fffffff);
  if (blocks > kMostBlocks) {
    throw std::runtime_error("CUDA: " + std::to_string(blocks) +
                             " blocks of threads in one call, " + "a grid has at most " +
                             std::to_string(kMostBlocks) +
                             "; split the chains over calls with chain_offset");
  }
}

int64_t n_multiprocessors(const Place& place) {
  return attribute(place, cudaDevAttrMultiProcessorCount, "asking for the size of the device");
}

int64_t shared_memory_limit(const Place& place) {
  return attribute(place, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                   "asking for the shared memory of the device");
}

void ask_for_shared_memory(const Place& place, const void* kernel, int64_t bytes) {
  constexpr int64_t kWithoutAsking = 48 << 10;
  if (bytes <= kWithoutAsking) return;
  const int64_t limit = shared_memory_limit(place);
  if (bytes > limit) out_of_shared_memory(bytes, limit);
  // All that there is: other host threads may launch the same kernel with more.
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(limit)),
             "asking for shared memory");
}

int64_t blocks_at_once(const Place& place, const void* kernel, int threads, int64_t shared_bytes) {
  const DeviceGuard guard(place.device);
  const char* doing = "asking how many blocks run at once";
  if (attribute(place, cudaDevAttrCooperativeLaunch, doing) == 0) return 0;
  ask_for_shared_memory(place, kernel, shared_bytes);
  int on_one = 0;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&on_one, kernel, threads,
                                                           static_cast<size_t>(shared_bytes)),
             doing);
  return on_one * n_multiprocessors(place);
}

void clear(const Place& place, void* memory, int64_t bytes) {
  const DeviceGuard guard(place.device);
  check_cuda(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes),
                             static_cast<cudaStream_t>(place.stream)),
             "clearing memory");
}

void out_of_shared_memory(int64_t needed, int64_t limit) {
  throw std::runtime_error("CUDA: one chain of this many coordinates needs " +
                           std::to_string(needed) + " bytes of shared memory, this GPU has " +
                           std::to_string(limit) + "; run it on the CPU or with update ops");
}

void too_many_sites(int64_t n_sites) {
  throw std::invalid_argument("x: expected lattices of fewer sites on a GPU, got " +
                              std::to_string(n_sites));
}

}  // namespace pf
