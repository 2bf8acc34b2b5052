// SPDX-License-Identifier: Apache-2.0
// Between numbers that lie a row a chain and packs, which have a number of each chain: blocks as
// high and wide as a register has lanes.
#pragma once

#include "core/items.hpp"

#if !defined(PF_CUDA)

namespace pf::PF_BACKEND {

// The numbers of two registers in turns, a first: those of their first halves, or of the second.
template <bool kSecond, class Register>
PF_HD Register interleaved(Register a, Register b) {
  constexpr int n = static_cast<int>(sizeof(a) / sizeof(a[0])), h = kSecond ? n / 2 : 0;
  if constexpr (n == 2) {
    return __builtin_shufflevector(a, b, h, n + h);
  } else if constexpr (n == 4) {
    return __builtin_shufflevector(a, b, h, n + h, h + 1, n + h + 1);
  } else if constexpr (n == 8) {
    return __builtin_shufflevector(a, b, h, n + h, h + 1, n + h + 1, h + 2, n + h + 2, h + 3,
                                   n + h + 3);
  } else {
    static_assert(n == 16, "lanes of a register");
    return __builtin_shufflevector(a, b, h, n + h, h + 1, n + h + 1, h + 2, n + h + 2, h + 3,
                                   n + h + 3, h + 4, n + h + 4, h + 5, n + h + 5, h + 6, n + h + 6,
                                   h + 7, n + h + 7);
  }
}

// Number j of r[i] becomes number i of r[j]. Each round moves the upper bit of the place in the
// block to its end.
template <int kLanes, class Register>
PF_HD void transpose(Register (&r)[kLanes]) {
  PF_UNROLL
  for (int round = kLanes; round > 1; round /= 2) {
    Register next[kLanes];
    PF_UNROLL
    for (int j = 0; j < kLanes / 2; ++j) {
      next[2 * j] = interleaved<false>(r[j], r[j + kLanes / 2]);
      next[2 * j + 1] = interleaved<true>(r[j], r[j + kLanes / 2]);
    }
    PF_UNROLL
    for (int j = 0; j < kLanes; ++j) r[j] = next[j];
  }
}

// body(column, n) for blocks of n columns; where there are as many as a register has lanes, so has
// each block, and the last begins within the one before.
template <int kLanes, class Body>
PF_HD void for_blocks_of_columns(int64_t n_columns, const Body& body) {
  if (n_columns < kLanes) return body(0, static_cast<int>(n_columns));
  int64_t i = 0;
  for (; i + kLanes <= n_columns; i += kLanes) body(i, kLanes);
  if (i < n_columns) body(n_columns - kLanes, kLanes);
}

// x[i] for every column i: lane l of it has that of row(l).
template <class U, class Row>
PF_HD void load_transposed(Pack<U>* x, int64_t n_columns, const Row& row) {
  constexpr int kLanesEach = Pack<U>::kLanesPerRegister;
  for_blocks_of_columns<kLanesEach>(n_columns, [&](int64_t i, int n) PF_INLINE_LAMBDA {
    for (int k = 0; k < Pack<U>::kRegisters; ++k) {
      typename Pack<U>::Register r[kLanesEach];
      PF_UNROLL
      for (int l = 0; l < kLanesEach; ++l) r[l] = load_first(row(k * kLanesEach + l) + i, n);
      transpose(r);
      for (int j = 0; j < n; ++j) x[i + j].r[k] = r[j];
    }
  });
}
// The same the other way, for the first n_rows lanes.
template <class U, class Row>
PF_HD void store_transposed(const Pack<U>* x, int64_t n_columns, int n_rows, const Row& row) {
  constexpr int kLanesEach = Pack<U>::kLanesPerRegister;
  for_blocks_of_columns<kLanesEach>(n_columns, [&](int64_t i, int n) PF_INLINE_LAMBDA {
    for (int k = 0; k < Pack<U>::kRegisters; ++k) {
      typename Pack<U>::Register r[kLanesEach];
      PF_UNROLL
      for (int j = 0; j < kLanesEach; ++j) r[j] = x[i + (j < n ? j : 0)].r[k];
      transpose(r);
      PF_UNROLL
      for (int l = 0; l < kLanesEach; ++l) {
        if (k * kLanesEach + l < n_rows) store_first(row(k * kLanesEach + l) + i, n, r[l]);
      }
    }
  });
}

}  // namespace pf::PF_BACKEND

#endif  // !PF_CUDA
