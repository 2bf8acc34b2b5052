// SPDX-License-Identifier: Apache-2.0
// The walk of a GPU over lattices of spins: a lattice a block of threads, in shared memory, through
// all sweeps of a call; where it does not fit, in place with one launch for each colour, which
// draws each block of noise twice.
#pragma once

#include "backend/cuda.cuh"
#include "core/spins.hpp"

namespace pf::PF_BACKEND {

constexpr int kSpinThreads = 256;

// Where sites lie: coordinates from the last on.
template <int kDims>
struct SpinSite {
  int64_t s, x, y, z;
  PF_HD SpinSite(const LatticeShape& shape, int64_t site) : s(site), z(0) {
    x = site % shape.size[kDims - 1];
    site /= shape.size[kDims - 1];
    y = site % shape.size[kDims - 2];
    if constexpr (kDims == 3) z = site / shape.size[1];
  }
  PF_HD int colour() const { return static_cast<int>((x + y + z) % 2); }
};

// How many neighbours of a site are up, where up(i) says so of site i.
template <int kDims, class Up>
PF_HD int neighbours_up(const LatticeShape& shape, const SpinSite<kDims>& at, const Up& up) {
  const int64_t row = shape.size[kDims - 1], layer = row * shape.size[kDims - 2];
  int n = up(at.x > 0 ? at.s - 1 : at.s + row - 1);
  n += up(at.x + 1 < row ? at.s + 1 : at.s + 1 - row);
  n += up(at.y > 0 ? at.s - row : at.s + layer - row);
  n += up(at.y + 1 < shape.size[kDims - 2] ? at.s + row : at.s + row - layer);
  if constexpr (kDims == 3) {
    const int64_t all = layer * shape.size[0];
    n += up(at.z > 0 ? at.s - layer : at.s + all - layer);
    n += up(at.z + 1 < shape.size[0] ? at.s + layer : at.s + layer - all);
  }
  return n;
}

// The classes of the block's lattice, in shared memory.
template <class Model>
PF_HD void share_classes(const Model& model, int64_t lattice, typename Model::Class* classes) {
  const int64_t me = thread_in_block();
  if (me < Model::kClasses) classes[me] = model.class_of(lattice, static_cast<int>(me));
  sync_block();
}

template <class Model>
PF_HD Block<uint32_t> words_of(const NoiseSource& noise, int64_t lattice, uint64_t block) {
  const ChainCounter<uint32_t> chain(noise.chain_offset + static_cast<uint64_t>(lattice), 0u,
                                     noise.purpose);
  return philox4x32_10<uint32_t>(static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                                 chain.c2, chain.c3, PhiloxKey(noise.seed));
}

// Shared memory: the classes, a byte a spin, a byte of comparisons, one bit a class, and where sums
// are wanted a byte that counts states in which the spin was up.
constexpr int64_t kClassBytes = 128;

template <class Model, class U>
PF_KERNEL(kSpinThreads)
spins_kernel(Spins<U> s, Model model, NoiseSource noise, int64_t n_steps, SpinSums<U> sums) {
  static_assert(sizeof(typename Model::Class) * Model::kClasses <= kClassBytes, "classes fit");
  char* memory = static_cast<char*>(shared_memory());
  auto* classes = reinterpret_cast<typename Model::Class*>(memory);
  const int64_t lattice = block_in_grid(), sites = s.shape.n_sites;
  auto* spins = reinterpret_cast<uint8_t*>(memory + kClassBytes);
  uint8_t *accepted = spins + sites, *n_up = accepted + sites;
  int n_counted = 0;
  U* x = s.lattice(lattice);
  for (int64_t i = thread_in_block(); i < sites; i += block_size()) {
    spins[i] = s.is_up(x[i]);
    if (sums.wanted()) n_up[i] = 0;
  }
  share_classes(model, lattice, classes);
  for (int64_t k = 0; k < n_steps; ++k) {
    const uint64_t first = noise.start / 4 + static_cast<uint64_t>(k * (sites / 4));
    for (int64_t b = thread_in_block(); b < sites / 4; b += block_size()) {
      const Block<uint32_t> words =
          words_of<Model>(noise, lattice, first + static_cast<uint64_t>(b));
      PF_UNROLL
      for (int w = 0; w < 4; ++w) {
        unsigned bits = 0;
        PF_UNROLL
        for (int c = 0; c < Model::kClasses; ++c) {
          bits |= static_cast<unsigned>(model.accepts(classes[c], words.w[w])) << c;
        }
        accepted[4 * b + w] = static_cast<uint8_t>(bits);
      }
    }
    for (int colour = 0; colour < 2; ++colour) {
      sync_block();
      for (int64_t i = thread_in_block(); i < sites; i += block_size()) {
        const SpinSite<Model::kDims> at(s.shape, i);
        if (at.colour() != colour) continue;
        const int up = neighbours_up(s.shape, at, [&](int64_t j) { return int{spins[j]}; });
        spins[i] = model.next(classes[up], spins[i] != 0, (accepted[i] >> up & 1) != 0);
      }
    }
    if (sums.wanted()) {  // a thread counts its own sites
      const bool closes = sums.closes(k), due = ++n_counted == 255 || k + 1 == n_steps || closes;
      for (int64_t i = thread_in_block(); i < sites; i += block_size()) {
        n_up[i] = static_cast<uint8_t>(n_up[i] + spins[i]);
        if (!due) continue;
        if (closes) {
          sums.template add<true>(lattice, i, n_counted, n_up[i]);
        } else {
          sums.template add<false>(lattice, i, n_counted, n_up[i]);
        }
        n_up[i] = 0;
      }
      if (due) n_counted = 0;
    }
    sync_block();
  }
  for (int64_t i = thread_in_block(); i < sites; i += block_size()) {
    x[i] = spins[i] != 0 ? s.up : s.down;
  }
}

// One colour of sweep k, in place; a thread takes a block of noise.
template <class Model, class U>
PF_KERNEL(kSpinThreads)
colour_kernel(Spins<U> s, Model model, NoiseSource noise, int64_t k, int64_t blocks_a_lattice,
              int colour, SpinSums<U> sums) {
  auto* classes = static_cast<typename Model::Class*>(shared_memory());
  const int64_t lattice = block_in_grid() / blocks_a_lattice, sites = s.shape.n_sites;
  share_classes(model, lattice, classes);
  const int64_t b = block_in_grid() % blocks_a_lattice * block_size() + thread_in_block();
  if (b >= sites / 4) return;
  U* x = s.lattice(lattice);
  const uint64_t first = noise.start / 4 + static_cast<uint64_t>(k * (sites / 4));
  const Block<uint32_t> words = words_of<Model>(noise, lattice, first + static_cast<uint64_t>(b));
  PF_UNROLL
  for (int w = 0; w < 4; ++w) {
    const SpinSite<Model::kDims> at(s.shape, 4 * b + w);
    if (at.colour() != colour) continue;
    const int up = neighbours_up(s.shape, at, [&](int64_t j) { return int{s.is_up(x[j])}; });
    const bool accepts = model.accepts(classes[up], words.w[w]);
    const bool next = model.next(classes[up], s.is_up(x[at.s]), accepts);
    x[at.s] = next ? s.up : s.down;
    if (!sums.wanted()) continue;
    if (sums.closes(k)) {
      sums.template add<true>(lattice, at.s, 1, next);
    } else {
      sums.template add<false>(lattice, at.s, 1, next);
    }
  }
}

template <class Model, class U>
static void sweep_spins(const Spins<U>& s, const Model& model, const NoiseSource& noise,
                        int64_t n_steps, const SpinSums<U>& sums, const Place& place) {
  const int64_t sites = s.shape.n_sites, arrays = sums.wanted() ? 3 : 2;
  const int64_t bytes = kClassBytes + arrays * sites;
  if (bytes <= shared_memory_limit(place)) {
    launch(place, s.n_lattices, kSpinThreads, bytes, spins_kernel<Model, U>, s, model, noise,
           n_steps, sums);
    return;
  }
  const int64_t blocks = (sites / 4 + kSpinThreads - 1) / kSpinThreads;
  for (int64_t k = 0; k < n_steps; ++k) {
    for (int colour = 0; colour < 2; ++colour) {
      launch(place, s.n_lattices * blocks, kSpinThreads, kClassBytes, colour_kernel<Model, U>, s,
             model, noise, k, blocks, colour, sums);
    }
  }
}

}  // namespace pf::PF_BACKEND
