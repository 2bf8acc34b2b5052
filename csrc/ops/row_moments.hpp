// SPDX-License-Identifier: Apache-2.0
// The streaming sums of one chain whose state lies in memory.
#pragma once

#include "core/pack.hpp"
#include "core/view.hpp"

namespace pf::PF_BACKEND {

template <class T>
PF_HD void add_row(const Moments& moments, const T* x, int64_t chain, int64_t dim) {
  if (moments.sum == nullptr) return;
  const int64_t first = chain * dim;
  const T* shift = static_cast<const T*>(moments.shift) + first;
  double* sum = moments.sum + first;
  double* squares = moments.sum_of_squares + first;
  for (int64_t i = 0; i < dim; ++i) {
    const double off = to_wide(x[i]) - to_wide(shift[i]);
    sum[i] += off;
    squares[i] = fma(off, off, squares[i]);
  }
}

}  // namespace pf::PF_BACKEND
