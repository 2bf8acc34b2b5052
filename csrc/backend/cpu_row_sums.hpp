// SPDX-License-Identifier: Apache-2.0
// The sum of a row in its one order: by one thread, or by many that come to its parts in any order.
#pragma once

#include "core/reduce.hpp"

namespace pf::PF_BACKEND {

// 32 strided chains, kLanes at a time, and a binary tree.
template <class T>
class RowSum {
  using Real = Pack<T>;
  static constexpr int kChains = kReductionWidth / kLanes;

 public:
  PF_HD RowSum() {
    for (int j = 0; j < kChains; ++j) chain_[j] = Real(T(0));
  }
  // The terms from a column on that is a multiple of kLanes, column after column.
  PF_HD void add(int64_t column, Real terms) {
    const int j = static_cast<int>(column / kLanes % kChains);
    chain_[j] = chain_[j] + terms;
  }
  PF_HD double total() const {
    T partial[kReductionWidth];
    for (int j = 0; j < kChains; ++j) chain_[j].store(partial + j * kLanes);
    return static_cast<double>(tree_sum(partial));
  }

 private:
  Real chain_[kChains];
};

// Parts that threads finish in any order, and that are added up one after another.
class InOrder {
 public:
  // `ready` has room for n parts.
  PF_HD InOrder(uint64_t* ready, int64_t n) : ready_(ready), n_(n) {
    for (int64_t i = 0; i < n; ++i) ready_[i] = 0;
  }

  // Part i is ready. Calls body(part) for those that are, up to the first that is not, unless
  // another thread does so already, which then sees this one too. In the end each part had its
  // turn.
  template <class Body>
  PF_HD void add(int64_t i, const Body& body) {
    __atomic_store_n(ready_ + i, 1, __ATOMIC_SEQ_CST);
    while (__atomic_exchange_n(&is_busy_, 1, __ATOMIC_SEQ_CST) == 0) {
      int64_t next = next_;
      while (next < n_ && __atomic_load_n(ready_ + next, __ATOMIC_SEQ_CST) != 0) body(next++);
      next_ = next;
      __atomic_store_n(&is_busy_, 0, __ATOMIC_SEQ_CST);
      if (next == n_ || __atomic_load_n(ready_ + next, __ATOMIC_SEQ_CST) == 0) return;
    }
  }

 private:
  uint64_t* ready_;
  int64_t n_, next_ = 0;
  int is_busy_ = 0;
};

}  // namespace pf::PF_BACKEND
