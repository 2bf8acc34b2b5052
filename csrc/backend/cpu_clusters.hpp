// SPDX-License-Identifier: Apache-2.0
// Cluster moves on a CPU: threads take lattices, or, for Swendsen-Wang where there are few and each
// is large, strips of one lattice after another. No bit depends on it.
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
  // Every step draws the segments that it touches, or all of them at once.
  void begin(uint64_t step, uint64_t serial) {
    first_ = step * static_cast<uint64_t>(sites_ * n_dims_);
    serial_ = serial;
  }
  void draw_all(const Place& place) {
    const double nanoseconds = static_cast<double>(sites_ * n_dims_);
    for_each_block(segments(sites_), 16, place, nanoseconds, 0,
                   [&](int64_t begin, int64_t end, void*) {
                     for (int64_t i = begin; i < end; ++i) draw(i);
                   });
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

  // The threads of `place` share its work.
  ClusterLattice(const Spins<U>& spins, const ClusterMoves& moves, int64_t index, void* memory,
                 const Place& place)
      : spins_(spins),
        moves_(moves),
        law_(moves.law(index)),
        sites_(spins.shape.n_sites),
        bonds_(law_, sites_, spins.shape.n_dims,
               static_cast<float*>(memory) + 2 * Bonds::segments(sites_),
               static_cast<uint64_t*>(memory)),
        x_(spins.lattice(index)),
        place_(place),
        layers_(spins.shape.size[0]),
        n_strips_(place.n_threads) {
    if (n_strips_ > layers_) n_strips_ = layers_;
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
    if (n_strips_ > 1) bonds_.draw_all(place_);  // a segment of them may lie in two strips
    each_strip([&](int64_t begin, int64_t end) { gather(begin, end); });
    if (n_strips_ > 1) {
      for (int64_t i = 0; i < n_strips_; ++i) join_next(first_of_strip(i + 1));
    }
    each_strip([&](int64_t begin, int64_t end) { draw_spins(step, begin, end); });
    each_strip([&](int64_t begin, int64_t end) { spread_spins(begin, end); });
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
  // Strips are of whole layers, across the first dimension.
  int64_t first_of_strip(int64_t i) const { return i * layers_ / n_strips_ * (sites_ / layers_); }
  template <class Visit>
  void each_strip(const Visit& visit) const {
    for_each_block(
        n_strips_, 1, place_, 10.0 * static_cast<double>(sites_), 0,
        [&](int64_t i, int64_t, void*) { visit(first_of_strip(i), first_of_strip(i + 1)); });
  }

  // Finds the clusters of a strip's sites and bonds: who belongs to which smallest site.
  void gather(int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) first_site_[s] = static_cast<uint32_t>(s);
    each_bond(begin, end, [&](int64_t s, int j, int64_t next) {
      if (next >= begin && next < end && is_held(s, j, next)) join(s, next);
    });
    if (law_.field != 0.0) {
      for (int64_t s = begin; s < end; ++s) size_[s] = 0;
    }
    // A site's chain of smaller ones ends at a root by one step, if they are visited in order.
    for (int64_t s = begin; s < end; ++s) {
      first_site_[s] = first_site_[first_site_[s]];
      if (law_.field != 0.0) ++size_[first_site_[s]];
    }
  }
  // Joins the clusters of the last layer before site `end`, where a strip ends, and of the next.
  void join_next(int64_t end) {
    const int64_t layer = sites_ / layers_, on = end < sites_ ? layer : layer - sites_;
    for (int64_t s = end - layer; s < end; ++s) {
      if (!is_held(s, 0, s + on)) continue;
      const uint32_t gone = join(s, s + on);
      if (law_.field != 0.0 && first_site_[gone] != gone) size_[first_site_[gone]] += size_[gone];
    }
  }
  bool is_held(int64_t s, int j, int64_t next) {
    return spin_[s] == spin_[next] && bonds_.hold(s, j);
  }
  // Returns the larger of the two roots.
  uint32_t join(int64_t s, int64_t next) {
    const uint32_t a = root(static_cast<uint32_t>(s)), b = root(static_cast<uint32_t>(next));
    const uint32_t small = a < b ? a : b, large = a < b ? b : a;
    first_site_[large] = small;
    return large;
  }

  void draw_spins(uint64_t step, int64_t begin, int64_t end) {
    const uint64_t even = law_.up(0), first = step * static_cast<uint64_t>(sites_);
    Entries<Words, float> words(law_.proposal, first + static_cast<uint64_t>(end));
    for (int64_t from = begin; from < end; from += kSegment) {
      const int64_t to = from + kSegment < end ? from + kSegment : end;
      const float* word = words.at(first + static_cast<uint64_t>(from), to - from);
      for (int64_t s = from; s < to; ++s, ++word) {
        if (first_site_[s] != s) continue;
        const uint64_t threshold = law_.field == 0.0 ? even : law_.up(size_[s]);
        spin_[s] = bit_cast<uint32_t>(*word) < threshold ? 1 : -1;
      }
    }
  }
  // Nothing that is read here is written to by another strip.
  void spread_spins(int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      uint32_t r = first_site_[s];
      if (r == s) continue;
      while (first_site_[r] != r) r = first_site_[r];
      spin_[s] = spin_[r];
    }
  }

  // visit(s, j, next) for the site after s along each dimension j, sites of whole layers in order.
  template <class Visit>
  void each_bond(int64_t begin, int64_t end, const Visit& visit) const {
    const LatticeShape& shape = spins_.shape;
    int64_t at[4] = {begin / (sites_ / layers_)};
    for (int64_t s = begin; s < end; ++s) {
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
  Place place_;
  int64_t layers_, n_strips_;
  uint32_t *first_site_, *size_;
  int8_t* spin_;
};

}  // namespace

