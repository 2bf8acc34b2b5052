// SPDX-License-Identifier: Apache-2.0
// The streaming sums of one lattice of a real field.
#pragma once

#include "backend/fields.hpp"
#include "ops/sum_groups.hpp"

namespace pf::PF_BACKEND {

// States of a lattice that wait to be added together: all of them or half as many, whichever fit in
// the first or else in the second of a core's caches, with room for what else a step reads.
constexpr int kFewerWaiting = kFieldsWaiting > 1 ? kFieldsWaiting / 2 : 1;
PF_HD int most_fields_waiting(const Moments& m, int64_t bytes_of_state) {
  constexpr int64_t kFirst = int64_t{24} << 10, kSecond = int64_t{768} << 10;
  if (m.sum == nullptr) return 1;
  const auto fit = [&](int n, int64_t bytes) { return n * bytes_of_state <= bytes; };
  if (fit(kFieldsWaiting, kFirst)) return kFieldsWaiting;
  return !fit(kFewerWaiting, kFirst) && fit(kFieldsWaiting, kSecond) ? kFieldsWaiting
                                                                     : kFewerWaiting;
}

template <class Lattice>
class FieldMoments {
  using T = typename Traits<typename Lattice::Real>::Scalar;
  using Array = Field<T>;

 public:
  // Of lattice number `index`, of whose states `most_waiting` may wait.
  PF_HD FieldMoments(const Moments& m, int64_t steps_done, int64_t index, const Lattice& lattice,
                     int most_waiting)
      : m_(m), lattice_(lattice), index_(index), most_waiting_(most_waiting) {
    if (wanted() && inside_group(m, steps_done)) count_ = static_cast<int>(*memory_of_count());
  }
  PF_HD bool wanted() const { return m_.sum != nullptr; }

  // Takes in the state after recorded step number n_done, if it counts. On a CPU states whose
  // arrays are not written to meanwhile wait for others, so that the sums are read and written once
  // for them all.
  PF_HD void add(Array state, bool counts, int64_t n_done, bool last_of_call) {
    const SumsDue due{!inside_group(m_, n_done), m_.batch > 0 && n_done % m_.batch == 0};
    if constexpr (kFieldsWaiting == 1) {
      if (counts || due.group || due.batch) add_states(&state, counts ? 1 : 0, due);
    } else {
      if (counts) waiting_[n_waits_++] = state;
      if (n_waits_ == most_waiting_ || due.group || due.batch || last_of_call) {
        add_states(waiting_, n_waits_, due);
        n_waits_ = 0;
      }
    }
    if (last_of_call && m_.group.count != nullptr && lattice_.speaks()) {
      *memory_of_count() = static_cast<T>(count_);
    }
  }
  PF_HD bool waits(Array a) const {
    bool found = false;
    if constexpr (kFieldsWaiting > 1) {
      for (int n = 0; n < n_waits_; ++n) found = found || a.first == waiting_[n].first;
    }
    return found;
  }

 private:
  PF_HD T* memory_of_count() const { return static_cast<T*>(m_.group.count) + index_; }

  // Adds n states one after another to the open group, and that, where it ends, to the other sums.
  PF_HD void add_states(const Array* states, int n, SumsDue due) {
    const bool was_open = count_ > 0;
    const double count = count_ + n;
    count_ = due.group ? 0 : count_ + n;
    if (count == 0 && !due.batch) return;
    if constexpr (kFieldsWaiting > 1) {  // nearly always
      if (n == kFieldsWaiting) return add_to_sums<kFieldsWaiting>(states, n, was_open, count, due);
      if (n == kFewerWaiting) return add_to_sums<kFewerWaiting>(states, n, was_open, count, due);
    }
    add_to_sums<0>(states, n, was_open, count, due);
  }
  // n is kCount, where that is not 0.
  template <int kCount>
  PF_HD void add_to_sums(const Array* states, int n, bool was_open, double count,
                         SumsDue due) const {
    Array added[kFieldsWaiting];  // which the compiler can keep in registers
    for (int i = 0; i < kFieldsWaiting && i < n; ++i) added[i] = states[i];
    // A copy, since what is written may lie anywhere for all that the compiler knows.
    const SumsInMemory<T> sums(m_, index_ * lattice_.sites());
    lattice_.for_each_site([=](const auto& at) PF_INLINE_LAMBDA {
      if constexpr (kCount > 0) {
        if (due.batch) sums.fetch_batches_ahead(at);
      }
      const auto state = [&](int i) PF_INLINE_LAMBDA { return at.value(added[i]); };
      sums.add(at, was_open, kCount > 0 ? kCount : n, count, due, state,
               [&](auto& g) PF_INLINE_LAMBDA {
                 if constexpr (kCount > 0) {
                   PF_UNROLL
                   for (int i = 0; i < kCount; ++i) g.add(state(i));
                 } else {
                   for (int i = 0; i < kFieldsWaiting && i < n; ++i) g.add(state(i));
                 }
               });
    });
  }

  const Moments& m_;
  const Lattice& lattice_;
  int64_t index_;
  int most_waiting_;
  int count_ = 0;                  // states in the open group
  Array waiting_[kFieldsWaiting];  // the latest of them the present one
  int n_waits_ = 0;
};

}  // namespace pf::PF_BACKEND
