// SPDX-License-Identifier: Apache-2.0
// Cluster moves on a CPU: threads take lattices, or, where there are few and each is large, strips
// of one lattice after another (Swendsen-Wang) or parts of a large cluster (Wolff). No bit depends
// on it.
#pragma once

#include <string.h>

#include "backend/cpu_growth.hpp"
#include "core/spins.hpp"

namespace pf::PF_BACKEND {
namespace {  // no weak symbol of a member that is not inlined

// One lattice: spins +-1, who belongs to whom, and for streaming sums how often each was up.
template <class U>
class ClusterLattice {
 public:
  static int64_t bytes(const LatticeShape& s, bool adds_up) {
    return Bonds::bytes(s.n_sites, s.n_dims) + Growth::bytes(s.n_sites) +
           (adds_up ? 5 : 1) * s.n_sites;
  }

  // The threads of `place` share its work.
  ClusterLattice(const Spins<U>& spins, const ClusterMoves& moves, const SpinSums<U>& sums,
                 int64_t index, void* memory, const Place& place, Handover* others = nullptr)
      : spins_(spins),
        moves_(moves),
        sums_(sums),
        index_(index),
        law_(moves.law(index)),
        sites_(spins.shape.n_sites),
        bonds_(law_, sites_, spins.shape.n_dims, memory),
        first_site_(reinterpret_cast<uint32_t*>(static_cast<char*>(memory) +
                                                Bonds::bytes(sites_, spins.shape.n_dims))),
        size_(first_site_ + sites_),
        n_up_(reinterpret_cast<int32_t*>(first_site_) + Growth::bytes(sites_) / 4),
        spin_(reinterpret_cast<int8_t*>(n_up_ + (sums.wanted() ? sites_ : 0))),
        growth_(spins.shape, spin_, first_site_, place, others),
        x_(spins.lattice(index)),
        place_(place),
        layers_(spins.shape.size[0]),
        n_strips_(place.n_threads) {
    if (n_strips_ > layers_) n_strips_ = layers_;
  }

  // move(lattice, step) for each step.
  template <class Move>
  void run(const Move& move) {
    // Copies, which stores to spins cannot change for all that a compiler knows.
    const Spins<U> spins = spins_;
    const int64_t sites = sites_;
    int8_t* const spin = spin_;
    U* const x = x_;
    for (int64_t s = 0; s < sites; ++s) spin[s] = spins.is_up(x[s]) ? 1 : -1;
    if (sums_.wanted()) memset(n_up_, 0, static_cast<size_t>(sites) * sizeof(int32_t));
    for (int64_t k = 0; k < moves_.n_steps; ++k) {
      const uint64_t step = moves_.first_step + static_cast<uint64_t>(k);
      bonds_.begin(step, static_cast<uint64_t>(k) + 1);
      move(*this, step);
      if (sums_.wanted()) count(k);
    }
    for (int64_t s = 0; s < sites; ++s) x[s] = spin[s] > 0 ? spins.up : spins.down;
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
    if (!sums_.wanted()) return;
    counts_changes_ = false;
    each_strip([&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) n_up_[s] += spin_[s] > 0;
    });
  }

