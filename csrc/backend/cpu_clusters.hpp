// SPDX-License-Identifier: Apache-2.0
// Cluster moves on a CPU: threads take lattices.
#pragma once

#include "backend/cpu_fields.hpp"
#include "core/spins.hpp"

namespace pf::PF_BACKEND {
namespace {  // no weak symbol of a member that is not inlined

constexpr int64_t kSegment = 256;  // sites whose bonds are drawn together

// The bonds of a lattice, drawn where a step asks for them.
class Bonds {
 public:
  static constexpr int64_t kSlack = 4 * kLanes + 4;
  static int64_t words(int64_t sites, int n_dims) {
    return segments(sites) * (kSegment * n_dims + kSlack);
  }
  static int64_t segments(int64_t sites) { return (sites + kSegment - 1) / kSegment; }

  Bonds(const ClusterLaw& law, int64_t sites, int n_dims, float* values, uint64_t* drawn_at)
      : noise_(law.bonds),
        sites_(sites),
        n_dims_(n_dims),
        threshold_(law.bond),
        values_(values),
        drawn_at_(drawn_at) {
    for (int64_t i = 0; i < segments(sites); ++i) drawn_at_[i] = 0;
  }
  // Every step draws the segments that it touches.
  void begin(uint64_t step, uint64_t serial) {
    first_ = step * static_cast<uint64_t>(sites_ * n_dims_);
    serial_ = serial;
  }
  PF_HD bool hold(int64_t site, int j) {
    const int64_t segment = site / kSegment;
    if (drawn_at_[segment] != serial_) draw(segment);
    const int64_t entry = (site % kSegment) * n_dims_ + j;
    return bit_cast<uint32_t>(of(segment)[phase(segment) + entry]) < threshold_;
  }

 private:
  uint64_t first_of(int64_t segment) const {
    return first_ + static_cast<uint64_t>(segment * kSegment * n_dims_);
  }
  int64_t phase(int64_t segment) const { return static_cast<int64_t>(first_of(segment) % 4); }
  float* of(int64_t segment) const { return values_ + segment * (kSegment * n_dims_ + kSlack); }
  void draw(int64_t segment) {
    drawn_at_[segment] = serial_;
    const int64_t left = sites_ - segment * kSegment;
    const int64_t n = (left < kSegment ? left : kSegment) * n_dims_ + phase(segment);
    fill_entries<Words>(noise_, first_of(segment) / 4 * 4, (n + 3) / 4, of(segment));
  }
  NoiseSource noise_;
  int64_t sites_;
  int n_dims_;
  uint64_t threshold_, first_ = 0, serial_ = 0;
  float* values_;
  uint64_t* drawn_at_;
};

// One lattice: spins +-1, and who belongs to whom.
template <class U>
class ClusterLattice {
 public:
  static int64_t bytes(const LatticeShape& s) {
    return Bonds::words(s.n_sites, s.n_dims) * 4 + Bonds::segments(s.n_sites) * 8 +
           s.n_sites * (4 + 4 + 1) + 64;
  }

  ClusterLattice(const Spins<U>& spins, const ClusterMoves& moves, int64_t index, void* memory)
      : spins_(spins),
        moves_(moves),
        law_(moves.law(index)),
        sites_(spins.shape.n_sites),
        bonds_(law_, sites_, spins.shape.n_dims,
               static_cast<float*>(memory) + 2 * Bonds::segments(sites_),
               static_cast<uint64_t*>(memory)),
        x_(spins.lattice(index)) {
    first_site_ =
        reinterpret_cast<uint32_t*>(static_cast<float*>(memory) + 2 * Bonds::segments(sites_) +
                                    Bonds::words(sites_, spins.shape.n_dims));
    size_ = first_site_ + sites_;
    spin_ = reinterpret_cast<int8_t*>(size_ + sites_);
  }

  // move(lattice, step) for each step.
  template <class Move>
  void run(const Move& move) {
    for (int64_t s = 0; s < sites_; ++s) spin_[s] = spins_.is_up(x_[s]) ? 1 : -1;
    for (int64_t k = 0; k < moves_.n_steps; ++k) {
      const uint64_t step = moves_.first_step + static_cast<uint64_t>(k);
      bonds_.begin(step, static_cast<uint64_t>(k) + 1);
      move(*this, step);
    }
    for (int64_t s = 0; s < sites_; ++s) x_[s] = spin_[s] > 0 ? spins_.up : spins_.down;
  }

