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

// The streaming sums of fields of spins, whose shift is a state: a spin is at it or 2 away.
template <class U>
class SpinSums {
 public:
  SpinSums(const Moments& m, int64_t steps_done, const Spins<U>& s)
      : m_(m), steps_done_(steps_done), s_(s) {}
  PF_HD bool wanted() const { return m_.sum != nullptr; }
  // Whether a batch ends with step k of the call.
  PF_HD bool closes(int64_t k) const {
    return m_.batch > 0 && (steps_done_ + k + 1) % m_.batch == 0;
  }
  // Takes in n states of some sites in a row; site number `first` + i was up n_up[i] times.
  template <bool kCloses, class Count>
  PF_HD void add(int64_t lattice, int64_t first, int64_t n_sites, int n, const Count* n_up) const {
    const int64_t begin = lattice * s_.shape.n_sites + first;
    // Of memory that does not overlap, as a compiler must know to make vectors of it.
    const U* __restrict shifts = static_cast<const U*>(m_.shift) + begin;
    double* __restrict sums = m_.sum + begin;
    double* __restrict squares = m_.sum_of_squares + begin;
    double* __restrict at_batch = kCloses ? m_.sum_at_batch + begin : nullptr;
    double* __restrict batches = kCloses ? m_.batch_squares + begin : nullptr;
    for (int64_t i = 0; i < n_sites; ++i) {
      const int shift = s_.is_up(shifts[i]) ? 1 : -1;
      const int off = 2 * static_cast<int>(n_up[i]) - n - shift * n;
      const double sum = sums[i] + static_cast<double>(off);
      sums[i] = sum;
      squares[i] += static_cast<double>(-2 * shift * off);
      if (!kCloses) continue;
      const double grown = sum - at_batch[i];
      batches[i] += grown * grown;
      at_batch[i] = sum;
    }
  }
  // The same of one site.
  template <bool kCloses>
  PF_HD void add(int64_t lattice, int64_t site, int n, int n_up) const {
    add<kCloses>(lattice, site, 1, n, &n_up);
  }

 private:
  Moments m_;
  int64_t steps_done_;
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
