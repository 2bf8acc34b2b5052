// SPDX-License-Identifier: Apache-2.0
// The walk of a CPU over lattices of spins, one lattice a chain: bits at the entry of the call,
// all sweeps on bits, spins again at its exit.
#pragma once

#include "backend/cpu_spin_groups.hpp"
#include "backend/cpu_spin_strings.hpp"
#include "core/spins.hpp"

namespace pf::PF_BACKEND {

template <class Model>
static int64_t spin_workspace(const LatticeShape&, int64_t, const Model&, bool, const Place&) {
  return 0;
}

// n_steps sweeps of every lattice. Threads take lattices, or, where there are fewer than threads
// and each is large, slabs of one lattice after another; no bit depends on it.
template <class Model, class U>
static void sweep_spins(const Spins<U>& s, const Model& model, const NoiseSource& noise,
                        int64_t n_steps, const SpinSums<U>& sums, void*, const Place& place) {
  const int64_t sites = s.shape.n_sites;
  const double nanoseconds =
      0.6 * static_cast<double>(sites) * static_cast<double>(n_steps) + static_cast<double>(sites);
  const int n_masks = model.n_masks();
  const bool adds_up = sums.wanted();
  // Whether counts go to the sums after step k, of which n were counted.
  const auto are_due = [&](int64_t k, int n) {
    return n == BitCounts::kMost || k + 1 == n_steps || sums.closes(k);
  };
  if (!SpinStrings<Model>::fits(s.shape)) {
    const int64_t bytes = SpinGroup<Model>(s.shape, n_masks, nullptr).bytes(adds_up);
    const int64_t n_groups = (s.n_lattices + kGroup - 1) / kGroup;
    const double all = nanoseconds * kGroup * static_cast<double>(n_groups);
    for_each_block(n_groups, 1, place, all, bytes, [&](int64_t g, int64_t, void* memory) {
      const int64_t first = g * kGroup, left = s.n_lattices - first;
      const int count = left < kGroup ? static_cast<int>(left) : kGroup;
      SpinGroup<Model> group(s.shape, n_masks, memory);
      const auto parameters = model.group(first, count);
      group.load(s.lattice(first), count);
      if (adds_up) group.begin_counts();
      for (int64_t k = 0; k < n_steps; ++k) {
        group.sweep(model, parameters, noise, noise.chain_offset + static_cast<uint64_t>(first),
                    count, static_cast<uint64_t>(k));
        if (!adds_up) continue;
        group.count();
        if (!are_due(k, group.n_counted())) continue;
        if (sums.closes(k)) {
          group.template add_counts<true>(sums, first, count);
        } else {
          group.template add_counts<false>(sums, first, count);
        }
      }
      group.store(s.up, s.down, s.lattice(first), count);
    });
    return;
  }
  const bool large = 0.6 * static_cast<double>(sites) > 60e3;
  const bool share_a_lattice = large && s.n_lattices % place.n_threads != 0 &&
                               s.n_lattices < 4 * static_cast<int64_t>(place.n_threads);
  const Place alone{1, place.device, place.stream};
  const Place& inside = share_a_lattice ? place : alone;
  const int64_t bytes = SpinStrings<Model>(s.shape, n_masks, nullptr).bytes(adds_up);
  const int64_t block = share_a_lattice ? s.n_lattices : 1;
  for_each_block(s.n_lattices, block, share_a_lattice ? alone : place,
                 nanoseconds * static_cast<double>(s.n_lattices), bytes,
                 [&](int64_t begin, int64_t end, void* memory) {
                   SpinStrings<Model> strings(s.shape, n_masks, memory);
                   strings.mark();
                   for (int64_t i = begin; i < end; ++i) {
                     const auto lattice = model.lattice(i);
                     strings.load(s.lattice(i));
                     if (adds_up) strings.begin_counts();
                     for (int64_t k = 0; k < n_steps; ++k) {
                       strings.sweep(model, lattice, noise,
                                     noise.chain_offset + static_cast<uint64_t>(i),
                                     static_cast<uint64_t>(k), inside);
                       if (!adds_up) continue;
                       strings.count(inside);
                       if (!are_due(k, strings.n_counted())) continue;
                       if (sums.closes(k)) {
                         strings.template add_counts<true>(sums, i, inside);
                       } else {
                         strings.template add_counts<false>(sums, i, inside);
                       }
                     }
                     strings.store(s.up, s.down, s.lattice(i));
                   }
                 });
}

}  // namespace pf::PF_BACKEND
