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

// Whether what was counted goes to the sums after step k.
template <class Counts, class U>
PF_HD bool are_due(const Counts& counts, const SpinSums<U>& sums, int64_t k) {
  return counts.n_counted() == BitCounts::kMost || sums.are_due(k);
}

// What the sweeps of a lattice cost, about.
PF_HD double sweep_nanoseconds(const LatticeShape& shape, int64_t n_steps) {
  return 0.6 * static_cast<double>(shape.n_sites) * static_cast<double>(n_steps + 2);
}

template <class Model, class U>
static void sweep_groups(const Spins<U>& s, const Model& model, const NoiseSource& noise,
                         int64_t n_steps, const SpinSums<U>& sums, const TurnedShares& shares,
                         const Place& place) {
  const bool adds_up = sums.wanted();
  const int n_masks = model.n_masks();
  const int64_t bytes = SpinGroup<Model>(s.shape, n_masks, nullptr).bytes(adds_up);
  const int64_t n_groups = (s.n_lattices + kGroup - 1) / kGroup;
  const double all = sweep_nanoseconds(s.shape, n_steps) * kGroup * static_cast<double>(n_groups);
  for_each_block(n_groups, 1, place, all, bytes, [&](int64_t g, int64_t, void* memory) {
    const int64_t first = g * kGroup, left = s.n_lattices - first;
    const int count = left < kGroup ? static_cast<int>(left) : kGroup;
    SpinGroup<Model> group(s.shape, n_masks, memory);
    const auto parameters = model.group(first, count);
    group.load(s.lattice(first), count);
    for (int64_t k = 0; k < n_steps; ++k) {
      uint8_t turned[64];
      group.sweep(model, parameters, noise, noise.chain_offset + static_cast<uint64_t>(first),
                  count, static_cast<uint64_t>(k), turned);
      for (int l = 0; shares.wanted() && l < count; ++l) shares.add(first + l, turned[l]);
      if (!adds_up) continue;
      group.count();
      if (are_due(group, sums, k)) group.add_counts(sums, k, first, count);
    }
    group.store(s.up, s.down, s.lattice(first), count);
  });
}

// Threads take lattices, or, where there are few and each is large, slabs of one after another.
template <bool kOddPairs, class Model, class U>
static void sweep_strings(const Spins<U>& s, const Model& model, const NoiseSource& noise,
                          int64_t n_steps, const SpinSums<U>& sums, const TurnedShares& shares,
                          const Place& place) {
  using Strings = SpinStrings<Model, kOddPairs>;
  const bool adds_up = sums.wanted();
  const int n_masks = model.n_masks();
  const bool large = sweep_nanoseconds(s.shape, 1) > 180e3;
  const bool share_a_lattice = large && s.n_lattices % place.n_threads != 0 &&
                               s.n_lattices < 4 * static_cast<int64_t>(place.n_threads);
  const Place alone{1, place.device, place.stream};
  const Place& inside = share_a_lattice ? place : alone;
  const int64_t bytes = Strings(s.shape, n_masks, nullptr).bytes(adds_up);
  const int64_t block = share_a_lattice ? s.n_lattices : 1;
  const double all = sweep_nanoseconds(s.shape, n_steps) * static_cast<double>(s.n_lattices);
  for_each_block(s.n_lattices, block, share_a_lattice ? alone : place, all, bytes,
                 [&](int64_t begin, int64_t end, void* memory) {
                   Strings strings(s.shape, n_masks, memory);
                   strings.mark();
                   for (int64_t i = begin; i < end; ++i) {
                     const auto lattice = model.lattice(i);
                     strings.load(s.lattice(i));
                     for (int64_t k = 0; k < n_steps; ++k) {
                       const int64_t turned = strings.sweep(
                           model, lattice, noise, noise.chain_offset + static_cast<uint64_t>(i),
                           static_cast<uint64_t>(k), adds_up, inside);
                       if (shares.wanted()) shares.add(i, turned);
                       if (adds_up && are_due(strings, sums, k)) {
                         strings.add_counts(sums, k, i, inside);
                       }
                     }
                     strings.store(s.up, s.down, s.lattice(i));
                   }
                 });
}

// n_steps sweeps of every lattice; no bit depends on the way.
template <class Model, class U>
static void sweep_spins(const Spins<U>& s, const Model& model, const NoiseSource& noise,
                        int64_t n_steps, const SpinSums<U>& sums, const TurnedShares& shares, void*,
                        const Place& place) {
  if (s.shape.n_sites < 256) {  // strings of bits must fill a word
    sweep_groups(s, model, noise, n_steps, sums, shares, place);
  } else if (s.shape.size[s.shape.n_dims - 1] % 4 != 0) {
    sweep_strings<true>(s, model, noise, n_steps, sums, shares, place);
  } else {
    sweep_strings<false>(s, model, noise, n_steps, sums, shares, place);
  }
}

}  // namespace pf::PF_BACKEND
