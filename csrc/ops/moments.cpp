// SPDX-License-Identifier: Apache-2.0
// Taking a proposed state where it is finite, and what streaming sums come to.
#include "backend/backend.hpp"
#include "ops/ops.hpp"
#include "ops/sum_groups.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T>
struct CommitChain {
  CommitParams p;

  PF_HD void operator()(int64_t chain) const {
    const int64_t first = chain * p.dim;
    T* x = static_cast<T*>(p.x) + first;
    const T* proposed = static_cast<const T*>(p.proposed) + first;
    T finite = T(0);
    for (int64_t i = 0; i < p.dim; ++i) finite += proposed[i] * T(0);
    const bool taken = finite == finite;
    if (p.taken != nullptr) p.taken[chain] = taken;
    if (!taken) {
      ++p.n_nonfinite[chain];
      return;
    }
    for (int64_t i = 0; i < p.dim; ++i) x[i] = proposed[i];
    if (p.kept != nullptr) {
      T* kept = static_cast<T*>(p.kept) + first;
      for (int64_t i = 0; i < p.dim; ++i) kept[i] = proposed[i];
    }
    if (p.moments.sum == nullptr) return;
    const T* shift = static_cast<const T*>(p.moments.shift) + first;
    double* sum = p.moments.sum + first;
    double* squares = p.moments.sum_of_squares + first;
    for (int64_t i = 0; i < p.dim; ++i) {
      const double off = to_wide(x[i]) - to_wide(shift[i]);
      sum[i] += off;
      squares[i] = fma(off, off, squares[i]);
    }
  }
};

// States that have waited go to the streaming sums.
template <class T>
struct AddStates {
  AddStatesParams p;
  SumsInMemory<T> sums;
  int64_t n_open;  // states that the open group has before
  SumsDue due;

  // One number or several of any chains, of which each step's state counts.
  template <class At>
  PF_HD void operator()(const At& at) const {
    add(at, p.states[0], p.n_states, static_cast<double>(n_open + p.n_states),
        [&](int64_t k) PF_INLINE_LAMBDA { return p.states[k]; });
  }
  // Adds n states, of which number k begins at states(k). A group that begins is summed about the
  // first step's, whether it counts or not.
  template <class At, class States>
  PF_HD void add(const At& at, const void* first, int64_t n, double count,
                 const States& states) const {
    const auto load = [&](const void* state)
                          PF_INLINE_LAMBDA { return at.load(static_cast<const T*>(state)); };
    sums.add(
        at, n_open > 0, p.n_states, count, due,
        [&](int64_t) PF_INLINE_LAMBDA { return load(first); },
        [&](auto& g) PF_INLINE_LAMBDA {
          for (int64_t k = 0; k < n; ++k) g.add(load(states(k)));
        });
  }
  PF_HD T& count(int64_t chain) const { return static_cast<T*>(p.moments.group.count)[chain]; }
};
// A chain, whose steps have marks.
template <class T>
struct AddStatesOfChain {
  AddStates<T> all;

  PF_HD void operator()(int64_t chain) const {
    const AddStatesParams& p = all.p;
    // Which state each step that counts has, four bits each: no array, which a GPU would have in
    // slow memory. Number 0 is the first step's, be it new or the one before.
    static_assert(kStepGroup <= 16, "four bits");
    uint64_t which = 0, latest = 0;
    int n = 0;
    for (int64_t k = 0; k < p.n_states; ++k) {
      const uint8_t mark = p.marks[k * p.n_chains + chain];
      if ((mark & kTaken) != 0) latest = static_cast<uint64_t>(k);
      if ((mark & kLeftOut) == 0) which |= latest << (4 * n++);
    }
    const void* first_state = (p.marks[chain] & kTaken) != 0 ? p.states[0] : p.before;
    const auto states = [&](int64_t k) PF_INLINE_LAMBDA {
      const uint64_t i = (which >> (4 * k)) & 15;
      return i == 0 ? first_state : p.states[i];
    };
    fetch(chain + kAhead);
    const double before = all.n_open > 0 ? to_wide(all.count(chain)) : 0.0;
    const double count = before + static_cast<double>(n);
    const int64_t first = chain * p.dim;
    for_items_of_row(first, first + p.dim, [&](const auto& items) PF_INLINE_LAMBDA {
      all.add(items, first_state, n, count, states);
    });
    all.count(chain) = all.due.group ? T(0) : static_cast<T>(count);
  }

 private:
  static constexpr int64_t kAhead = 2;  // chains
  // What a later chain took lies here and there.
  PF_HD void fetch(int64_t chain) const {
    const AddStatesParams& p = all.p;
    for (int64_t k = 0; k < p.n_states && chain < p.n_chains; ++k) {
      if ((p.marks[k * p.n_chains + chain] & kTaken) == 0) continue;
      fetch_row(static_cast<const T*>(p.states[k]) + chain * p.dim, p.dim);
    }
  }
};
// What the open group has then, where all states count.
template <class T>
struct CountStates {
  AddStates<T> all;
  PF_HD void operator()(int64_t chain) const {
    all.count(chain) = all.due.group ? T(0) : T(all.n_open + all.p.n_states);
  }
};

