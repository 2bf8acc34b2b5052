// SPDX-License-Identifier: Apache-2.0
// Cluster moves on a GPU. A lattice is a block of threads through all moves of a call, in shared
// memory where it fits, else in the call's workspace; there Swendsen-Wang takes a site a thread and
// a launch a phase. No order of threads shows: a cluster is named by its smallest site, and what
// else matters of it is which sites it has and how many.
#pragma once

#include "backend/cuda_fields.cuh"
#include "core/spins.hpp"

namespace pf::PF_BACKEND {

constexpr int kClusterThreads = 256;

// The spins of one lattice: a byte each in shared memory, or the words of the call.
struct SpinBytes {
  uint8_t* first;
  PF_HD bool up(int64_t s) const { return first[s] != 0; }
  PF_HD void set(int64_t s, bool up) const { first[s] = up; }
};
template <class U>
struct SpinWords {
  Spins<U> spins;
  U* first;
  PF_HD bool up(int64_t s) const { return spins.is_up(first[s]); }
  PF_HD void set(int64_t s, bool up) const { first[s] = up ? spins.up : spins.down; }
};

// One lattice and, in two words a site, who belongs to whom.
template <class Spin>
struct Clusters {
  const ClusterLaw& law;
  Spin spin;
  uint32_t *parent, *size;

  PF_HD bool holds(uint64_t step, int64_t s, int j) const {
    const uint64_t d = static_cast<uint64_t>(law.shape.n_dims);
    return word(law.bonds, entry_of(step, s) * d + static_cast<uint64_t>(j)) < law.bond;
  }

  // ---- Swendsen-Wang, in three phases with all threads at one; before the first, `parent` names
  // each site its own, and after the last it does so again.
  PF_HD void join(uint64_t step, int64_t s) const {
    size[s] = 0;
    each_dimension(law.shape, s, [&](int j, int64_t next, int64_t) {
      if (spin.up(s) == spin.up(next) && holds(step, s, j)) {
        unite(static_cast<uint32_t>(s), static_cast<uint32_t>(next));
      }
    });
  }
  PF_HD void settle(int64_t s) const {
    // Nobody shortens a way here, or it would put what lies above s in the place of its root.
    uint32_t r = static_cast<uint32_t>(s), above = read_now(parent + r);
    while (above != r) {
      r = above;
      above = read_now(parent + r);
    }
    write_now(parent + s, r);
    if (law.field != 0.0) atomic_add(size + r, 1);
  }
  PF_HD void redraw(uint64_t step, int64_t s) const {
    const uint32_t r = parent[s];
    spin.set(s, word(law.proposal, entry_of(step, r)) < law.up(size[r]));
    parent[s] = static_cast<uint32_t>(s);
  }

  // ---- Wolff, by all threads of a block. `parent` is zero and marks the members meanwhile, which
  // stand in `size`; n_members is shared.
  PF_HD void turn(uint64_t step, uint32_t* n_members) const {
    const int64_t start = site_of_word(word(law.proposal, 4 * step),
                                       word(law.proposal, 4 * step + 1), law.shape.n_sites);
    const bool before = spin.up(start);
    uint32_t *mark = parent, *members = size;
    if (thread_in_block() == 0) {
      mark[start] = 1;
      members[0] = static_cast<uint32_t>(start);
      *n_members = 1;
    }
    int64_t begin = 0, end = 1;
    while (begin < end) {
      sync_block();
      for (int64_t i = begin + thread_in_block(); i < end; i += block_size()) {
        const int64_t s = members[i];
        const auto reach = [&](int64_t other, int64_t bond, int j) {
          if (spin.up(other) != before || read_now(mark + other) != 0) return;
          if (holds(step, bond, j) && atomic_exchange(mark + other, 1) == 0) {
            members[atomic_add(n_members, 1)] = static_cast<uint32_t>(other);
          }
        };
        each_dimension(law.shape, s, [&](int j, int64_t next, int64_t last) {
          reach(next, s, j);
          reach(last, last, j);
        });
      }
      sync_block();
      begin = end;
      end = *n_members;
    }
    const bool turns = law.field == 0.0 || word(law.accept, step) < law.turn(end, before ? 1 : -1);
    for (int64_t i = thread_in_block(); i < end; i += block_size()) {
      mark[members[i]] = 0;
      if (turns) spin.set(members[i], !before);
    }
    sync_block();
  }

