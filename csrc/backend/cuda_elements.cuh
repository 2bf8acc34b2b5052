// SPDX-License-Identifier: Apache-2.0
// The walk of a GPU over elements: a thread takes a block of noise and what reads it.
#pragma once

#include "backend/cuda.cuh"
#include "core/half.hpp"

namespace pf::PF_BACKEND {

// One element of flat arrays, or the kGroup that share a block of noise, where they are aligned.
template <class T>
struct OneElement {
  int64_t e;
  template <class S>
  PF_HD T load(const S* p) const {
    return widened(p[e]);
  }
  template <class S>
  PF_HD void store(S* p, T x) const {
    p[e] = Narrow<S>::from(x);
  }
  template <class S>
  PF_HD void stream(S* p, T x) const {
    store(p, x);
  }
};

template <class T>
struct alignas(16) Group {
  static constexpr int kSize = Draw<T>::kPerBlock;
  T v[kSize];
  Group() = default;
  PF_HD Group(T value) {
    PF_UNROLL
    for (int j = 0; j < kSize; ++j) v[j] = value;
  }
};
template <class T>
PF_HD Group<T> operator*(const Group<T>& a, const Group<T>& b) {
  Group<T> r;
  PF_UNROLL
  for (int j = 0; j < Group<T>::kSize; ++j) r.v[j] = a.v[j] * b.v[j];
  return r;
}
template <class T>
PF_HD Group<T> fma(const Group<T>& a, const Group<T>& b, const Group<T>& c) {
  Group<T> r;
  PF_UNROLL
  for (int j = 0; j < Group<T>::kSize; ++j) r.v[j] = fma(a.v[j], b.v[j], c.v[j]);
  return r;
}
// A group as it lies in memory.
template <class S, int kSize>
struct alignas(sizeof(S) * kSize) Stored {
  S v[kSize];
};
template <class T>
struct GroupElements {
  static constexpr int kSize = Group<T>::kSize;
  int64_t e;
  template <class S>
  PF_HD Group<T> load(const S* p) const {
    const Stored<S, kSize> stored = *reinterpret_cast<const Stored<S, kSize>*>(p + e);
    Group<T> x;
    PF_UNROLL
    for (int j = 0; j < kSize; ++j) x.v[j] = widened(stored.v[j]);
    return x;
  }
  template <class S>
  PF_HD void store(S* p, const Group<T>& x) const {
    Stored<S, kSize> stored;
    PF_UNROLL
    for (int j = 0; j < kSize; ++j) stored.v[j] = Narrow<S>::from(x.v[j]);
    *reinterpret_cast<Stored<S, kSize>*>(p + e) = stored;
  }
  template <class S>
  PF_HD void stream(S* p, const Group<T>& x) const {
    store(p, x);
  }
};

template <class T, class Kernel>
PF_KERNEL(kThreads)
values_kernel(int64_t n, Kernel kernel) {
  const int64_t e = block_in_grid() * block_size() + thread_in_block();
  if (e < n) kernel(OneElement<T>{e});
}

template <class T, class Kernel>
static void for_each_value(int64_t n, const Place& place, const Kernel& kernel) {
  launch(place, (n + kThreads - 1) / kThreads, kThreads, 0, values_kernel<T, Kernel>, n, kernel);
}

// A thread takes one block of noise of one row and the elements that read it.
template <class Law, class T, class Kernel>
PF_KERNEL(kThreads)
elements_kernel(int64_t n_rows, int64_t n_per_row, int64_t blocks_per_row, bool aligned,
                NoiseSource given, Kernel kernel) {
  constexpr int kPerBlock = Draw<T>::kPerBlock;
  const int64_t pair = block_in_grid() * block_size() + thread_in_block();
  if (pair >= n_rows * blocks_per_row) return;
  const int64_t row = row_of(pair, blocks_per_row, n_rows * blocks_per_row);
  const NoiseSource noise = resolved(given);
  const int phase = static_cast<int>(noise.start % kPerBlock);
  const int64_t in_row = pair - row * blocks_per_row;
  const uint64_t block = noise.start / kPerBlock + static_cast<uint64_t>(in_row);
  const ChainCounter<uint32_t> chain(noise.chain_offset + static_cast<uint64_t>(row), 0u,
                                     noise.purpose);
  const PhiloxKey key(noise.seed);
  T z[kPerBlock];
  Law::template values<T>(
      philox4x32_10<uint32_t>(static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                              chain.c2, chain.c3, key),
      0, kPerBlock, z);
  const auto coefficients = kernel.at_row(row);
  const int64_t first = in_row * kPerBlock - phase;
  if (aligned && phase == 0) {
    Group<T> group;
    PF_UNROLL
    for (int j = 0; j < kPerBlock; ++j) group.v[j] = z[j];
    kernel(coefficients, GroupElements<T>{row * n_per_row + first}, group);
    return;
  }
  PF_UNROLL
  for (int j = 0; j < kPerBlock; ++j) {
    const int64_t i = first + j;
    if (i >= 0 && i < n_per_row) kernel(coefficients, OneElement<T>{row * n_per_row + i}, z[j]);
  }
}

template <class Law, class T, class Kernel>
static void for_each_element(int64_t n_rows, int64_t n_per_row, const NoiseSource& noise,
                             const Place& place, const Kernel& kernel) {
  constexpr int kPerBlock = Draw<T>::kPerBlock;
  if (n_rows == 0 || n_per_row == 0) return;
  // Where the step is read on the GPU, any phase of the first block is possible.
  const int64_t phase = noise.step_at != nullptr ? (n_per_row % kPerBlock == 0 ? 0 : kPerBlock - 1)
                                                 : static_cast<int64_t>(noise.start % kPerBlock);
  const int64_t per_row = (phase + n_per_row + kPerBlock - 1) / kPerBlock;
  const bool aligned = n_per_row % kPerBlock == 0 && kernel.is_aligned(16);
  launch(place, (n_rows * per_row + kThreads - 1) / kThreads, kThreads, 0,
         elements_kernel<Law, T, Kernel>, n_rows, n_per_row, per_row, aligned, noise, kernel);
}

}  // namespace pf::PF_BACKEND
