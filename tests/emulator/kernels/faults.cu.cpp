// SPDX-License-Identifier: Apache-2.0
// Pairs of kernels: one with a fault that the emulator must show, one without it and else the same.
#include "check.hpp"

namespace {

constexpr unsigned kAll = 0xffffffff;
constexpr unsigned kBlock = 128;
cudaStream_t const kStream = nullptr;

// Launches the kernel or its faulty twin for one block and compares what each thread has written.
template <class... P, class... A>
bool runs(size_t shared_bytes, void (*right)(P...), void (*faulty)(P...), bool fault, double wanted,
          A... args) {
  std::vector<double> out(kBlock, -1);
  emulator::launch(1, kBlock, shared_bytes, kStream, fault ? faulty : right, out.data(), args...);
  return same("the error", cudaGetLastError(), cudaSuccess) &&
         all_same("an element", out, std::vector<double>(kBlock, wanted));
}

__device__ double* shared() { return static_cast<double*>(emulator::dynamic_shared()); }

// ---- memory -----------------------------------------------------------------------------------
template <bool kFault>
__global__ void global_write(double* out, unsigned n) {
  for (unsigned i = threadIdx.x; i < n + kFault; i += blockDim.x) out[i] = 1;
}

bool check_global_write(bool fault) {
  return runs(0, global_write<false>, global_write<true>, fault, 1, kBlock);
}

template <int kOffset>
__global__ void shared_write(double* out) {
  const unsigned t = threadIdx.x;
  shared()[int(t) + kOffset] = 2;
  __syncthreads();
  out[t] = kOffset == 0 ? shared()[t] : 2;
}

bool check_shared_write_after(bool fault) {
  return runs(kBlock * sizeof(double), shared_write<0>, shared_write<1>, fault, 2);
}

bool check_shared_write_before(bool fault) {
  return runs(kBlock * sizeof(double), shared_write<0>, shared_write<-1>, fault, 2);
}

// One value of the padding is never written.
template <bool kFault>
__global__ void shared_read(double* out) {
  const unsigned t = threadIdx.x;
  shared()[t] = 1;
  if (!kFault && t == 0) shared()[blockDim.x] = 1;
  __syncthreads();
  out[t] = shared()[t] + shared()[t + 1];
}

bool check_uninitialised(bool fault) {
  return runs((kBlock + 1) * sizeof(double), shared_read<false>, shared_read<true>, fault, 2);
}

// ---- barriers that are missing ----------------------------------------------------------------
template <bool kFault>
__global__ void block_sum(double* out) {
  const unsigned t = threadIdx.x;
  shared()[t] = 1;
  __syncthreads();
  for (unsigned s = kBlock / 2; s > 0; s /= 2) {
    if (t < s) shared()[t] += shared()[t + s];
    if (!kFault) __syncthreads();
  }
  __syncthreads();
  out[t] = shared()[0];
}

bool check_missing_syncthreads(bool fault) {
  return runs(kBlock * sizeof(double), block_sum<false>, block_sum<true>, fault, kBlock);
}

// The same buffer serves two rounds; without the second barrier a warp that is ahead writes the
// next round's value before a slower warp has read this one's. The shuffles put warps apart.
template <bool kFault>
__global__ void reuse(double* out) {
  const unsigned t = threadIdx.x;
  double sum = 0;
  for (int round = 0; round < 2; ++round) {
    shared()[t] = round + 1;
    __syncthreads();
    double x = shared()[kBlock - 1 - t];
    for (int s = 16; s > 0; s /= 2) x += __shfl_xor_sync(kAll, x, s);
    sum += x;
    if (!kFault) __syncthreads();
  }
  out[t] = sum;
}

bool check_missing_reuse(bool fault) {
  return runs(kBlock * sizeof(double), reuse<false>, reuse<true>, fault, 96);
}

template <bool kFault>
__global__ void turn_in_warp(double* out) {
  const unsigned t = threadIdx.x;
  shared()[t] = 1;
  if (!kFault) __syncwarp();
  out[t] = shared()[t ^ 31];
}

bool check_missing_syncwarp(bool fault) {
  return runs(kBlock * sizeof(double), turn_in_warp<false>, turn_in_warp<true>, fault, 1);
}

// ---- barriers that not all reach --------------------------------------------------------------
template <bool kFault>
__global__ void early_return(double* out) {
  const unsigned t = threadIdx.x;
  out[t] = 1;
  if (kFault && t >= 100) return;
  __syncthreads();
}

bool check_early_return(bool fault) {
  return runs(0, early_return<false>, early_return<true>, fault, 1);
}

template <bool kFault>
__global__ void two_barriers(double* out) {
  const unsigned t = threadIdx.x;
  out[t] = 1;
  if (kFault && t < 28) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

bool check_two_barriers(bool fault) {
  return runs(0, two_barriers<false>, two_barriers<true>, fault, 1);
}

template <bool kFault>
__global__ void warp_against_block(double* out) {
  const unsigned t = threadIdx.x;
  if (kFault && t == 5) __syncthreads();
  out[t] = __shfl_xor_sync(kAll, 1.0, 1);
  if (!kFault || t != 5) __syncthreads();
}

bool check_warp_against_block(bool fault) {
  return runs(0, warp_against_block<false>, warp_against_block<true>, fault, 1);
}

template <bool kFault>
__global__ void two_masks(double* out) {
  const unsigned t = threadIdx.x;
  out[t] = 1;
  if (t < 32) __syncwarp(kFault && t >= 16 ? 0xfffffffe : kAll);
}

bool check_two_masks(bool fault) { return runs(0, two_masks<false>, two_masks<true>, fault, 1); }

template <bool kFault>
__global__ void two_votes(double* out) {
  const unsigned t = threadIdx.x;
  out[t] = kFault && t % 2 ? __any_sync(kAll, true) : __all_sync(kAll, true);
}

bool check_two_votes(bool fault) { return runs(0, two_votes<false>, two_votes<true>, fault, 1); }

template <bool kFault>
__global__ void lane_returns(double* out) {
  const unsigned t = threadIdx.x;
  out[t] = 1;
  if (t % 32 >= 8) return;
  __syncwarp(kFault ? 0x1ffu : 0xffu);
}

bool check_lane_returns(bool fault) {
  return runs(0, lane_returns<false>, lane_returns<true>, fault, 1);
}

template <bool kFault>
__global__ void inactive_lane(double* out) {
  const unsigned t = threadIdx.x;
  out[t] = 1;
  if (t % 32 < 16) out[t] = __shfl_sync(0x0000ffff, 1.0, kFault ? 16 : 15);
}

bool check_inactive_lane(bool fault) {
  return runs(0, inactive_lane<false>, inactive_lane<true>, fault, 1);
}

template <bool kFault>
__global__ void own_mask(double* out) {
  const unsigned t = threadIdx.x;
  out[t] = 1;
  if (t % 32 < (kFault ? 17 : 16)) __syncwarp(0x0000ffff);
}

bool check_own_mask(bool fault) { return runs(0, own_mask<false>, own_mask<true>, fault, 1); }

// ---- atomic operations ------------------------------------------------------------------------
// Counts the threads; the faulty one reads, lets others by and writes.
template <bool kFault>
__global__ void count_threads(double* out) {
  unsigned* counts = reinterpret_cast<unsigned*>(shared());
  if (threadIdx.x == 0) counts[0] = counts[1] = 0;
  __syncthreads();
  if (kFault) {
    const unsigned before = counts[0];
    atomicAdd(counts + 1, 1);
    counts[0] = before + 1;
  } else {
    atomicAdd(counts + 1, 1);
    atomicAdd(counts, 1);
  }
  __syncthreads();
  out[threadIdx.x] = counts[0];
}

bool check_lost_update(bool fault) {
  return runs(2 * sizeof(unsigned), count_threads<false>, count_threads<true>, fault, kBlock);
}

// ---- blocks that wait for each other ----------------------------------------------------------
constexpr unsigned kGrid = 8;

template <class... P>
bool runs_together(void (*right)(P...), void (*faulty)(P...), bool fault, double wanted) {
  std::vector<double> out(kGrid * kBlock, -1), numbers(kGrid * kBlock, 0);
  unsigned count = 0;
  emulator::launch_together(kGrid, kBlock, 0, kStream, fault ? faulty : right, out.data(),
                            numbers.data(), &count);
  return same("the error", cudaGetLastError(), cudaSuccess) &&
         all_same("an element", out, std::vector<double>(out.size(), wanted));
}

// Each block reads what the next one has written; the faulty one does not wait for it.
template <bool kFault>
__global__ void read_next_block(double* out, double* numbers, unsigned* count) {
  const unsigned t = threadIdx.x, next = (blockIdx.x + 1) % gridDim.x;
  double sum = 0;
  for (unsigned round = 0; round < 3; ++round) {
    numbers[blockIdx.x * kBlock + t] = round + 1;
    if (!kFault) sync_grid(count, (2 * round + 1) * gridDim.x);
    sum += numbers[next * kBlock + t];
    sync_grid(count, (kFault ? round + 1 : 2 * round + 2) * gridDim.x);
  }
  out[blockIdx.x * kBlock + t] = sum;
}

bool check_missing_grid_barrier(bool fault) {
  return runs_together(read_next_block<false>, read_next_block<true>, fault, 6);
}

template <bool kFault>
__global__ void block_returns(double* out, double*, unsigned* count) {
  out[blockIdx.x * kBlock + threadIdx.x] = 1;
  if (!kFault || blockIdx.x != 3) sync_grid(count, gridDim.x);
}

bool check_block_returns(bool fault) {
  return runs_together(block_returns<false>, block_returns<true>, fault, 1);
}

// ---- launches over a limit --------------------------------------------------------------------
__global__ void write_one(int* out) { *out = 1; }
__global__ void write_one_with_more(int* out) { *out = 1; }

// The launch must succeed and run, or else fail with this error and not run.
bool launches(unsigned grid, unsigned block, size_t shared_bytes, void (*kernel)(int*),
              cudaError_t wanted) {
  int out = 0;
  emulator::launch(grid, block, shared_bytes, kStream, kernel, &out);
  const cudaError_t peeked = cudaPeekAtLastError(), got = cudaGetLastError();
  return same("the error", got, wanted) && same("the error before", peeked, wanted) &&
         same("the error afterwards", cudaGetLastError(), cudaSuccess) &&
         same("what the kernel has written", out, wanted == cudaSuccess);
}

// These two are of another kind: the faulty launches must fail in just this way.
bool check_configuration(bool fault) {
  if (!fault) return launches(1, 1024, 0, write_one, cudaSuccess);
  return launches(1, 1025, 0, write_one, cudaErrorInvalidConfiguration) &&
         launches(1, 0, 0, write_one, cudaErrorInvalidConfiguration) &&
         launches(0, 32, 0, write_one, cudaErrorInvalidConfiguration) &&
         launches(0x80000000u, 32, 0, write_one, cudaErrorInvalidConfiguration);
}

bool check_cooperative_limit(bool fault) {
  int out = 0;
  emulator::launch_together(fault ? kGrid + 1 : kGrid, 32, 0, kStream, write_one, &out);
  return same("the error", cudaGetLastError(),
              fault ? cudaErrorCooperativeLaunchTooLarge : cudaSuccess) &&
         same("what the kernel has written", out, !fault);
}

bool check_shared_limit(bool fault) {
  const size_t usual = 48 * 1024, most = 232448;
  const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  const auto given = cudaFuncSetAttribute(write_one_with_more, attribute, int(most));
  if (!fault) {
    return given == cudaSuccess && launches(1, 32, usual, write_one, cudaSuccess) &&
           launches(1, 32, most, write_one_with_more, cudaSuccess);
  }
  return launches(1, 32, usual + 1, write_one, cudaErrorInvalidValue) &&
         launches(1, 32, most + 1, write_one_with_more, cudaErrorInvalidValue) &&
         cudaFuncSetAttribute(write_one, attribute, int(most) + 1) == cudaErrorInvalidValue &&
         cudaGetLastError() == cudaErrorInvalidValue;
}

const Case kCases[] = {
    {"global_write", check_global_write},
    {"shared_write_after", check_shared_write_after},
    {"shared_write_before", check_shared_write_before},
    {"uninitialised", check_uninitialised},
    {"missing_syncthreads", check_missing_syncthreads},
    {"missing_reuse", check_missing_reuse},
    {"missing_syncwarp", check_missing_syncwarp},
    {"early_return", check_early_return},
    {"two_barriers", check_two_barriers},
    {"warp_against_block", check_warp_against_block},
    {"two_masks", check_two_masks},
    {"two_votes", check_two_votes},
    {"lane_returns", check_lane_returns},
    {"inactive_lane", check_inactive_lane},
    {"own_mask", check_own_mask},
    {"lost_update", check_lost_update},
    {"missing_grid_barrier", check_missing_grid_barrier},
    {"block_returns", check_block_returns},
    {"configuration", check_configuration},
    {"cooperative_limit", check_cooperative_limit},
    {"shared_limit", check_shared_limit},
};

}  // namespace

int main(int argc, char** argv) { return run_case(kCases, argc, argv); }
