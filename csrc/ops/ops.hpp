// SPDX-License-Identifier: Apache-2.0
// The whole interface between the bindings and the backends: one plain struct an op, and one
// table of functions a backend. All arrays are dense and row-major; n_chains or n_rows may be 0.
#pragma once

#include "core/view.hpp"

namespace pf {

// out (n_rows, n_per_row): entries of each row's sequence of normals or uniforms.
struct FillParams {
  Dtype dtype;
  Place place;
  void* out;
  int64_t n_rows, n_per_row;
  NoiseSource noise;
  bool uniform;
};

// out = x + h score + sqrt(2 h / beta) xi, (n_chains, dim); out may be x.
struct LangevinParams {
  Dtype dtype;
  Place place;
  void* out;
  const void* x;
  const void* score;
  int64_t n_chains, dim;
  PerChain step_size, beta;
  NoiseSource noise;
};

// n_steps of a Markov kernel in one call, on a native target, x (n_chains, dim) in place. A step
// that leaves the finite numbers is not taken, and counted.
// draws (n_kept, n_chains, dim) and log_density (n_kept, n_chains) receive the state after each
// step whose number steps_done + 1, ... is a multiple of thin.
// What one kernel alone reads:
//   langevin      betas: null, or beta of each of the steps, in double
//   random_walk   step_size is the scale; metric, proposal, center (dim,), persistence
//   underdamped   velocity (n_chains, dim) in place, friction
//   hmc           metric, n_leapfrog, jitter: the share of the step size that is drawn anew a step
//   nuts          metric, max_depth, tree: 2^max_depth uniforms a step
enum class ProposalKind : int { kSymmetric, kLogNormal, kAutoregressive };
struct RunParams {
  Dtype dtype;
  Place place;
  void* x;
  int64_t n_chains;
  TargetParams target;
  PerChain step_size, beta;
  const double* betas;
  MetricParams metric;
  ProposalKind proposal;
  const void* center;
  double persistence;
  void* velocity;
  PerChain friction;
  int64_t n_leapfrog, max_depth;
  double jitter;
  NoiseSource jitter_noise, tree;
  NoiseSource noise;   // proposals or momenta
  NoiseSource accept;  // one uniform a step
  int64_t n_steps, steps_done, thin;
  void* draws;
  void* log_density;
  Tallies tallies;
  Moments moments;
};

// log_density (n_chains,) and score (n_chains, dim) of a native target; either may be null.
struct EvaluateParams {
  Dtype dtype;
  Place place;
  const void* x;
  int64_t n_chains;
  TargetParams target;
  void* log_density;
  void* score;
};

// Metropolis-Hastings on a target that torch has evaluated: x, log_density (n_chains,) and score
// (n_chains, dim) become the proposed ones where the proposal is taken.
//   log ratio = beta (proposed_log_density - log_density) + correction
// correction (n_chains,), or where `langevin`, that of Langevin proposals; score may be null, and
// so may taken (n_chains,), which says whose proposal was, and kept (n_chains, dim), which has it,
// too.
struct AcceptParams {
  Dtype dtype;
  Place place;
  void* x;
  const void* proposed;
  void* log_density;
  const void* proposed_log_density;
  void* score;
  const void* proposed_score;
  const void* correction;
  bool langevin;
  int64_t n_chains, dim;
  PerChain step_size, beta;
  NoiseSource accept;
  Tallies tallies;
  uint8_t* taken;
  void* kept;
  Moments moments;
};

// x = proposed for the rows whose proposal is finite; the others are counted and keep x. The
// moments take the rows that moved; taken and kept are as above.
struct CommitParams {
  Dtype dtype;
  Place place;
  void* x;
  const void* proposed;
  int64_t n_chains, dim;
  int64_t* n_nonfinite;
  uint8_t* taken;
  void* kept;
  Moments moments;
};

// out = a x + b xi with a, b one a chain (Ornstein-Uhlenbeck forward).
struct DiffuseParams {
  Dtype dtype;
  Place place;
  void* out;
  const void* x;
  int64_t n_chains, dim;
  PerChain mean_scale, std;
  NoiseSource noise;
};

// out = growth x + drift_scale score + noise_scale xi (one step of the reverse family).
struct ReverseParams {
  Dtype dtype;
  Place place;
  void* out;
  const void* x;
  const void* score;
  int64_t n_chains, dim;
  PerChain growth, drift_scale, noise_scale;
  NoiseSource noise;
};

// mean and variance (dim,) over all chains and steps from per-chain moments; chain c has
// n_steps - n_nonfinite[c] terms.
struct PoolParams {
  Dtype dtype;
  Place place;
  int64_t n_chains, dim, n_steps;
  const int64_t* n_left_out;
  Moments moments;
  double* mean;
  double* var;
};

// The sums of all states, those of the open group too, to `sum` and `sum_of_squares`, and to
// `open_batch`, unless it is null, that of the steps after the last complete batch. These may be
// sum, sum_of_squares and sum_at_batch of the moments.
struct TotalsParams {
  Dtype dtype;
  Place place;
  int64_t n_chains, dim;
  Moments moments;
  double* sum;
  double* sum_of_squares;
  double* open_batch;
};

// The states of n_states recorded steps after steps_done earlier ones wait and are added to the
// moments; these end with the group, or before. Where the marks (n_states, n_chains) are null,
// states[k] (n_chains, dim) is that of step k, and all states of the open group count. Else a
// chain's is that of its last step marked kTaken, or from `before` them all, and counts where its
// step is not marked kLeftOut.
enum StepMarks : uint8_t { kTaken = 1, kLeftOut = 2 };
struct AddStatesParams {
  Dtype dtype;
  Place place;
  const void* states[kStepGroup];
  const void* before;
  const uint8_t* marks;
  int64_t n_states, n_chains, dim, steps_done;
  Moments moments;
};

// total (width,) += the sums of the states, one state after another; those of a state are taken by
// aligned groups of 1024 global chain indices, then the groups in order.
struct PooledParams {
  Dtype dtype;
  Place place;
  PooledStates states;
  double* total;
};

// Counts values in the bins of a sketch.
struct SketchParams {
  Dtype dtype;
  Place place;
  Sketch sketch;
};

// out[i] = f(in[i]) for the package's own functions; the tests' window on core/math.hpp.
enum class MathFunction : int { kExp, kLog, kLog1p, kTanh, kSinPi, kCosPi, kCount };
struct MathParams {
  Dtype dtype;
  Place place;
  MathFunction function;
  const void* in;
  void* out;
  int64_t n;
};

// n_steps sweeps of the Ising model in place; no_field: it is 0 in all lattices. The shift of the
// moments, which take every sweep after steps_done recorded ones and have taken nothing else, is a
// state of spins. The acceptances, which may be null, take the share of the spins that turned over
// in each sweep.
struct IsingParams {
  Place place;
  SpinFields spins;
  bool no_field, heat_bath;
  NoiseSource noise;
  int64_t n_steps, steps_done;
  Tallies tallies;
  Moments moments;
  void* workspace;
};

// n_steps cluster moves of the Ising model in place, of one cluster each (Wolff) or of all
// (Swendsen-Wang).
struct ClusterParams {
  Place place;
  SpinFields spins;
  bool wolff;
  uint64_t seed, chain_offset, first_step;
  int64_t n_steps;
  Moments moments;
  int64_t steps_done;  // recorded ones before this call
  void* workspace;
};

// A phi^4 field x (n_lattices, *shape); kappa, lambda and field are float64, one a lattice.
struct Phi4Fields {
  Dtype dtype;
  void* x;
  int64_t n_lattices;
  LatticeShape shape;
  PerChain kappa, lambda, field;
};

// n_steps of a Markov chain on it, in place. step_size is float64, one a lattice; for Metropolis
// it is the width of the moves. HMC: jitter is the share of the step size that is drawn anew a
// step, and n_divergent counts its trajectories; of the tallies each may be null. The moments take
// every step but those of Langevin that are not taken, after steps_done recorded ones.
enum class Phi4Move : int { kLangevin, kMala, kHmc, kMetropolis, kCount };
struct Phi4RunParams {
  Place place;
  Phi4Fields fields;
  Phi4Move move;
  PerChain step_size;
  int64_t n_leapfrog;
  double jitter;
  uint64_t seed, chain_offset, first_step;
  int64_t n_steps, steps_done;
  Tallies tallies;
  Moments moments;
  void* workspace;
};

// log_density (n_lattices,) and score, like x; either may be null.
struct Phi4EvaluateParams {
  Place place;
  Phi4Fields fields;
  void* log_density;
  void* score;
  void* workspace;
};

struct OpTable {
  const char* name;
  void (*fill)(const FillParams&);
  void (*langevin)(const LangevinParams&);
  void (*langevin_run)(const RunParams&);
  void (*random_walk_run)(const RunParams&);
  void (*mala_run)(const RunParams&);
  void (*underdamped_run)(const RunParams&);
  void (*hmc_run)(const RunParams&);
  void (*nuts_run)(const RunParams&);
  void (*accept)(const AcceptParams&);
  void (*evaluate)(const EvaluateParams&);
  void (*commit)(const CommitParams&);
  void (*diffuse)(const DiffuseParams&);
  void (*reverse)(const ReverseParams&);
  void (*pool)(const PoolParams&);
  void (*totals)(const TotalsParams&);
  void (*add_states)(const AddStatesParams&);
  void (*pooled)(const PooledParams&);
  void (*sketch)(const SketchParams&);
  void (*math)(const MathParams&);
  void (*ising)(const IsingParams&);
  void (*clusters)(const ClusterParams&);
  void (*phi4_run)(const Phi4RunParams&);
  void (*phi4_evaluate)(const Phi4EvaluateParams&);
  // Bytes that the call needs in its `workspace`: none on a CPU, nor where each lattice is a
  // block's of a GPU, in shared memory.
  int64_t (*ising_workspace)(const IsingParams&);
  int64_t (*clusters_workspace)(const ClusterParams&);
  int64_t (*phi4_run_workspace)(const Phi4RunParams&);
  int64_t (*phi4_evaluate_workspace)(const Phi4EvaluateParams&);
};

// The CUDA backend, or null in a build without it.
const OpTable* cuda_table();

// The table of the best CPU level that this processor has, or of `forced` ("baseline", "v3",
// "v4"); null when the name is unknown or the processor lacks the level.
const OpTable* select_cpu_table(const char* forced);

}  // namespace pf
