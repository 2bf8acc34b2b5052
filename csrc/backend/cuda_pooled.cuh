// SPDX-License-Identifier: Apache-2.0
// The walks of a GPU over whole states: a block of threads a sum, a thread a value that is counted.
#pragma once

#include "backend/cuda.cuh"
#include "core/histogram.hpp"

namespace pf::PF_BACKEND {

template <class T>
struct SumOfState {
  PooledStates s;
  // Number e of the sums of all states.
  PF_HD void operator()(int64_t e, const OrderedSum& sum) const {
    const int64_t state = e / s.width, at = e % s.width, more = at - s.dim;
    const T* x = static_cast<const T*>(s.x) + state * s.n_chains * s.dim;
    const bool product = more >= 0, all = s.products == Products::kAll;
    const int64_t i = !product ? at : all ? more / s.dim : more;
    const int64_t j = product && all ? more % s.dim : i;
    // Groups are aligned: the first lacks the chains before this call's.
    const int64_t lacking = static_cast<int64_t>(s.chain_offset % kSumGroup);
    double total = 0;
    if (j <= i) {
      total = sum(lacking + s.n_chains, [&](int64_t c) {
        if (c < lacking) return 0.0;
        const T* row = x + (c - lacking) * s.dim;
        const double off = to_wide(row[i]) - s.shift[i];
        return product ? off * (to_wide(row[j]) - s.shift[j]) : off;
      });
    }
    if (thread_in_block() == 0) s.sums[e] = total;
  }
};

template <class T>
static void sum_states(const PooledStates& s, const Place& place) {
  for_each_sum(s.n_states * s.width, place, 0, SumOfState<T>{s});
}

template <class T>
struct CountValue {
  Sketch s;
  PF_HD void operator()(int64_t e) const {
    const int64_t i = e % s.dim;
    const double x = to_wide(static_cast<const T*>(s.x)[e]) + 0.0;  // -0 is 0
    atomic_count(s.counts + i * kSketchBins + sketch_bin((x - s.centre[i]) * s.inverse_scale[i]));
    atomic_min(s.extremes + i * 2, in_order(x));
    atomic_max(s.extremes + i * 2 + 1, in_order(x));
  }
};

template <class T>
static void count_values(const Sketch& s, const Place& place) {
  for_each_row(s.n * s.dim, place, 0, CountValue<T>{s});
}

}  // namespace pf::PF_BACKEND
