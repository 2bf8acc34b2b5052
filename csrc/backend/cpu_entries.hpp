// SPDX-License-Identifier: Apache-2.0
// The noise of a lattice on a CPU: the entries of one chain's sequence, in order or one by one.
#pragma once

#include "backend/cpu_elements.hpp"

namespace pf::PF_BACKEND {

// n_blocks blocks of one chain's sequence from its entry `first` on, which begins a block. `out`
// has room for kLanes blocks more.
template <class Law, class T>
static PF_NOINLINE void fill_entries(const NoiseSource& noise, uint64_t first, int64_t n_blocks,
                                     T* out) {
  constexpr int kPerBlock = Draw<T>::kPerBlock;
  const PhiloxKey key(noise.seed);
  const Pack<uint32_t> lane = PairCounter<T>::lane_order();
  const ChainCounter<Pack<uint32_t>> chain(noise.chain_offset, Pack<uint32_t>(0u), noise.purpose);
  const uint64_t block = first / kPerBlock;
  for (int64_t p = 0; p < n_blocks; p += kLanes, out += kLanes * kPerBlock) {
    const uint64_t counter = block + static_cast<uint64_t>(p);
    const uint32_t low = static_cast<uint32_t>(counter);
    const Pack<uint32_t> c0 = lane + low;
    Pack<uint32_t> c1(static_cast<uint32_t>(counter >> 32));
    if (low > UINT32_MAX - kLanes) {  // a carry shows as a sum below its addend
      c1 = c1 + select(c0 < low, Pack<uint32_t>(1u), Pack<uint32_t>(0u));
    }
    Pack<T> z[kPerBlock];
    Law::template values<T>(philox4x32_10(c0, c1, chain.c2, chain.c3, key), 0, kPerBlock, z);
    store_in_order(out, z);
  }
}

// The entries of one sequence of one chain, in order: a stretch of them at a time.
template <class Law, class T>
class Entries {
  static constexpr int kPerBlock = Draw<T>::kPerBlock;
  static constexpr int64_t kBlocks = 512;

 public:
  static constexpr int64_t kMost = kBlocks * kPerBlock / 2;  // entries that at() gives at once

  // Nothing past `end` is made.
  Entries(const NoiseSource& noise, uint64_t end) : noise_(noise), end_(end) {}
  // The same for somebody who works beside, up to an end of its own.
  Entries until(uint64_t end) const { return Entries(noise_, end); }
  const T* at(uint64_t begin, int64_t n) {
    if (begin < first_ || begin + static_cast<uint64_t>(n) > first_ + made_) refill(begin, n);
    return values_ + (begin - first_);
  }

 private:
  PF_HD void refill(uint64_t begin, int64_t n) {
    first_ = begin / kPerBlock * kPerBlock;
    const uint64_t wanted = begin + static_cast<uint64_t>(n);
    const uint64_t stop = end_ > wanted ? end_ : wanted;
    uint64_t blocks = (stop - first_ + kPerBlock - 1) / kPerBlock;
    if (blocks > kBlocks) blocks = kBlocks;
    made_ = blocks * kPerBlock;
    fill_entries<Law>(noise_, first_, static_cast<int64_t>(blocks), values_);
  }
  NoiseSource noise_;
  uint64_t end_, first_ = 0, made_ = 0;
  alignas(64) T values_[(kBlocks + kLanes) * kPerBlock];
};

// One number of it.
template <class Law, class T>
PF_HD T entry(const NoiseSource& noise, uint64_t index) {
  constexpr int kPerBlock = Draw<T>::kPerBlock;
  const uint64_t block = index / kPerBlock;
  const ChainCounter<uint32_t> chain(noise.chain_offset, 0u, noise.purpose);
  T values[kPerBlock];
  Law::template values<T>(
      philox4x32_10<uint32_t>(static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                              chain.c2, chain.c3, PhiloxKey(noise.seed)),
      0, kPerBlock, values);
  return values[index % kPerBlock];
}

// Nothing to read.
template <class T>
struct NoEntries {
  static constexpr int64_t kMost = int64_t{1} << 40;
  NoEntries until(uint64_t) const { return {}; }
  const T* at(uint64_t, int64_t) { return nullptr; }
};

}  // namespace pf::PF_BACKEND
