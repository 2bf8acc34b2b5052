// SPDX-License-Identifier: Apache-2.0
// The groups in which real states go to streaming sums, see Moments.
#pragma once

#include "core/pack.hpp"
#include "core/view.hpp"

namespace pf::PF_BACKEND {

// Whether a group ends with a recorded step, and a batch.
struct SumsDue {
  bool group, batch;
};
PF_HD int64_t steps_of_group(const Moments& m) { return m.group.first != nullptr ? kStepGroup : 1; }
// Whether a group is open after so many recorded steps.
PF_HD bool inside_group(const Moments& m, int64_t n_done) {
  return n_done % steps_of_group(m) != 0;
}

// The same from step to step, without divisions.
class SumClock {
 public:
  PF_HD SumClock(const Moments& m, int64_t steps_done)
      : group_(steps_of_group(m)),
        batch_(m.batch),
        until_group_(group_ - steps_done % group_),
        until_batch_(batch_ > 0 ? batch_ - steps_done % batch_ : 0) {}
  // Takes a step.
  PF_HD SumsDue step() {
    const SumsDue due{--until_group_ == 0, --until_batch_ == 0};
    if (due.group) until_group_ = group_;
    if (due.batch) until_batch_ = batch_;
    return due;
  }
  PF_HD bool inside() const { return until_group_ < group_; }  // a group
  PF_HD bool closes_within(int64_t n_steps) const {            // a batch
    return until_batch_ > 0 && until_batch_ <= n_steps;
  }

 private:
  int64_t group_, batch_;
  int64_t until_group_, until_batch_;  // steps to come; the latter never 0 where there are none
};

// The sums of a group about its first state, in the type of the states: of the differences and of
// their squares.
template <class Real>
struct GroupSums {
  Real first, sum, squares;
  PF_HD void add(Real x) {
    const Real off = x - first;
    sum = sum + off;
    squares = fma(off, off, squares);
  }
};

// What `count` states add to the sums about the shift.
template <class Wide>
struct GroupTerms {
  Wide sum, squares;
  template <class Real>
  PF_HD GroupTerms(const GroupSums<Real>& g, Wide count, Real shift) {
    const Wide away = to_wide(g.first) - to_wide(shift), inside = to_wide(g.sum);
    sum = fma(count, away, inside);
    squares = fma(away, inside + sum, to_wide(g.squares));
  }
};

// The sums of some numbers in memory, from number `offset` on.
template <class T>
class SumsInMemory {
 public:
  PF_HD SumsInMemory(const Moments& m, int64_t offset)
      : shift_(static_cast<const T*>(m.shift) + offset),
        first_(static_cast<T*>(m.group.first) + offset),
        group_sum_(static_cast<T*>(m.group.sum) + offset),
        group_squares_(static_cast<T*>(m.group.squares) + offset),
        sum_(m.sum + offset),
        squares_(m.sum_of_squares + offset),
        at_batch_(m.sum_at_batch + offset),
        batches_(m.batch_squares + offset) {}

  // Adds n states of what `at` reaches, the first of them `state(0)`, to the open group, which has
  // then `count`, and that, where it ends, to the other sums. each(g) adds to g those that count.
  template <class At, class Count, class State, class Each>
  PF_HD void add(const At& at, bool was_open, int64_t n, Count count, SumsDue due,
                 const State& state, const Each& each) const {
    const bool begins = !was_open && n > 0;
    auto g = begun(begins ? state(0) : at.load(was_open ? first_ : shift_));
    if (was_open) {
      g.sum = at.load(group_sum_);
      g.squares = at.load(group_squares_);
    }
    if (begins && !due.group) at.store(first_, g.first);
    each(g);
    if (!due.group) {
      at.store(group_sum_, g.sum);
      at.store(group_squares_, g.squares);
      if (!due.batch) return;
    }
    auto all = at.load(sum_);
    const GroupTerms<decltype(all)> terms(g, decltype(all)(count), at.load(shift_));
    all = all + terms.sum;
    if (due.group) {
      const auto all_squares = at.load(squares_) + terms.squares;
      at.store(sum_, all);
      at.store(squares_, all_squares);
    }
    if (!due.batch) return;
    const decltype(all) grown = all - at.load(at_batch_);
    at.store(batches_, at.load(batches_) + grown * grown);
    at.store(at_batch_, all);
  }
  // What the end of a batch touches is in no near cache.
  template <class At>
  PF_HD void fetch_batches_ahead(const At& at) const {
    at.fetch_ahead(at_batch_);
    at.fetch_ahead(batches_);
  }

 private:
  template <class Real>
  static PF_HD GroupSums<Real> begun(Real first) {
    return {first, Real(T(0)), Real(T(0))};
  }

  const T* shift_;
  T *first_, *group_sum_, *group_squares_;
  double *sum_, *squares_, *at_batch_, *batches_;
};

}  // namespace pf::PF_BACKEND
