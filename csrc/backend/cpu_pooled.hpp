// SPDX-License-Identifier: Apache-2.0
// The walks of a CPU over whole states: sums over chains, and histograms of coordinates.
#pragma once

#include "backend/cpu.hpp"
#include "core/histogram.hpp"

namespace pf::PF_BACKEND {
namespace {

// ---- sums over chains --------------------------------------------------------------------------

// visit(begin, end) for the aligned groups of global chain indices among those of a state, in
// order.
template <class Visit>
PF_HD void for_chain_groups(const PooledStates& s, const Visit& visit) {
  const int64_t phase = static_cast<int64_t>(s.chain_offset % kSumGroup);
  for (int64_t begin = 0, end = kSumGroup - phase; begin < s.n_chains;
       begin = end, end += kSumGroup) {
    visit(begin, end < s.n_chains ? end : s.n_chains);
  }
}

// All sums of a state of k coordinates at a time, in registers.
template <class T, int k, Products kProducts>
void sum_few(const PooledStates& s, int64_t state) {
  constexpr int kWidth = k + (kProducts == Products::kSquares ? k
                              : kProducts == Products::kAll   ? k * k
                                                              : 0);
  const T* x = static_cast<const T*>(s.x) + state * s.n_chains * k;
  double total[kWidth] = {};
  for_chain_groups(s, [&](int64_t begin, int64_t end) {
    double part[kWidth] = {};
    for (int64_t c = begin; c < end; ++c) {
      double off[k];
      for (int i = 0; i < k; ++i) {
        off[i] = to_wide(x[c * k + i]) - s.shift[i];
        part[i] += off[i];
        if (kProducts == Products::kSquares) part[k + i] += off[i] * off[i];
      }
      if (kProducts != Products::kAll) continue;
      for (int i = 0; i < k; ++i) {
        for (int j = 0; j <= i; ++j) part[k + i * k + j] += off[i] * off[j];
      }
    }
    for (int i = 0; i < kWidth; ++i) total[i] += part[i];
  });
  memcpy(s.sums + state * s.width, total, sizeof(total));
}

// The sums of a state, and its rows [first, last) of products, for any number of coordinates.
template <class T>
class SumMany {
  using Wide = Pack<double>;
  static constexpr int64_t kChains = 16;  // at a time

 public:
  static constexpr int64_t kRows = 32;  // of products that share a scratch
  static int64_t padded(int64_t dim) { return (dim + kLanes - 1) / kLanes * kLanes; }
  static int64_t bytes(int64_t dim) {
    return (kChains + 1 + kRows) * padded(dim) * int64_t{sizeof(double)};
  }
  SumMany(const PooledStates& s, int64_t state, int64_t first, int64_t last, void* scratch)
      : s_(s),
        x_(static_cast<const T*>(s.x) + state * s.n_chains * s.dim),
        out_(s.sums + state * s.width),
        first_(first),
        last_(last),
        stride_(padded(s.dim)),
        off_(static_cast<double*>(scratch)),
        part_(off_ + kChains * stride_) {}
  void run() const {
    const int64_t n_parts = 1 + rows();
    memset(off_, 0, static_cast<size_t>((kChains + n_parts) * stride_) * sizeof(double));
    each_result([&](double* result, const double*, int64_t) {
      memset(result, 0, static_cast<size_t>(s_.dim) * sizeof(double));
    });
    for_chain_groups(s_, [&](int64_t begin, int64_t end) {
      memset(part_, 0, static_cast<size_t>(n_parts * stride_) * sizeof(double));
      for (int64_t c = begin; c < end; c += kChains) {
        add(c, end - c < kChains ? end - c : kChains);
      }
      each_result([](double* result, const double* part, int64_t n) {
        for (int64_t i = 0; i < n; ++i) result[i] += part[i];
      });
    });
  }

