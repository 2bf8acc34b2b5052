// SPDX-License-Identifier: Apache-2.0
// Plain descriptions of memory that cross from the host to a kernel. Structs only, no functions:
// every backend shares these types, so nothing here may have code of its own.
#pragma once

#include <stdint.h>

namespace pf {

enum class Dtype : int { kFloat32 = 0, kFloat64 = 1 };

// One number a chain (stride 1) or one for all (stride 0).
struct PerChain {
  const void* data;
  int64_t stride;
};

// Where a call's noise starts: entry `start` of the sequences of chains `chain_offset`, ... .
struct NoiseSource {
  uint64_t seed;
  uint64_t chain_offset;
  uint64_t start;
  uint32_t purpose;
};

// The parameters of a native target; what data and scalar mean is said by the target's kernel.
enum class TargetKind : int {
  kGaussianDiagonal,
  kGaussianDense,
  kMixtureIsotropic,
  kMixtureDiagonal,
  kMixtureDense,
  kDoubleWell,
  kBanana,
  kFunnel,
  kRing,
  kCount
};
struct TargetParams {
  TargetKind kind;
  int64_t dim;
  int64_t n_components;
  const void* data[3];
  double scalar[3];
};

// Per-chain sums of x - shift and its square, (n_chains, dim) each; null when not wanted.
struct Moments {
  const void* shift;
  double* sum;
  double* sum_of_squares;
};

}  // namespace pf
