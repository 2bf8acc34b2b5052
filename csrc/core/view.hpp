// SPDX-License-Identifier: Apache-2.0
// Plain descriptions of memory that cross from the host to a kernel, and numbers. Every backend
// shares these types, so nothing here may have code of its own.
#pragma once

#include <stdint.h>

namespace pf {

// The two-byte types are for storage only: elementwise ops compute with them in float.
enum class Dtype : int { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };

// Where a call runs: on `n_threads` of the CPU (device < 0), or on a GPU, in its stream.
struct Place {
  int n_threads;
  int device;
  void* stream;
};

// Purposes of the noise contract; python/pushforward/random.py holds the public table.
namespace purpose {
constexpr uint32_t kProposal = 1, kAccept = 2, kForward = 6, kReverse = 7, kMomentum = 8, kTree = 9,
                   kSite = 10, kAdaptation = 11;
}  // namespace purpose

// One value a chain (stride 1) or one for all (stride 0), or, where data is null, `number`.
struct PerChain {
  const void* data;
  int64_t stride;
  double number;
};

// Where a call's noise starts: entry `start` of the sequences of chains `chain_offset`, ... .
// A CUDA graph freezes what it is given, so that the seed and the step may instead lie in the
// device's memory: seed_at and step_at, where not null, and the entries that a step reads.
struct NoiseSource {
  uint64_t seed;
  uint64_t chain_offset;
  uint64_t start;
  uint32_t purpose;
  const int64_t* seed_at;
  const int64_t* step_at;
  int64_t per_step;
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

// A factor L of a covariance L L': none, a diagonal (dim,), or dense (dim, dim) with its transpose.
enum class MetricKind : int { kUnit, kDiagonal, kDense };
struct MetricParams {
  MetricKind kind;
  const void* factor;
  const void* transposed;
};

// Real states go to streaming sums in groups of kStepGroup recorded steps. A group is summed about
// its first state, in the type of the states, so that float32 keeps the digits of chains that move
// little, far from the shift; from group to group sums are float64. What a call leaves of a group
// that has not ended is kept here: like x each, but for the number of states (n_chains,) in it,
// 0 where none is open.
constexpr int64_t kStepGroup = 16;
struct OpenGroup {
  void* first;
  void* sum;
  void* squares;
  void* count;
};

// Per-chain sums of x - shift and its square, (n_chains, dim) each; null when not wanted. For error
// bars also, where batch > 0, after every `batch` steps: the sum then, and the sum of the squares
// of what it grew by. An open group is not in the sums; where there is no memory for one, each step
// is a group. Spins are added as they are.
struct Moments {
  const void* shift;
  double* sum;
  double* sum_of_squares;
  double* sum_at_batch;
  double* batch_squares;
  int64_t batch;
  OpenGroup group;
};

// n_states states x (n_states, n_chains, dim) of chains chain_offset, ... and, of each, sums over
// the chains in float64: of x - shift, then of its squares or of its products (dim, dim), of which
// the lower triangle is computed. One after another they are `width` numbers.
enum class Products : int { kNone, kSquares, kAll, kCount };
struct PooledStates {
  const void* x;
  int64_t n_states, n_chains, dim;
  uint64_t chain_offset;
  const double* shift;
  Products products;
  int64_t width;
  double* sums;  // (n_states, width)
};

// Histograms of coordinates: parts (n_parts, dim, kSketchBins), which are added up, of values
// x (n, dim), and the least and the greatest of them (n_parts, dim, 2), as integers in their order.
constexpr int kSketchBins = 2048;
struct Sketch {
  const void* x;
  int64_t n, dim;
  const double* centre;
  const double* inverse_scale;
  int64_t n_parts;
  int64_t* counts;
  int64_t* extremes;
};

// What a run counts of each chain, (n_chains,) each: steps that left the finite numbers, divergent
// trajectories, and the sum of the acceptance probabilities and of their squares.
struct Tallies {
  int64_t* n_nonfinite;
  int64_t* n_divergent;
  double* accepted;
  double* accepted_squares;
};

// A periodic lattice: n_sites in row-major order, the last of n_dims sizes runs fastest; those
// beyond n_dims are 1.
struct LatticeShape {
  int n_dims;
  int64_t size[4];
  int64_t n_sites;
};

// Fields of spins x (n_lattices, *shape): words of `bytes` bytes that are `up` or `down`, and the
// top bit is set in `down` alone. temperature and field are float64, one a lattice.
struct SpinFields {
  void* x;
  int bytes;
  uint64_t up, down;
  int64_t n_lattices;
  LatticeShape shape;
  PerChain temperature, field;
};

}  // namespace pf