 private:
  int64_t rows() const {
    return s_.products == Products::kAll ? last_ - first_ : s_.products == Products::kSquares;
  }
  // visit(results, parts, how many) for each array of results that this worker computes.
  template <class Visit>
  void each_result(const Visit& visit) const {
    if (first_ == 0) visit(out_, part_, s_.dim);
    for (int64_t r = 0; r < rows(); ++r) {
      const bool all = s_.products == Products::kAll;
      visit(out_ + s_.dim * (1 + first_ + r), part_ + (1 + r) * stride_,
            all ? first_ + r + 1 : s_.dim);
    }
  }
  // Takes in n chains.
  void add(int64_t chain, int64_t n) const {
    for (int64_t k = 0; k < n; ++k) {
      const T* x = x_ + (chain + k) * s_.dim;
      double* off = off_ + k * stride_;
      for (int64_t i = 0; i < s_.dim; ++i) off[i] = to_wide(x[i]) - s_.shift[i];
    }
    for (int64_t j = 0; first_ == 0 && j < stride_; j += kLanes) {
      accumulate(part_ + j, n, [&](const double* off) { return Wide::load(off + j); });
    }
    if (s_.products == Products::kSquares) {
      for (int64_t j = 0; j < stride_; j += kLanes) {
        accumulate(part_ + stride_ + j, n, [&](const double* off) {
          const Wide a = Wide::load(off + j);
          return a * a;
        });
      }
    } else if (s_.products == Products::kAll) {
      for (int64_t i = first_; i < last_; ++i) {
        for (int64_t j = 0; j <= i; j += kLanes) {
          accumulate(part_ + (1 + i - first_) * stride_ + j, n,
                     [&](const double* off) { return Wide(off[i]) * Wide::load(off + j); });
        }
      }
    }
  }
  template <class Term>
  PF_HD void accumulate(double* at, int64_t n, const Term& term) const {
    Wide sum = Wide::load(at);
    for (int64_t k = 0; k < n; ++k) sum = sum + term(off_ + k * stride_);
    sum.store(at);
  }

  const PooledStates& s_;
  const T* x_;
  double* out_;
  int64_t first_, last_, stride_;
  double *off_, *part_;
};

template <class T, Products kProducts>
bool sum_if_few(const PooledStates& s, int64_t state) {
  switch (s.dim) {
    case 1: sum_few<T, 1, kProducts>(s, state); return true;
    case 2: sum_few<T, 2, kProducts>(s, state); return true;
    case 3: sum_few<T, 3, kProducts>(s, state); return true;
    case 4: sum_few<T, 4, kProducts>(s, state); return true;
    default: return false;
  }
}

// The sums of each state; of large ones several threads share the products.
template <class T>
void sum_states(const PooledStates& s, const Place& place) {
  constexpr int64_t kRows = SumMany<T>::kRows;
  const bool all = s.products == Products::kAll;
  const int64_t blocks = all ? (s.dim + kRows - 1) / kRows : 1;
  const double cost = 0.4 * static_cast<double>(s.n_states * s.n_chains) *
                      static_cast<double>(s.dim) * (all ? 0.5 * static_cast<double>(s.dim + 3) : 2);
  for_each_block(s.n_states * blocks, 1, place, cost, SumMany<T>::bytes(s.dim),
                 [&](int64_t begin, int64_t end, void* scratch) {
                   for (int64_t item = begin; item < end; ++item) {
                     const int64_t state = item / blocks, first = item % blocks * kRows;
                     const bool done = s.products == Products::kNone
                                           ? sum_if_few<T, Products::kNone>(s, state)
                                       : all ? sum_if_few<T, Products::kAll>(s, state)
                                             : sum_if_few<T, Products::kSquares>(s, state);
                     if (done) continue;
                     const int64_t last = first + kRows < s.dim ? first + kRows : s.dim;
                     SumMany<T>(s, state, first, last, scratch).run();
                   }
                 });
}

// ---- histograms --------------------------------------------------------------------------------

// Counts the values of rows [from, to) in columns [first, last), of which there are few.
template <class T>
class CountValues {
  static constexpr int kValues = 256;  // at a time, in whole rows

