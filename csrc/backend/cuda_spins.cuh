// SPDX-License-Identifier: Apache-2.0
// The walk of a GPU over lattices of spins. A lattice is a block of threads through all sweeps of a
// call, in shared memory; where it does not fit, or is one of few large ones, it lies in the call's
// workspace, with two launches a sweep.
#pragma once

#include "backend/cuda_spin_bits.cuh"

namespace pf::PF_BACKEND {

// So few that each has the registers for the noise of a word.
constexpr int kSpinThreads = 384;
// From so many words on (256^2 sites) a lattice lies in the workspace, though it would fit, where
// there are too few lattices for all of the GPU.
constexpr int64_t kLargeSpinWords = 2048;

// Bytes that a call works in, or 0 where each lattice is a block's in shared memory.
template <class Model>
static int64_t spin_workspace(const LatticeShape& shape, int64_t n_lattices, const Model& model,
                              bool sums, const Place& place) {
  using Bits = SpinBits<Model>;
  const bool few =
      Bits::Rows::words(shape) >= kLargeSpinWords && n_lattices < n_multiprocessors(place);
  const int64_t bytes = Bits::bytes(shape, model.n_masks(), sums);
  if (bytes <= shared_memory_limit(place) && !few) return 0;
  Bits::must_be_counted(shape, model.n_masks(), sums);
  return n_lattices * bytes;
}

// The noise of all sweeps of a call.
struct SweepNoise {
  PhiloxKey key;
  uint64_t chain_offset, start, per_step;
  uint32_t purpose;
  explicit SweepNoise(const NoiseSource& n)
      : key(n.seed),
        chain_offset(n.chain_offset),
        start(n.start),
        per_step(static_cast<uint64_t>(n.per_step)),
        purpose(n.purpose) {}
  PF_HD ChainCounter<uint32_t> chain(int64_t lattice) const {
    return {chain_offset + static_cast<uint64_t>(lattice), 0u, purpose};
  }
  PF_HD uint64_t entry(int64_t k) const { return start + static_cast<uint64_t>(k) * per_step; }
};

// Whether counts go to the sums after sweep k.
template <class Model, class U>
PF_HD bool are_due(const SpinSums<U>& sums, int64_t k, int n_counted) {
  return n_counted == SpinBits<Model>::kMostCounted || sums.are_due(k);
}

// ---- a lattice a block, in shared memory

template <class Model, class U>
PF_KERNEL(kSpinThreads)
spins_kernel(Spins<U> s, Model model, SweepNoise noise, int64_t n_steps, TurnedShares shares,
             SpinSums<U> sums) {
  const SpinBits<Model> bits(s.shape, model.n_masks(), shared_memory());
  const auto mine = bits.of_thread(0, bits.words()), of_warp = bits.of_warp(0, bits.words());
  const int64_t lattice = block_in_grid();
  const ChainCounter<uint32_t> chain = noise.chain(lattice);
  U* x = s.lattice(lattice);
  int n_counted = 0;
  bits.make_law(model, lattice);
  bits.pack(s, x, of_warp);
  sync_block();
  for (int64_t k = 0; k < n_steps; ++k) {
    bits.first_half(model, noise.key, chain, noise.entry(k), mine);
    sync_block();
    if (sums.wanted()) ++n_counted;
    const uint32_t turned = bits.second_half(model, n_counted, mine);
    if (shares.wanted() && bits.lane() == 0) bits.add_turned(turned);
    sync_block();
    bits.settle_turned(shares, lattice);
    if (!sums.wanted() || !are_due<Model>(sums, k, n_counted)) continue;
    bits.add_counts(sums, sums.states(k, n_counted), lattice, of_warp);
    n_counted = 0;
  }
  bits.unpack(s, x, of_warp);
}

// ---- blocks that share a lattice, in the workspace

struct SpinSpace {
  char* memory;
  int64_t bytes_a_lattice, blocks_a_lattice;
  uint32_t words_a_block;
};
// body(lattice, bits, begin, end) for the block's words.
template <class Model, class Body>
PF_HD void with_words(const SpinSpace& space, const LatticeShape& shape, const Model& model,
                      const Body& body) {
  const int64_t lattice = block_in_grid() / space.blocks_a_lattice;
  const SpinBits<Model> bits(shape, model.n_masks(),
                             space.memory + lattice * space.bytes_a_lattice);
  const int64_t block = block_in_grid() - lattice * space.blocks_a_lattice;
  const uint32_t begin = static_cast<uint32_t>(block) * space.words_a_block;
  const uint32_t end = begin + space.words_a_block;
  body(lattice, bits, begin, end < bits.words() ? end : bits.words());
}

template <class Model, class U>
PF_KERNEL(kSpinThreads)
pack_kernel(SpinSpace space, Spins<U> s, Model model) {
  with_words(space, s.shape, model,
             [&](int64_t lattice, const auto& bits, uint32_t begin, uint32_t end) {
               if (begin == 0) bits.make_law(model, lattice);
               bits.pack(s, s.lattice(lattice), bits.of_warp(begin, end));
             });
}
template <class Model>
PF_KERNEL(kSpinThreads)
first_half_kernel(SpinSpace space, LatticeShape shape, Model model, TurnedShares shares,
                  SweepNoise noise, int64_t k) {
  with_words(space, shape, model,
             [&](int64_t lattice, const auto& bits, uint32_t begin, uint32_t end) {
               if (begin == 0 && k > 0) bits.settle_turned(shares, lattice);  // of the sweep before
               bits.first_half(model, noise.key, noise.chain(lattice), noise.entry(k),
                               bits.of_thread(begin, end));
             });
}
// Its shared memory is for one number: blocks add theirs to their lattice's one by one.
template <class Model>
PF_KERNEL(kSpinThreads)
second_half_kernel(SpinSpace space, LatticeShape shape, Model model, bool counts_turned,
                   int n_counted) {
  with_words(space, shape, model, [&](int64_t, const auto& bits, uint32_t begin, uint32_t end) {
    uint32_t* of_block = static_cast<uint32_t*>(shared_memory());
    if (thread_in_block() == 0) *of_block = 0;
    sync_block();
    const uint32_t turned = bits.second_half(model, n_counted, bits.of_thread(begin, end));
    if (!counts_turned) return;
    if (bits.lane() == 0) atomic_add(of_block, turned);
    sync_block();
    if (thread_in_block() == 0) bits.add_turned(*of_block);
  });
}
template <class Model, class U>
PF_KERNEL(kSpinThreads)
counts_kernel(SpinSpace space, LatticeShape shape, Model model, SpinSums<U> sums,
              SpinStates states) {
  with_words(space, shape, model,
             [&](int64_t lattice, const auto& bits, uint32_t begin, uint32_t end) {
               bits.add_counts(sums, states, lattice, bits.of_warp(begin, end));
             });
}
template <class Model, class U>
PF_KERNEL(kSpinThreads)
unpack_kernel(SpinSpace space, Spins<U> s, TurnedShares shares, Model model) {
  with_words(space, s.shape, model,
             [&](int64_t lattice, const auto& bits, uint32_t begin, uint32_t end) {
               if (begin == 0) bits.settle_turned(shares, lattice);
               bits.unpack(s, s.lattice(lattice), bits.of_warp(begin, end));
             });
}

template <class Model, class U>
static void sweep_spins(const Spins<U>& s, const Model& model, const NoiseSource& source,
                        int64_t n_steps, const SpinSums<U>& sums, const TurnedShares& shares,
                        void* workspace, const Place& place) {
  const SweepNoise noise(source);
  const int64_t words = BitRows<Model::kDims>::words(s.shape);
  const int64_t bytes = SpinBits<Model>::bytes(s.shape, model.n_masks(), sums.wanted());
  if (workspace == nullptr) {
    const int64_t turns = (words + kSpinThreads - 1) / kSpinThreads;
    const int threads = static_cast<int>((words + turns * kWarp - 1) / (turns * kWarp)) * kWarp;
    launch(place, s.n_lattices, threads, bytes, spins_kernel<Model, U>, s, model, noise, n_steps,
           shares, sums);
    return;
  }
  // Where there are words enough for all of a GPU, a thread takes some.
  const int words_a_block =
      s.n_lattices * words < int64_t{1} << 20 ? kSpinThreads : 4 * kSpinThreads;
  const int64_t blocks = (words + words_a_block - 1) / words_a_block;
  const SpinSpace space{static_cast<char*>(workspace), bytes, blocks,
                        static_cast<uint32_t>(words_a_block)};
  constexpr int64_t kSharedBytes = 16;  // of which one kernel uses some
  const auto run = [&](auto* kernel, const auto&... args) {
    launch(place, s.n_lattices * blocks, kSpinThreads, kSharedBytes, kernel, space, args...);
  };
  run(pack_kernel<Model, U>, s, model);
  int n_counted = 0;
  for (int64_t k = 0; k < n_steps; ++k) {
    run(first_half_kernel<Model>, s.shape, model, shares, noise, k);
    if (sums.wanted()) ++n_counted;
    run(second_half_kernel<Model>, s.shape, model, shares.wanted(), n_counted);
    if (!sums.wanted() || !are_due<Model>(sums, k, n_counted)) continue;
    run(counts_kernel<Model, U>, s.shape, model, sums, sums.states(k, n_counted));
    n_counted = 0;
  }
  run(unpack_kernel<Model, U>, s, shares, model);
}

}  // namespace pf::PF_BACKEND