  // Swendsen and Wang: all clusters.
  void redraw(uint64_t step) {
    for (int64_t s = 0; s < sites_; ++s) first_site_[s] = static_cast<uint32_t>(s);
    each_bond([&](int64_t s, int j, int64_t next) {
      if (spin_[s] != spin_[next] || !bonds_.hold(s, j)) return;
      const uint32_t a = root(static_cast<uint32_t>(s)), b = root(static_cast<uint32_t>(next));
      if (a < b) {
        first_site_[b] = a;
      } else {
        first_site_[a] = b;
      }
    });
    // A site's chain of smaller ones ends at a root by one step, if they are visited in order.
    if (law_.field != 0.0) {
      for (int64_t s = 0; s < sites_; ++s) size_[s] = 0;
    }
    for (int64_t s = 0; s < sites_; ++s) {
      first_site_[s] = first_site_[first_site_[s]];
      if (law_.field != 0.0) ++size_[first_site_[s]];
    }
    const uint64_t even = law_.up(0), end = (step + 1) * static_cast<uint64_t>(sites_);
    Entries<Words, float> words(law_.proposal, end);
    for (int64_t begin = 0; begin < sites_; begin += kSegment) {
      const int64_t stop = begin + kSegment < sites_ ? begin + kSegment : sites_;
      const float* word = words.at(
          step * static_cast<uint64_t>(sites_) + static_cast<uint64_t>(begin), stop - begin);
      for (int64_t s = begin; s < stop; ++s, ++word) {
        const uint32_t r = first_site_[s];
        if (r == s) {
          const uint64_t threshold = law_.field == 0.0 ? even : law_.up(size_[s]);
          spin_[s] = bit_cast<uint32_t>(*word) < threshold ? 1 : -1;
        } else {
          spin_[s] = spin_[r];  // which is smaller, and done
        }
      }
    }
  }

  // Wolff: one cluster.
  void turn(uint64_t step) {
    const uint32_t high = bit_cast<uint32_t>(entry<Words, float>(law_.proposal, 4 * step));
    const uint32_t low = bit_cast<uint32_t>(entry<Words, float>(law_.proposal, 4 * step + 1));
    const int64_t start = site_of_word(high, low, sites_);
    uint32_t* members = first_site_;
    const int8_t before = spin_[start];
    int64_t n = 0;
    const auto join = [&](int64_t s) {
      spin_[s] = static_cast<int8_t>(-before);
      members[n++] = static_cast<uint32_t>(s);
    };
    join(start);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t s = members[i];
      each_dimension(spins_.shape, s, [&](int j, int64_t next, int64_t last) {
        if (spin_[next] == before && bonds_.hold(s, j)) join(next);
        if (spin_[last] == before && bonds_.hold(last, j)) join(last);
      });
    }
    if (law_.field == 0.0) return;
    const uint32_t word = bit_cast<uint32_t>(entry<Words, float>(law_.accept, step));
    if (word < law_.turn(n, before)) return;
    for (int64_t i = 0; i < n; ++i) spin_[members[i]] = before;
  }

 private:
  // visit(s, j, next) for the site after s along each dimension j, sites in order.
  template <class Visit>
  void each_bond(const Visit& visit) const {
    const LatticeShape& shape = spins_.shape;
    int64_t at[4] = {};
    for (int64_t s = 0; s < sites_; ++s) {
      int64_t step = 1;
      for (int j = shape.n_dims - 1; j >= 0; --j) {
        const int64_t n = shape.size[j];
        visit(s, j, at[j] + 1 < n ? s + step : s - step * (n - 1));
        step *= n;
      }
      for (int j = shape.n_dims - 1; j >= 0 && ++at[j] == shape.size[j]; --j) at[j] = 0;
    }
  }

  uint32_t root(uint32_t s) {
    while (first_site_[s] != s) s = first_site_[s] = first_site_[first_site_[s]];
    return s;
  }

  Spins<U> spins_;
  const ClusterMoves& moves_;
  ClusterLaw law_;
  int64_t sites_;
  Bonds bonds_;
  U* x_;
  uint32_t *first_site_, *size_;
  int8_t* spin_;
};

}  // namespace

template <class U, class Move>
static void for_each_cluster_lattice(const Spins<U>& spins, const ClusterMoves& moves,
                                     const Place& place, const Move& move) {
  const double nanoseconds = 10.0 * static_cast<double>(spins.shape.n_sites) *
                             static_cast<double>(moves.n_steps) *
                             static_cast<double>(spins.n_lattices);
  for_each_block(spins.n_lattices, 1, place, nanoseconds, ClusterLattice<U>::bytes(spins.shape),
                 [&](int64_t index, int64_t, void* memory) {
                   ClusterLattice<U>(spins, moves, index, memory).run(move);
                 });
}

// Every cluster's spin anew (Swendsen-Wang).
template <class U>
static void redraw_clusters(const Spins<U>& spins, const ClusterMoves& moves, void*,
                            const Place& place) {
  for_each_cluster_lattice(spins, moves, place,
                           [](ClusterLattice<U>& l, uint64_t step) { l.redraw(step); });
}

// One cluster turned over (Wolff).
template <class U>
static void turn_clusters(const Spins<U>& spins, const ClusterMoves& moves, void*,
                          const Place& place) {
  for_each_cluster_lattice(spins, moves, place,
                           [](ClusterLattice<U>& l, uint64_t step) { l.turn(step); });
}

}  // namespace pf::PF_BACKEND