static int64_t cluster_workspace(const LatticeShape&, int64_t, const Place&) { return 0; }

template <class U, class Move>
static void for_each_cluster_lattice(const Spins<U>& spins, const ClusterMoves& moves,
                                     bool may_share, const Place& place, const Move& move) {
  const double nanoseconds =
      10.0 * static_cast<double>(spins.shape.n_sites) * static_cast<double>(moves.n_steps);
  // Strips of a few layers have little but edges, where clusters are joined by one thread.
  const int64_t n = spins.n_lattices, n_threads = place.n_threads;
  const bool too_few = n < n_threads || (spins.shape.n_sites >= int64_t{1} << 18 &&
                                         n % n_threads != 0 && n < 4 * n_threads);
  const bool share_a_lattice =
      may_share && too_few && spins.shape.n_sites > 8192 && spins.shape.size[0] >= 4 * n_threads;
  const Place alone{1, place.device, place.stream};
  for_each_block(
      spins.n_lattices, share_a_lattice ? spins.n_lattices : 1, share_a_lattice ? alone : place,
      nanoseconds * static_cast<double>(spins.n_lattices), ClusterLattice<U>::bytes(spins.shape),
      [&](int64_t begin, int64_t end, void* memory) {
        for (int64_t i = begin; i < end; ++i) {
          ClusterLattice<U>(spins, moves, i, memory, share_a_lattice ? place : alone).run(move);
        }
      });
}

// Every cluster's spin anew (Swendsen-Wang).
template <class U>
static void redraw_clusters(const Spins<U>& spins, const ClusterMoves& moves, void*,
                            const Place& place) {
  for_each_cluster_lattice(spins, moves, true, place,
                           [](ClusterLattice<U>& l, uint64_t step) { l.redraw(step); });
}

// One cluster turned over (Wolff), which grows site by site: threads take lattices only.
template <class U>
static void turn_clusters(const Spins<U>& spins, const ClusterMoves& moves, void*,
                          const Place& place) {
  for_each_cluster_lattice(spins, moves, false, place,
                           [](ClusterLattice<U>& l, uint64_t step) { l.turn(step); });
}

}  // namespace pf::PF_BACKEND
