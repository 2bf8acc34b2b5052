// SPDX-License-Identifier: Apache-2.0
// The part of the CUDA runtime that only answers: errors and the attributes of the one device.
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

using cudaStream_t = void*;

// Numbers and texts are those of the real runtime.
#define PF_EACH_ERROR(X)                                                              \
  X(cudaSuccess, 0, "no error")                                                       \
  X(cudaErrorInvalidValue, 1, "invalid argument")                                     \
  X(cudaErrorMemoryAllocation, 2, "out of memory")                                    \
  X(cudaErrorInitializationError, 3, "initialization error")                          \
  X(cudaErrorInvalidConfiguration, 9, "invalid configuration argument")               \
  X(cudaErrorInsufficientDriver, 35,                                                  \
    "CUDA driver version is insufficient for CUDA runtime version")                   \
  X(cudaErrorInvalidDeviceFunction, 98, "invalid device function")                    \
  X(cudaErrorNoDevice, 100, "no CUDA-capable device is detected")                     \
  X(cudaErrorInvalidDevice, 101, "invalid device ordinal")                            \
  X(cudaErrorNoKernelImageForDevice, 209,                                             \
    "no kernel image is available for execution on the device")                       \
  X(cudaErrorUnsupportedPtxVersion, 222,                                              \
    "the provided PTX was compiled with an unsupported toolchain.")                   \
  X(cudaErrorInvalidResourceHandle, 400, "invalid resource handle")                   \
  X(cudaErrorLaunchOutOfResources, 701, "too many resources requested for launch")    \
  X(cudaErrorLaunchFailure, 719, "unspecified launch failure")                        \
  X(cudaErrorCooperativeLaunchTooLarge, 720, "too many blocks in cooperative launch") \
  X(cudaErrorNotSupported, 801, "operation not supported")                            \
  X(cudaErrorUnknown, 999, "unknown error")

enum cudaError_t {
#define PF_ENUMERATOR(name, number, text) name = number,
  PF_EACH_ERROR(PF_ENUMERATOR)
#undef PF_ENUMERATOR
};

enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrCooperativeLaunch = 95,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};

namespace emulator {

constexpr unsigned kMaxBlock = 1024;
constexpr size_t kSharedBytes = 48 * 1024;      // of a kernel that asks for no more
constexpr size_t kMaxSharedBytes = 227 * 1024;  // of one that does

// What the device says that it has: PF_EMULATOR_SHARED bytes where that is set.
inline int shared_bytes() {
  const char* given = getenv("PF_EMULATOR_SHARED");
  const int most = int(kMaxSharedBytes), said = given ? atoi(given) : most;
  return said < most ? said : most;
}

// How many blocks of a launch whose blocks wait for each other fit a multiprocessor:
// PF_EMULATOR_RESIDENT where that is set. With 0 the device has no such launches.
constexpr int kMultiprocessors = 4;
inline int resident_blocks() {
  const char* given = getenv("PF_EMULATOR_RESIDENT");
  return given ? atoi(given) : 2;
}

cudaError_t& last_error();  // of this host thread

inline cudaError_t record(cudaError_t error) {
  if (error != cudaSuccess) last_error() = error;
  return error;
}

}  // namespace emulator

inline const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define PF_CASE(name, number, text) \
  case name: return #name;
    PF_EACH_ERROR(PF_CASE)
#undef PF_CASE
  }
  return "unrecognized error code";
}

inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
#define PF_CASE(name, number, text) \
  case name: return text;
    PF_EACH_ERROR(PF_CASE)
#undef PF_CASE
  }
  return "unrecognized error code";
}

#undef PF_EACH_ERROR

inline cudaError_t cudaPeekAtLastError() { return emulator::last_error(); }

inline cudaError_t cudaGetLastError() {
  const cudaError_t error = emulator::last_error();
  emulator::last_error() = cudaSuccess;
  return error;
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaSetDevice(int device) {
  return emulator::record(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return emulator::record(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = int(emulator::kMaxBlock); break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = int(emulator::kSharedBytes); break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = emulator::shared_bytes(); break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = emulator::kMultiprocessors; break;
    case cudaDevAttrCooperativeLaunch: *value = emulator::resident_blocks() > 0; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    default: return emulator::record(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int,
                                                                 size_t) {
  *blocks = emulator::resident_blocks();
  return cudaSuccess;
}

// In the order of the launches, which are done when they return.
inline cudaError_t cudaMemsetAsync(void* memory, int byte, size_t bytes, cudaStream_t) {
  memset(memory, byte, bytes);
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);

template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