// Mean and variance of a coordinate over all chains and steps, or of some coordinates.
template <class T>
struct PoolCoordinate {
  PoolParams p;

  template <class Sum>
  PF_HD void operator()(int64_t i, const Sum& sum) const {
    (*this)(OneItem<>{i}, sum);
  }
  template <class At, class Sum>
  PF_HD void operator()(const At& at, const Sum& sum) const {
    using Wide = decltype(at.load(p.moments.sum));
    const T* shift = static_cast<const T*>(p.moments.shift);
    const double n = sum(p.n_chains, [&](int64_t c) { return terms(c); });
    // Differences from the shift of the first chain that counts keep digits of a law far from 0.
    int64_t first = 0;
    while (first + 1 < p.n_chains && terms(first) == 0.0) ++first;
    Wide origin(0.0);
    if (p.n_chains > 0) origin = to_wide(at.load(shift + first * p.dim));
    const Wide total = sum(p.n_chains, [&](int64_t c) PF_INLINE_LAMBDA {
      const Wide away = to_wide(at.load(shift + c * p.dim)) - origin;
      return fma(Wide(terms(c)), away, at.load(p.moments.sum + c * p.dim));
    });
    const Wide mean = total / Wide(n);
    const Wide square = sum(p.n_chains, [&](int64_t c) PF_INLINE_LAMBDA {
      const Wide off = mean - (to_wide(at.load(shift + c * p.dim)) - origin);
      const Wide inside = at.load(p.moments.sum + c * p.dim);
      return at.load(p.moments.sum_of_squares + c * p.dim) -
             off * (inside + inside - Wide(terms(c)) * off);
    });
    at.store(p.mean, origin + mean);
    // By rounding it may be negative where all states are one.
    at.store(p.var, select(square < Wide(0.0), Wide(0.0), square) / Wide(n - 1.0));
  }

 private:
  PF_HD double terms(int64_t chain) const {
    return static_cast<double>(p.n_steps - p.n_left_out[chain]);
  }
};

// The sums of a coordinate of a chain over all its states.
template <class T>
struct TotalsOfNumber {
  TotalsParams p;

  PF_HD void operator()(int64_t i) const {
    const OpenGroup& g = p.moments.group;
    const T* counts = static_cast<const T*>(g.count);
    const double count =
        counts == nullptr ? 0 : to_wide(counts[row_of(i, p.dim, p.n_chains * p.dim)]);
    double sum = p.moments.sum[i];
    if (count > 0 || p.sum != p.moments.sum) {  // else they are where they belong
      double squares = p.moments.sum_of_squares[i];
      if (count > 0) {
        const GroupSums<T> group{static_cast<const T*>(g.first)[i], static_cast<const T*>(g.sum)[i],
                                 static_cast<const T*>(g.squares)[i]};
        const GroupTerms<double> terms(group, count, static_cast<const T*>(p.moments.shift)[i]);
        sum += terms.sum;
        squares += terms.squares;
      }
      p.sum[i] = sum;
      p.sum_of_squares[i] = squares;
    }
    if (p.open_batch != nullptr) p.open_batch[i] = sum - p.moments.sum_at_batch[i];
  }
};

}  // namespace

void commit(const CommitParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    const double cost = 1.0 * static_cast<double>(p.n_chains) * static_cast<double>(p.dim);
    for_each_row(p.n_chains, p.place, cost, CommitChain<decltype(zero)>{p});
  });
}

void pool(const PoolParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    const double cost = 4.0 * static_cast<double>(p.n_chains) * static_cast<double>(p.dim);
    for_each_sum(p.dim, p.place, cost, PoolCoordinate<decltype(zero)>{p});
  });
}

void add_states(const AddStatesParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n_done = p.steps_done + p.n_states, n = p.n_chains * p.dim;
    const Moments& m = p.moments;
    const SumsDue due{!inside_group(m, n_done), m.batch > 0 && n_done % m.batch == 0};
    const AddStates<T> all{p, SumsInMemory<T>(m, 0), p.steps_done % steps_of_group(m), due};
    const double cost = (2.0 + 0.5 * static_cast<double>(p.n_states)) * static_cast<double>(n);
    if (p.marks != nullptr) {
      return for_each_row(p.n_chains, p.place, cost, AddStatesOfChain<T>{all});
    }
    for_each_item(n, p.place, cost, all);
    const bool was_open = all.n_open > 0;
    if (was_open || !due.group) for_each_row(p.n_chains, p.place, 0.0, CountStates<T>{all});
  });
}

void totals(const TotalsParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    const int64_t n = p.n_chains * p.dim;
    for_each_row(n, p.place, 4.0 * static_cast<double>(n), TotalsOfNumber<decltype(zero)>{p});
  });
}

}  // namespace pf::PF_BACKEND
