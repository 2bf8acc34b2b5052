// SPDX-License-Identifier: Apache-2.0
// Sums along one row, in one fixed order on every backend: up to 32 terms one chain of fma in
// index order; longer rows 32 strided chains, then a binary tree.
#pragma once

#include "core/pack.hpp"

namespace pf::PF_BACKEND {

constexpr int kReductionWidth = 32;

template <class Real>
PF_HD Real tree_sum(Real* partial) {
  PF_UNROLL
  for (int stride = kReductionWidth / 2; stride > 0; stride /= 2) {
    PF_UNROLL
    for (int i = 0; i < stride; ++i) partial[i] = partial[i] + partial[i + stride];
  }
  return partial[0];
}

// A few values combined pairwise, neighbours first.
template <int kCount, class Real, class Combine>
PF_HD Real pairwise(const Real* values, const Combine& combine) {
  if constexpr (kCount == 1) {
    return values[0];
  } else {
    Real half[kCount / 2];
    PF_UNROLL
    for (int i = 0; i < kCount / 2; ++i) half[i] = combine(values[2 * i], values[2 * i + 1]);
    return pairwise<kCount / 2>(half, combine);
  }
}

// sum over i < n of a(i) b(i)
template <class Real, class A, class B>
PF_HD Real row_dot(int64_t n, A a, B b) {
  using T = typename Traits<Real>::Scalar;
  if (n <= kReductionWidth) {
    Real sum = Real(T(0));
    for (int64_t i = 0; i < n; ++i) sum = fma(a(i), b(i), sum);
    return sum;
  }
  Real partial[kReductionWidth];
  for (int s = 0; s < kReductionWidth; ++s) {
    Real sum = Real(T(0));
    for (int64_t i = s; i < n; i += kReductionWidth) sum = fma(a(i), b(i), sum);
    partial[s] = sum;
  }
  return tree_sum(partial);
}

// y = A d for a row-major n x n matrix: each row is a row_dot. Rows (or, for long rows, strided
// chains) are computed eight at a time, which changes the speed and not the order of any sum.
template <class Real>
PF_HD void matvec(const typename Traits<Real>::Scalar* A, const Real* d, Real* y, int64_t n) {
  using T = typename Traits<Real>::Scalar;
  constexpr int kRows = 8;
  if (n <= kReductionWidth) {
    int64_t i = 0;
    for (; i + kRows <= n; i += kRows) {
      Real sum[kRows];
      PF_UNROLL
      for (int r = 0; r < kRows; ++r) sum[r] = Real(T(0));
      for (int64_t j = 0; j < n; ++j) {
        PF_UNROLL
        for (int r = 0; r < kRows; ++r) {
          sum[r] = fma(Real(A[(i + r) * n + j]), d[j], sum[r]);
        }
      }
      PF_UNROLL
      for (int r = 0; r < kRows; ++r) y[i + r] = sum[r];
    }
    for (; i < n; ++i) {
      Real sum = Real(T(0));
      for (int64_t j = 0; j < n; ++j) sum = fma(Real(A[i * n + j]), d[j], sum);
      y[i] = sum;
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const T* row = A + i * n;
    Real partial[kReductionWidth];
    for (int s = 0; s < kReductionWidth; s += kRows) {
      PF_UNROLL
      for (int r = 0; r < kRows; ++r) partial[s + r] = Real(T(0));
      int64_t j = s;
      for (; j + kRows <= n; j += kReductionWidth) {
        PF_UNROLL
        for (int r = 0; r < kRows; ++r) {
          partial[s + r] = fma(Real(row[j + r]), d[j + r], partial[s + r]);
        }
      }
      for (int r = 0; j + r < n && r < kRows; ++r) {
        partial[s + r] = fma(Real(row[j + r]), d[j + r], partial[s + r]);
      }
    }
    y[i] = tree_sum(partial);
  }
}

}  // namespace pf::PF_BACKEND
