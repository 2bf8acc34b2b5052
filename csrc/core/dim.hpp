// SPDX-License-Identifier: Apache-2.0
// Who walks over the coordinates of a chain, and how: one worker in index order, with the number
// known to the compiler or not, or the 32 lanes of a warp, which take a coordinate each in turn.
#pragma once

#include "core/config.hpp"

namespace pf::PF_BACKEND {

// One worker (a CUDA thread, or a lane of a Pack). The number of coordinates is k, or, for k == 0,
// what the program reads.
template <int k>
struct Dim {
  static constexpr int kValue = k;
  static constexpr bool kKnown = k > 0, kWarp = false;
  int64_t value;
  PF_HD operator int64_t() const { return k > 0 ? k : value; }
  // f(i) for every coordinate that this worker owns
  template <class F>
  PF_HD void each(const F& f) const {
    if constexpr (kKnown) {
      PF_UNROLL
      for (int i = 0; i < k; ++i) f(i);
    } else {
      for (int64_t i = 0; i < value; ++i) f(i);
    }
  }
  template <class F>
  PF_HD void each_from(int64_t first, const F& f) const {
    each([&](int64_t i) {
      if (i >= first) f(i);
    });
  }
  PF_HD bool owns(int64_t) const { return true; }
  // What one worker of the chain wrote, the others read after this.
  PF_HD void sync() const {}
  // A mask that is set where any worker of the chain has it set.
  template <class Mask>
  PF_HD Mask of_chain(Mask mask) const {
    return mask;
  }
};

#if defined(PF_CUDA)

constexpr unsigned kWholeWarp = 0xffffffffu;

// The lanes of one warp share a chain; lane l owns coordinates l, l + 32, ...: at most one of them
// where there are no more than 32, a kernel of its own because its code has no inner loops.
template <bool kShort>
struct WarpDim {
  static constexpr int kValue = -1;
  static constexpr bool kKnown = false, kWarp = true, kFitsWarp = kShort;
  static constexpr int kLanes = 32;
  int64_t value;
  PF_HD operator int64_t() const { return value; }
#if defined(__CUDA_ARCH__) || defined(PF_EMULATOR)
  PF_HD static int lane() { return static_cast<int>(threadIdx.x % kLanes); }
  PF_HD void sync() const { __syncwarp(); }
  PF_HD bool of_chain(bool mask) const { return __any_sync(kWholeWarp, mask) != 0; }
  // The lanes' values by the tree of core/reduce.hpp; every lane has the result.
  template <class Real>
  PF_HD static Real tree_sum(Real value) {
    PF_UNROLL
    for (int stride = kLanes / 2; stride > 0; stride /= 2) {
      value = value + __shfl_down_sync(kWholeWarp, value, static_cast<unsigned>(stride));
    }
    return __shfl_sync(kWholeWarp, value, 0);
  }
#else  // nvcc's host pass only parses the kernels
  PF_HD static int lane() { return 0; }
  PF_HD void sync() const {}
  PF_HD bool of_chain(bool mask) const { return mask; }
  template <class Real>
  PF_HD static Real tree_sum(Real value) {
    return value;
  }
#endif
  template <class F>
  PF_HD void each(const F& f) const {
    if constexpr (kShort) {
      if (lane() < value) f(lane());
    } else {
      for (int64_t i = lane(); i < value; i += kLanes) f(i);
    }
  }
  template <class F>
  PF_HD void each_from(int64_t first, const F& f) const {
    each([&](int64_t i) {
      if (i >= first) f(i);
    });
  }
  PF_HD bool owns(int64_t i) const { return i % kLanes == lane(); }
};

#endif  // PF_CUDA

}  // namespace pf::PF_BACKEND
