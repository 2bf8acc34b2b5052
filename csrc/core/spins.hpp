// SPDX-License-Identifier: Apache-2.0
// Fields of spins by the type of their words.
#pragma once

#include "core/config.hpp"
#include "core/view.hpp"

namespace pf::PF_BACKEND {

// A spin's word at the interface, and its two values.
template <class U>
struct Spins {
  U* x;
  U up, down;
  int64_t n_lattices;
  LatticeShape shape;
  explicit Spins(const SpinFields& f)
      : x(static_cast<U*>(f.x)),
        up(static_cast<U>(f.up)),
        down(static_cast<U>(f.down)),
        n_lattices(f.n_lattices),
        shape(f.shape) {}
  PF_HD U* lattice(int64_t index) const { return x + index * shape.n_sites; }
  PF_HD bool is_up(U word) const { return word >> (sizeof(U) * 8 - 1) == 0; }
};

// The acceptances of sweeps: the share of a lattice's spins that each turns over.
class TurnedShares {
 public:
  TurnedShares(const Tallies& t, const LatticeShape& shape)
      : sum_(t.accepted),
        squares_(t.accepted_squares),
        n_sites_(static_cast<double>(shape.n_sites)) {}
  PF_HD bool wanted() const { return sum_ != nullptr; }
  // Takes in a sweep that turned n spins over.
  PF_HD void add(int64_t lattice, int64_t n) const {
    const double share = static_cast<double>(n) / n_sites_;
    sum_[lattice] += share;
    squares_[lattice] += share * share;
  }

 private:
  double *sum_, *squares_;
  double n_sites_;
};

// Some states in a row that are added to the streaming sums at once.
struct SpinStates {
  int n;
  bool begin_batch, end_batch, end_call;
};

// The streaming sums of fields of spins, whose shift is a state: a spin is at it or 2 away. What
// follows from the sum of x - shift is written when it is needed, not with each addition: that of
// the squares, which is -2 shift times it, at the end of a call, and the sum at the batch's
// beginning where a batch goes on in a later addition.
template <class U>
class SpinSums {
 public:
  SpinSums(const Moments& m, int64_t steps_done, int64_t n_steps, const Spins<U>& s)
      : m_(m), steps_done_(steps_done), n_steps_(n_steps), s_(s) {}
  PF_HD bool wanted() const { return m_.sum != nullptr; }
  // Whether the states up to that after step k of the call must be added now.
  PF_HD bool are_due(int64_t k) const { return k + 1 == n_steps_ || is_between(k + 1); }
  // The last n states up to that one, of one batch.
  PF_HD SpinStates states(int64_t k, int n) const {
    return {n, is_between(k + 1 - n), is_between(k + 1), k + 1 == n_steps_};
  }
  // Adds states of some sites in a row; site number `first` + i was up n_up[i] times.
  template <class Count>
  PF_HD void add(const SpinStates& states, int64_t lattice, int64_t first, int64_t n_sites,
                 const Count* n_up) const {
    const int64_t begin = lattice * s_.shape.n_sites + first;
    // Of memory that does not overlap, as a compiler must know to make vectors of it.
    const U* __restrict shifts = static_cast<const U*>(m_.shift) + begin;
    double* __restrict sums = m_.sum + begin;
    double* __restrict at_batch = m_.batch > 0 ? m_.sum_at_batch + begin : nullptr;
    double* __restrict batches = m_.batch > 0 ? m_.batch_squares + begin : nullptr;
    const int n = states.n;
    const auto more = [&](int64_t i) {
      return static_cast<double>(2 * static_cast<int>(n_up[i]) - n -
                                 (s_.is_up(shifts[i]) ? n : -n));
    };
    if (states.begin_batch && states.end_batch) {
      for (int64_t i = 0; i < n_sites; ++i) batches[i] += more(i) * more(i);
    } else if (states.begin_batch) {
      for (int64_t i = 0; i < n_sites; ++i) at_batch[i] = sums[i];
    }
    for (int64_t i = 0; i < n_sites; ++i) sums[i] += more(i);
    if (states.end_batch && !states.begin_batch) {
      for (int64_t i = 0; i < n_sites; ++i) {
        const double grown = sums[i] - at_batch[i];
        batches[i] += grown * grown;
      }
    }
    if (!states.end_call) return;
    double* __restrict squares = m_.sum_of_squares + begin;
    for (int64_t i = 0; i < n_sites; ++i) {
      squares[i] = 0.0 - (s_.is_up(shifts[i]) ? 2.0 : -2.0) * sums[i];  // not -0
    }
    if (!states.end_batch) return;
    for (int64_t i = 0; i < n_sites; ++i) at_batch[i] = sums[i];
  }

 private:
  // Whether step k of the call lies between two batches.
  PF_HD bool is_between(int64_t k) const {
    return m_.batch > 0 && (steps_done_ + k) % m_.batch == 0;
  }

  Moments m_;
  int64_t steps_done_, n_steps_;
  Spins<U> s_;
};

// body(spins), of the type that the words have.
template <class Body>
static void with_spins(const SpinFields& f, const Body& body) {
  switch (f.bytes) {
    case 1: return body(Spins<uint8_t>(f));
    case 2: return body(Spins<uint16_t>(f));
    case 4: return body(Spins<uint32_t>(f));
    default: return body(Spins<uint64_t>(f));
  }
}

}  // namespace pf::PF_BACKEND
