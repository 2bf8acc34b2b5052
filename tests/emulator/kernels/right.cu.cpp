// SPDX-License-Identifier: Apache-2.0
// Kernels without a fault: the emulator must give CUDA's answers, whatever the order.
#include "emulator.hpp"

#include <fenv.h>
#include <math.h>

#include <thread>

#include "check.hpp"

namespace {

constexpr unsigned kAll = 0xffffffff;
cudaStream_t const kStream = nullptr;

bool launched() { return same("the error", cudaGetLastError(), cudaSuccess); }

// ---- blocks -----------------------------------------------------------------------------------
__global__ void block_sum(double* out, const double* in, int n) {
  double* sums = static_cast<double*>(emulator::dynamic_shared());
  const unsigned t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
  sums[t] = int(i) < n ? in[i] : 0;
  __syncthreads();
  for (unsigned s = blockDim.x / 2; s > 0; s /= 2) {
    if (t < s) sums[t] += sums[t + s];
    __syncthreads();
  }
  if (t == 0) out[blockIdx.x] = sums[0];
}

bool check_block_sum(bool) {
  const int n = 1000, block = 128, grid = 8;
  std::vector<double> in(n), out(grid, -1), wanted(grid);
  for (int i = 0; i < n; ++i) wanted[size_t(i / block)] += in[size_t(i)] = i + 1;
  emulator::launch(grid, block, block * sizeof(double), kStream, block_sum, out.data(), in.data(),
                   n);
  return launched() && all_same("the sum of a block", out, wanted);
}

// Every thread once, with the indices that belong to it.
__global__ void count_threads(int* out) {
  out[blockIdx.x * blockDim.x + threadIdx.x] += int(gridDim.x + blockDim.x + threadIdx.y);
}

bool check_many_threads(bool) {
  const unsigned grid = 1000, block = 100;
  std::vector<int> out(grid * block);
  emulator::launch(grid, block, 0, kStream, count_threads, out.data());
  return launched() && all_same("a thread", out, std::vector<int>(grid * block, 1100));
}

// A parameter is each thread's own, and each block finds its shared memory as new.
struct Parameter {
  double value;
  int step;
};

__global__ void own_copies(double* out, Parameter p) {
  double* shared = static_cast<double*>(emulator::dynamic_shared());
  const unsigned t = threadIdx.x;
  const bool fresh = isnan(shared[t]) && isnan(reinterpret_cast<float*>(shared)[t]);
  __syncthreads();
  shared[t] = p.value += p.step;
  __syncthreads();
  out[blockIdx.x * blockDim.x + t] = fresh ? shared[blockDim.x - 1 - t] : -1;
}

bool check_own_copies(bool) {
  const unsigned grid = 5, block = 70;
  std::vector<double> out(grid * block);
  Parameter p{2, 3};
  emulator::launch(grid, block, block * sizeof(double), kStream, own_copies, out.data(), p);
  return launched() && all_same("the copy", out, std::vector<double>(grid * block, 5));
}

// ---- warps ------------------------------------------------------------------------------------
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
  for (int s = 16; s > 0; s /= 2) x += __shfl_xor_sync(kAll, x, s);
  return x;
}

template <class T>
__global__ void __launch_bounds__(96) warp_sums(T* out) {
  out[threadIdx.x] = warp_sum(T(threadIdx.x));
}

template <class T>
bool check_warp_sum_of() {
  std::vector<T> out(96), wanted(96);
  for (unsigned i = 0; i < 96; ++i) wanted[i] = T(496 + 1024 * (i / 32));
  emulator::launch(1, 96, 0, kStream, warp_sums<T>, out.data());
  return launched() && all_same("the sum of a warp", out, wanted);
}

bool check_warp_sum(bool) {
  return check_warp_sum_of<int>() && check_warp_sum_of<unsigned>() && check_warp_sum_of<float>() &&
         check_warp_sum_of<double>() && check_warp_sum_of<int64_t>() &&
         check_warp_sum_of<unsigned long long>();
}

// One column a way to shuffle, of the lane's number plus 100.
constexpr int kWays = 10;

__global__ void shuffle(int* out) {
  const int lane = int(threadIdx.x % 32), x = lane + 100;
  int* row = out + threadIdx.x * kWays;
  row[0] = __shfl_sync(kAll, x, 3);
  row[1] = __shfl_sync(kAll, x, 31 - lane);
  row[2] = __shfl_sync(kAll, x, 9, 8);
  row[3] = __shfl_up_sync(kAll, x, 2);
  row[4] = __shfl_up_sync(kAll, x, 2, 8);
  row[5] = __shfl_down_sync(kAll, x, 2);
  row[6] = __shfl_down_sync(kAll, x, 2, 8);
  row[7] = __shfl_xor_sync(kAll, x, 5);
  row[8] = __shfl_xor_sync(kAll, x, 8, 8);
  // The two halves of the warp on their own.
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  row[9] = __shfl_sync(half, x, lane ^ 15);
}

