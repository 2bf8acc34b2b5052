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

}  // namespace pf::PF_BACKEND
