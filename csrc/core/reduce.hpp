// SPDX-License-Identifier: Apache-2.0
// Sums along one row, in one fixed order on every backend: up to 32 terms one chain of fma in
// index order; longer rows 32 strided chains, then a binary tree.
#pragma once

#include "core/dim.hpp"
#include "core/pack.hpp"

namespace pf::PF_BACKEND {

constexpr int kReductionWidth = 32;
constexpr int64_t kSumGroup = 1024;

// term(begin) + ... + term(end - 1), in order
template <class Term>
PF_HD auto sum_of_group(int64_t begin, int64_t end, const Term& term) {
  auto sum = decltype(term(begin))(0.0);
  for (int64_t i = begin; i < end; ++i) sum = sum + term(i);
  return sum;
}

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

// Whether a row is one chain of fma. A short warp needs not ask; a long one must, because a target
// may sum over fewer coordinates than there are.
template <class D>
PF_HD bool is_short(D, int64_t n) {
#if defined(PF_CUDA)
  if constexpr (D::kWarp) {
    if (D::kFitsWarp) return true;
  }
#endif
  return n <= kReductionWidth;
}

// Sum over i < n of a(i) b(i); n is at most dim. The lanes of a warp each do a chain of a long row,
// and the whole of a short one.
template <class Real, class D, class A, class B>
PF_HD Real row_dot(D dim, int64_t n, A a, B b) {
  using T = typename Traits<Real>::Scalar;
  dim.sync();
  Real sum = Real(T(0));
  if constexpr (D::kKnown && D::kValue <= kReductionWidth) {
    dim.each([&](int64_t i) {
      if (i < n) sum = fma(a(i), b(i), sum);
    });
  } else if (is_short(dim, n)) {
    for (int64_t i = 0; i < n; ++i) sum = fma(a(i), b(i), sum);
  } else if constexpr (D::kWarp) {
    for (int64_t i = D::lane(); i < n; i += kReductionWidth) sum = fma(a(i), b(i), sum);
    sum = D::tree_sum(sum);
  } else {
    Real partial[kReductionWidth];
    for (int s = 0; s < kReductionWidth; ++s) {
      partial[s] = Real(T(0));
      for (int64_t i = s; i < n; i += kReductionWidth) partial[s] = fma(a(i), b(i), partial[s]);
    }
    sum = tree_sum(partial);
  }
  dim.sync();
  return sum;
}
template <class Real, class D, class A, class B>
PF_HD Real row_dot(D dim, A a, B b) {
  return row_dot<Real>(dim, dim, a, b);
}

// y = A d for any n. Rows (or, for long rows, strided chains) are computed eight at a time, which
// changes the speed and not the order of any sum.
template <class Real>
PF_HD void matvec_in_blocks(const typename Traits<Real>::Scalar* A, const Real* d, Real* y,
                            int64_t n) {
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

// y = A d for a row-major n x n matrix: each row is a row_dot.
template <class Real, int k>
PF_HD void matvec(const typename Traits<Real>::Scalar* A, const Real* d, Real* y, Dim<k> dim) {
  using T = typename Traits<Real>::Scalar;
  const int64_t n = dim;
  if constexpr (k > 0 && k <= kReductionWidth) {
    dim.each([&](int64_t i) {
      Real sum = Real(T(0));
      dim.each([&](int64_t j) { sum = fma(Real(A[i * n + j]), d[j], sum); });
      y[i] = sum;
    });
  } else {
    matvec_in_blocks(A, d, y, n);
  }
}

#if defined(PF_CUDA)
// The same by the lanes of a warp: short rows one a lane, long ones together.
template <class Real, bool kShort>
PF_HD void matvec(const Real* A, const Real* d, Real* y, WarpDim<kShort> dim) {
  const int64_t n = dim;
  dim.sync();
  if (is_short(dim, n)) {
    dim.each([&](int64_t i) {
      Real sum = Real(0);
      for (int64_t j = 0; j < n; ++j) sum = fma(A[i * n + j], d[j], sum);
      y[i] = sum;
    });
  } else {
    for (int64_t i = 0; i < n; ++i) {
      Real sum = Real(0);
      dim.each([&](int64_t j) { sum = fma(A[i * n + j], d[j], sum); });
      sum = dim.tree_sum(sum);
      if (dim.owns(i)) y[i] = sum;
    }
  }
  dim.sync();
}
#endif

}  // namespace pf::PF_BACKEND