bool check_shuffles(bool) {
  const unsigned block = 64;
  std::vector<int> out(block * kWays), wanted;
  emulator::launch(1, block, 0, kStream, shuffle, out.data());
  for (unsigned t = 0; t < block; ++t) {
    const int lane = int(t % 32), in_group = lane % 8;
    const int from[kWays] = {
        3,
        31 - lane,
        lane - in_group + 1,
        lane >= 2 ? lane - 2 : lane,
        in_group >= 2 ? lane - 2 : lane,
        lane < 30 ? lane + 2 : lane,
        in_group < 6 ? lane + 2 : lane,
        lane ^ 5,
        lane & 8 ? lane ^ 8 : lane,  // an earlier group may be read, a later one not
        lane ^ 15,
    };
    for (const int lane_read : from) wanted.push_back(lane_read + 100);
  }
  return launched() && all_same("what a lane reads", out, wanted);
}

__global__ void vote(unsigned* out) {
  const unsigned t = threadIdx.x;
  unsigned* row = out + t * 4;
  row[0] = __ballot_sync(kAll, t % 3 == 0);
  row[1] = unsigned(__any_sync(kAll, t == 40));
  row[2] = unsigned(__all_sync(kAll, t >= 32));
  row[3] = __ballot_sync(t & 1 ? 0xaaaaaaaau : 0x55555555u, t % 4 < 2);
}

// 70 threads: two warps and a partial one, whose missing lanes nobody waits for.
bool check_votes(bool) {
  const unsigned block = 70;
  std::vector<unsigned> out(block * 4), wanted;
  emulator::launch(1, block, 0, kStream, vote, out.data());
  for (unsigned t = 0; t < block; ++t) {
    const unsigned first = t & ~31u, n = block - first < 32 ? block - first : 32;
    unsigned thirds = 0, pairs = 0;
    for (unsigned i = 0; i < n; ++i) {
      thirds |= unsigned((first + i) % 3 == 0) << i;
      pairs |= unsigned(i % 4 < 2 && i % 2 == t % 2) << i;
    }
    for (const unsigned v : {thirds, unsigned(first == 32), unsigned(first >= 32), pairs}) {
      wanted.push_back(v);
    }
  }
  return launched() && all_same("a vote", out, wanted);
}

__global__ void sum_partial_warp(double* out) {
  double* sums = static_cast<double*>(emulator::dynamic_shared());
  const unsigned t = threadIdx.x, lane = t % 32;
  const unsigned n = blockDim.x - (t - lane) < 32 ? blockDim.x - (t - lane) : 32;
  double x = 1;
  for (unsigned s = 16; s > 0; s /= 2) {
    const double other = __shfl_sync(kAll, x, int(lane + s < n ? lane + s : lane));
    if (lane + s < n) x += other;
    __syncwarp();
  }
  if (lane == 0) sums[t / 32] = x;
  __syncthreads();
  if (t == 0) {
    for (unsigned w = 1; w * 32 < blockDim.x; ++w) sums[0] += sums[w];
    out[blockIdx.x] = sums[0];
  }
}

bool check_partial_warp(bool) {
  for (const unsigned block : {1u, 7u, 32u, 33u, 77u, 1023u}) {
    std::vector<double> out(3);
    emulator::launch(3, block, 33 * sizeof(double), kStream, sum_partial_warp, out.data());
    if (!launched() || !all_same("the count", out, std::vector<double>(3, block))) return false;
  }
  return true;
}

// ---- atomic operations ------------------------------------------------------------------------
// Every thread draws a number, the least one of a row is kept, and one of each row comes first.
__global__ void draw_numbers(unsigned* out, unsigned* shared_out) {
  const unsigned t = threadIdx.x, row = t % 10;
  out[atomicAdd(shared_out, 1)] += 1;
  atomicMin(shared_out + 1 + row, t + 100);
  if (atomicExch(shared_out + 11 + row, 1) == 0) atomicAdd(shared_out + 21, 1);
}

bool check_atomics(bool) {
  const unsigned block = 70;
  std::vector<unsigned> out(block), common(22, 0), wanted(22, 1);
  for (unsigned row = 0; row < 10; ++row) {
    common[1 + row] = ~0u;
    wanted[1 + row] = row + 100;
  }
  wanted[0] = block, wanted[21] = 10;
  emulator::launch(1, block, 0, kStream, draw_numbers, out.data(), common.data());
  return launched() && all_same("a number", out, std::vector<unsigned>(block, 1)) &&
         all_same("what the threads made together", common, wanted);
}