 public:
  static constexpr int64_t kColumns = 16;  // at most
  CountValues(const Sketch& s, int64_t part, int64_t first, int64_t last)
      : s_(s),
        first_(first),
        n_columns_(last - first),
        counts_(s.counts + (part * s.dim + first) * kSketchBins),
        extremes_(s.extremes + (part * s.dim + first) * 2) {
    for (int64_t e = 0; e < kValues; ++e) {
      const int64_t i = e % n_columns_;
      centre_[e] = s.centre[first + i];
      scale_[e] = s.inverse_scale[first + i];
      start_[e] = static_cast<int32_t>(i * kSketchBins);
    }
  }
  void rows(int64_t from, int64_t to) {
    const int64_t at_once = kValues / n_columns_;
    const T* x = static_cast<const T*>(s_.x) + first_;
    for (int64_t e = 0; e < kValues; ++e) {
      least_[e] = most_[e] = to_wide(x[from * s_.dim + e % n_columns_]) + 0.0;
    }
    for (int64_t row = from; row < to; row += at_once) {
      const int64_t n = to - row < at_once ? to - row : at_once;
      for (int64_t r = 0; r < n; ++r) {
        for (int64_t i = 0; i < n_columns_; ++i) {
          values_[r * n_columns_ + i] = to_wide(x[(row + r) * s_.dim + i]) + 0.0;  // -0 is 0
        }
      }
      count(n * n_columns_);
    }
    for (int64_t e = 0; e < kValues / n_columns_ * n_columns_; ++e) {
      int64_t* extremes = extremes_ + e % n_columns_ * 2;
      const int64_t least = in_order(least_[e]), most = in_order(most_[e]);
      if (least < extremes[0]) extremes[0] = least;
      if (most > extremes[1]) extremes[1] = most;
    }
  }

 private:
  void count(int64_t n) {
    int32_t at[kValues];
    for (int64_t e = 0; e < n; ++e) {
      const double x = values_[e];
      least_[e] = x < least_[e] ? x : least_[e];
      most_[e] = x > most_[e] ? x : most_[e];
      at[e] = start_[e] + sketch_bin((x - centre_[e]) * scale_[e]);
    }
    for (int64_t e = 0; e < n; ++e) ++counts_[at[e]];
  }
  const Sketch& s_;
  int64_t first_, n_columns_;
  int64_t *counts_, *extremes_;
  double centre_[kValues], scale_[kValues], values_[kValues], least_[kValues], most_[kValues];
  int32_t start_[kValues];
};

// With several parts threads take rows, each into a part of its own; else they take columns.
template <class T>
void count_values(const Sketch& s, const Place& place) {
  constexpr int64_t kColumns = CountValues<T>::kColumns;
  const bool by_rows = s.n_parts > 1 && s.dim <= kColumns;
  const int64_t n_items = by_rows ? s.n_parts : (s.dim + kColumns - 1) / kColumns;
  const double cost = 1.5 * static_cast<double>(s.n) * static_cast<double>(s.dim);
  for_each_block(n_items, 1, place, cost, 0, [&](int64_t begin, int64_t end, void*) {
    for (int64_t item = begin; item < end; ++item) {
      if (by_rows) {
        const int64_t share = (s.n + n_items - 1) / n_items, from = share * item;
        const int64_t to = from + share < s.n ? from + share : s.n;
        if (from < to) CountValues<T>(s, item, 0, s.dim).rows(from, to);
      } else {
        const int64_t first = item * kColumns;
        const int64_t last = first + kColumns < s.dim ? first + kColumns : s.dim;
        CountValues<T>(s, 0, first, last).rows(0, s.n);
      }
    }
  });
}

}  // namespace
}  // namespace pf::PF_BACKEND