 private:
  PF_HD uint64_t entry_of(uint64_t step, int64_t s) const {
    return step * static_cast<uint64_t>(law.shape.n_sites) + static_cast<uint64_t>(s);
  }
  static PF_HD uint32_t word(const NoiseSource& noise, uint64_t index) {
    return bit_cast<uint32_t>(entry<Words, float>(noise, index));
  }
  // For join alone: shortens the way on it. Whoever overwrites a newer parent by an older one loses
  // nothing: that a site got a parent twice means that both were joined.
  PF_HD uint32_t root(uint32_t s) const {
    uint32_t p = read_now(parent + s);
    while (p != s) {
      const uint32_t above = read_now(parent + p);
      if (above != p) write_now(parent + s, above);
      s = p;
      p = above;
    }
    return s;
  }
  PF_HD void unite(uint32_t a, uint32_t b) const {
    a = root(a);
    b = root(b);
    while (a != b) {
      const uint32_t larger = a > b ? a : b, smaller = a > b ? b : a;
      const uint32_t found = atomic_min(parent + larger, smaller);
      if (found == larger) return;  // it was a root until now
      a = root(found);
      b = root(smaller);
    }
  }
};

// The law of a block's lattice, in shared memory.
constexpr int64_t kLawBytes = 256;
PF_HD const ClusterLaw& share_law(const ClusterMoves& moves, int64_t lattice, void* memory) {
  static_assert(sizeof(ClusterLaw) + sizeof(uint32_t) <= kLawBytes, "the law and a count fit");
  auto* law = static_cast<ClusterLaw*>(memory);
  if (thread_in_block() == 0) *law = moves.law(lattice);
  sync_block();
  return *law;
}

template <class Visit>
PF_HD void each_site_of_block(int64_t sites, const Visit& visit) {
  for (int64_t s = thread_in_block(); s < sites; s += block_size()) visit(s);
}

// Adds the present state of one site to the streaming sums.
template <class U>
PF_HD void add_spin(const SpinSums<U>& sums, const SpinStates& state, int64_t lattice, int64_t s,
                    bool up) {
  const int n_up = up ? 1 : 0;
  sums.add(state, lattice, s, 1, &n_up);
}
// The same of all sites of the block's lattice after step k of the call; its threads have met and
// meet again before a spin changes.
template <class U, class Clusters>
PF_HD void add_spins(const SpinSums<U>& sums, int64_t k, const Clusters& clusters) {
  if (!sums.wanted()) return;
  const SpinStates state = sums.states(k, 1);
  each_site_of_block(clusters.law.shape.n_sites, [&](int64_t s) {
    add_spin(sums, state, block_in_grid(), s, clusters.spin.up(s));
  });
}

// body(clusters, n_members) for the block's lattice; kShared says whether it lives in `memory`, the
// block's own.
template <bool kShared, class U, class Body>
PF_HD void with_clusters(const Spins<U>& s, const ClusterMoves& moves, uint32_t* workspace,
                         char* memory, const Body& body) {
  const int64_t lattice = block_in_grid(), sites = s.shape.n_sites;
  const ClusterLaw& law = share_law(moves, lattice, memory);
  auto* n_members = reinterpret_cast<uint32_t*>(memory + kLawBytes) - 1;
  U* x = s.lattice(lattice);
  if constexpr (kShared) {
    auto* parent = reinterpret_cast<uint32_t*>(memory + kLawBytes);
    const SpinBytes spin{reinterpret_cast<uint8_t*>(parent + 2 * sites)};
    each_site_of_block(sites, [&](int64_t i) { spin.set(i, s.is_up(x[i])); });
    body(Clusters<SpinBytes>{law, spin, parent, parent + sites}, n_members);
    each_site_of_block(sites, [&](int64_t i) { x[i] = spin.up(i) ? s.up : s.down; });
  } else {
    uint32_t* parent = workspace + 2 * sites * lattice;
    body(Clusters<SpinWords<U>>{law, {s, x}, parent, parent + sites}, n_members);
  }
}

template <bool kShared, class U>
PF_KERNEL(kClusterThreads)
wolff_kernel(Spins<U> s, ClusterMoves moves, SpinSums<U> sums, uint32_t* workspace) {
  char* memory = static_cast<char*>(shared_memory());
  with_clusters<kShared>(
      s, moves, workspace, memory, [&](const auto& clusters, uint32_t* n_members) {
        each_site_of_block(s.shape.n_sites, [&](int64_t i) { clusters.parent[i] = 0; });
        sync_block();
        for (int64_t k = 0; k < moves.n_steps; ++k) {
          clusters.turn(moves.first_step + static_cast<uint64_t>(k), n_members);
          add_spins(sums, k, clusters);
        }
      });
}

template <class U>
PF_KERNEL(kClusterThreads)
swendsen_wang_kernel(Spins<U> s, ClusterMoves moves, SpinSums<U> sums) {
  char* memory = static_cast<char*>(shared_memory());
  with_clusters<true>(s, moves, nullptr, memory, [&](const auto& clusters, uint32_t*) {
    const int64_t sites = s.shape.n_sites;
    each_site_of_block(sites, [&](int64_t i) { clusters.parent[i] = static_cast<uint32_t>(i); });
    sync_block();
    for (int64_t k = 0; k < moves.n_steps; ++k) {
      const uint64_t step = moves.first_step + static_cast<uint64_t>(k);
      each_site_of_block(sites, [&](int64_t i) { clusters.join(step, i); });
      sync_block();
      each_site_of_block(sites, [&](int64_t i) { clusters.settle(i); });
      sync_block();
      each_site_of_block(sites, [&](int64_t i) { clusters.redraw(step, i); });
      sync_block();
      add_spins(sums, k, clusters);
    }
  });
}

// One phase for all lattices, a site a thread.
enum class ClusterPhase { kName, kJoin, kSettle, kRedraw };  // the last adds up, too
template <class U>
PF_KERNEL(kClusterThreads)
cluster_phase_kernel(Spins<U> s, ClusterMoves moves, SpinSums<U> sums, uint32_t* workspace,
                     int64_t blocks_a_lattice, int64_t k, ClusterPhase phase) {
  const int64_t lattice = block_in_grid() / blocks_a_lattice, sites = s.shape.n_sites;
  const ClusterLaw& law = share_law(moves, lattice, shared_memory());
  const int64_t i = block_in_grid() % blocks_a_lattice * block_size() + thread_in_block();
  if (i >= sites) return;
  uint32_t* parent = workspace + 2 * sites * lattice;
  const Clusters<SpinWords<U>> clusters{law, {s, s.lattice(lattice)}, parent, parent + sites};
  const uint64_t step = moves.first_step + static_cast<uint64_t>(k);
  switch (phase) {
    case ClusterPhase::kName: parent[i] = static_cast<uint32_t>(i); break;
    case ClusterPhase::kJoin: clusters.join(step, i); break;
    case ClusterPhase::kSettle: clusters.settle(i); break;
    case ClusterPhase::kRedraw:
      clusters.redraw(step, i);
      if (sums.wanted()) add_spin(sums, sums.states(k, 1), lattice, i, clusters.spin.up(i));
      break;
  }
}

static int64_t shared_cluster_bytes(const LatticeShape& shape) {
  return kLawBytes + 9 * shape.n_sites;
}
// Bytes that a call works in, or 0 where each lattice fits into shared memory.
static int64_t cluster_workspace(const LatticeShape& shape, int64_t n_lattices,
                                 const Place& place) {
  if (shared_cluster_bytes(shape) <= shared_memory_limit(place)) return 0;
  return 8 * shape.n_sites * n_lattices;
}

// Every cluster's spin anew (Swendsen-Wang).
template <class U>
static void redraw_clusters(const Spins<U>& s, const ClusterMoves& moves, const SpinSums<U>& sums,
                            void* workspace, const Place& place) {
  if (workspace == nullptr) {
    launch(place, s.n_lattices, kClusterThreads, shared_cluster_bytes(s.shape),
           swendsen_wang_kernel<U>, s, moves, sums);
    return;
  }
  const int64_t blocks = (s.shape.n_sites + kClusterThreads - 1) / kClusterThreads;
  const auto each_site = [&](int64_t k, ClusterPhase phase) {
    launch(place, s.n_lattices * blocks, kClusterThreads, kLawBytes, cluster_phase_kernel<U>, s,
           moves, sums, static_cast<uint32_t*>(workspace), blocks, k, phase);
  };
  each_site(0, ClusterPhase::kName);
  for (int64_t k = 0; k < moves.n_steps; ++k) {
    each_site(k, ClusterPhase::kJoin);
    each_site(k, ClusterPhase::kSettle);
    each_site(k, ClusterPhase::kRedraw);
  }
}

// One cluster turned over (Wolff).
template <class U>
static void turn_clusters(const Spins<U>& s, const ClusterMoves& moves, const SpinSums<U>& sums,
                          void* workspace, const Place& place) {
  const bool shared = workspace == nullptr;
  launch(place, s.n_lattices, kClusterThreads, shared ? shared_cluster_bytes(s.shape) : kLawBytes,
         shared ? wolff_kernel<true, U> : wolff_kernel<false, U>, s, moves, sums,
         static_cast<uint32_t*>(workspace));
}

}  // namespace pf::PF_BACKEND