// ---- blocks that run at once ------------------------------------------------------------------
// The sum of all blocks' numbers, which each block adds up for itself; each has shared memory of
// its own.
__global__ void sum_of_grid(double* out, double* numbers, unsigned* count) {
  double* own = static_cast<double*>(emulator::dynamic_shared());
  const unsigned t = threadIdx.x, b = blockIdx.x;
  const bool fresh = isnan(own[t]);
  own[t] = b + 1;
  __syncthreads();
  if (t == 0) numbers[b] = own[blockDim.x - 1];
  sync_grid(count, gridDim.x);
  double sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += numbers[i];
  own[t] += sum;
  __syncthreads();
  out[b * blockDim.x + t] = fresh ? own[blockDim.x - 1 - t] : -1;
}

bool check_together(bool) {
  for (const unsigned block : {1u, 70u, 256u}) {
    const unsigned grid = 8;
    std::vector<double> out(grid * block), numbers(grid), wanted;
    unsigned count = 0;
    for (unsigned i = 0; i < grid * block; ++i) wanted.push_back(36 + i / block + 1);
    emulator::launch_together(grid, block, block * sizeof(double), kStream, sum_of_grid, out.data(),
                              numbers.data(), &count);
    if (!launched() || !all_same("the sum of a grid", out, wanted)) return false;
  }
  return true;
}

// Whether any thread says so.
__global__ void any_of_block(int* out) {
  const unsigned t = threadIdx.x;
  const int first = __syncthreads_or(t == 69), second = __syncthreads_or(t == 70);
  out[t] = first * 10 + second;
}

bool check_any_of_block(bool) {
  std::vector<int> out(70);
  emulator::launch(1, 70, 0, kStream, any_of_block, out.data());
  return launched() && all_same("what a thread learns", out, std::vector<int>(70, 10));
}

// ---- the host's side --------------------------------------------------------------------------
bool check_host_threads(bool) {
  bool right[3] = {};
  std::vector<std::thread> threads;
  for (bool& r : right) {
    threads.emplace_back([&r] {
      r = true;
      for (int i = 0; i < 10; ++i) r = check_block_sum(false) && check_warp_sum(false) && r;
    });
  }
  for (std::thread& t : threads) t.join();
  return right[0] && right[1] && right[2];
}

__global__ void third(float* out, float one) { *out = one / 3; }

// The kernel rounds as a GPU does, and the caller's own way to round is back afterwards.
bool check_float_state(bool) {
  float out = 0;
  fesetround(FE_UPWARD);
  emulator::launch(1, 1, 0, kStream, third, &out, -1.0f);
  const bool kept = fegetround() == FE_UPWARD;
  fesetround(FE_TONEAREST);
  return launched() && kept && same("a third", out, -1.0f / 3);
}

bool check_device(bool) {
  int v = -1, n = -1;
  const bool fine = cudaGetDeviceCount(&n) == cudaSuccess && cudaGetDevice(&v) == cudaSuccess &&
                    cudaSetDevice(0) == cudaSuccess && v == 0 && n == 1;
  const auto is = [&](cudaDeviceAttr attribute, int wanted) {
    cudaDeviceGetAttribute(&v, attribute, 0);
    return same("an attribute", v, wanted);
  };
  return fine && is(cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448) &&
         is(cudaDevAttrMultiProcessorCount, 4) && is(cudaDevAttrComputeCapabilityMajor, 9) &&
         is(cudaDevAttrComputeCapabilityMinor, 0) && launched() &&
         cudaSetDevice(1) == cudaErrorInvalidDevice &&
         cudaPeekAtLastError() == cudaErrorInvalidDevice &&
         cudaGetLastError() == cudaErrorInvalidDevice && launched() &&
         strcmp(cudaGetErrorName(cudaErrorInvalidDevice), "cudaErrorInvalidDevice") == 0 &&
         strcmp(cudaGetErrorString(cudaErrorInvalidValue), "invalid argument") == 0;
}

const Case kCases[] = {
    {"block_sum", check_block_sum},       {"many_threads", check_many_threads},
    {"own_copies", check_own_copies},     {"warp_sum", check_warp_sum},
    {"shuffles", check_shuffles},         {"votes", check_votes},
    {"partial_warp", check_partial_warp}, {"host_threads", check_host_threads},
    {"float_state", check_float_state},   {"device", check_device},
    {"atomics", check_atomics},           {"together", check_together},
    {"any_of_block", check_any_of_block},
};

}  // namespace

int main(int argc, char** argv) { return run_case(kCases, argc, argv); }