  // Wolff: one cluster.
  void turn(uint64_t step) {
    const uint32_t high = bit_cast<uint32_t>(entry<Words, float>(law_.proposal, 4 * step));
    const uint32_t low = bit_cast<uint32_t>(entry<Words, float>(law_.proposal, 4 * step + 1));
    const int64_t start = site_of_word(high, low, sites_);
    growth_.turn(start, bonds_);
    if (law_.field != 0.0) {
      const uint32_t word = bit_cast<uint32_t>(entry<Words, float>(law_.accept, step));
      if (word >= law_.turn(growth_.size(), growth_.before())) return growth_.turn_back();
    }
    if (n_counted_ == 0) return;
    const int32_t more = growth_.before() > 0 ? n_counted_ : -n_counted_;
    growth_.each_member([&](uint32_t s) { n_up_[s] += more; });
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

  // Counts the state after step k of the call. Of a site n_up_ has how many of the n_counted_
  // states were up or, where changes are counted, what is to be added to that number if the spin
  // has been what it is in all of them: then only spins that turn over cost anything.
  void count(int64_t k) {
    if (++n_counted_ < kMostCounted && !sums_.are_due(k)) return;
    const SpinStates states = sums_.states(k, n_counted_);
    each_strip([&](int64_t begin, int64_t end) { add_counts(states, begin, end); });
    n_counted_ = 0;
  }
  void add_counts(const SpinStates& states, int64_t begin, int64_t end) {
    const int32_t n_if_up = counts_changes_ ? n_counted_ : 0;
    for (int64_t s = begin; s < end; ++s) n_up_[s] += spin_[s] > 0 ? n_if_up : 0;
    sums_.add(states, index_, begin, end - begin, n_up_ + begin);
    memset(n_up_ + begin, 0, static_cast<size_t>(end - begin) * sizeof(int32_t));
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

  static constexpr int32_t kMostCounted = 1 << 28;
  Spins<U> spins_;
  const ClusterMoves& moves_;
  SpinSums<U> sums_;
  int64_t index_;
  ClusterLaw law_;
  int64_t sites_;
  Bonds bonds_;
  uint32_t *first_site_, *size_;  // Swendsen-Wang's, where Wolff's members are
  int32_t* n_up_;
  int8_t* spin_;
  Growth growth_;
  U* x_;
  Place place_;
  int64_t layers_, n_strips_;
  int32_t n_counted_ = 0;
  bool counts_changes_ = true;
};

}  // namespace

static int64_t cluster_workspace(const LatticeShape&, int64_t, const Place&) { return 0; }

// A guess of what the steps of a call take, for each lattice.
static double cluster_nanoseconds(const LatticeShape& shape, const ClusterMoves& moves) {
  return 10.0 * static_cast<double>(shape.n_sites) * static_cast<double>(moves.n_steps);
}

// Every cluster's spin anew (Swendsen-Wang).
template <class U>
static void redraw_clusters(const Spins<U>& spins, const ClusterMoves& moves,
                            const SpinSums<U>& sums, void*, const Place& place) {
  // Strips of a few layers have little but edges, where clusters are joined by one thread.
  const int64_t n = spins.n_lattices, n_threads = place.n_threads;
  const bool too_few = n < n_threads || (spins.shape.n_sites >= int64_t{1} << 18 &&
                                         n % n_threads != 0 && n < 4 * n_threads);
  const bool share_a_lattice =
      too_few && spins.shape.n_sites > 8192 && spins.shape.size[0] >= 4 * n_threads;
  const Place alone{1, place.device, place.stream};
  for_each_block(n, share_a_lattice ? n : 1, share_a_lattice ? alone : place,
                 cluster_nanoseconds(spins.shape, moves) * static_cast<double>(n),
                 ClusterLattice<U>::bytes(spins.shape, sums.wanted()),
                 [&](int64_t begin, int64_t end, void* memory) {
                   for (int64_t i = begin; i < end; ++i) {
                     ClusterLattice<U>(spins, moves, sums, i, memory,
                                       share_a_lattice ? place : alone)
                         .run([](ClusterLattice<U>& l, uint64_t step) { l.redraw(step); });
                   }
                 });
}

// One cluster turned over (Wolff). The threads share the large clusters of a single lattice; of
// several they take one each, and where none is left they help with those that others have.
template <class U>
static void turn_clusters(const Spins<U>& spins, const ClusterMoves& moves, const SpinSums<U>& sums,
                          void*, const Place& place) {
  const int64_t n = spins.n_lattices;
  const bool may_help = n > 1 && n < 4 * static_cast<int64_t>(place.n_threads) &&
                        spins.shape.n_sites >= int64_t{1} << 16;
  const int64_t n_helpers = may_help ? place.n_threads - 1 : 0;
  const Place alone{1, place.device, place.stream};
  Handover others;
  int64_t n_begun = 0, n_left = n;
  for_each_block(
      n + n_helpers, 1, place, cluster_nanoseconds(spins.shape, moves) * static_cast<double>(n),
      ClusterLattice<U>::bytes(spins.shape, sums.wanted()),
      [&](int64_t block, int64_t, void* memory) {
        // Helpers come last, whichever block a thread has.
        const int64_t i = may_help ? __atomic_fetch_add(&n_begun, 1, __ATOMIC_RELAXED) : block;
        if (i >= n) return Growth::help(others, &n_left);
        ClusterLattice<U>(spins, moves, sums, i, memory, n == 1 ? place : alone,
                          may_help ? &others : nullptr)
            .run([](ClusterLattice<U>& l, uint64_t step) { l.turn(step); });
        others.finish(&n_left);
      });
}

}  // namespace pf::PF_BACKEND
