// SPDX-License-Identifier: Apache-2.0
// Entries of one chain's sequence of noise on a GPU, where many threads work on the chain: any one
// of them, or those of the sites that a warp comes to next.
#pragma once

#include "backend/cuda.cuh"

namespace pf::PF_BACKEND {

// What a pass reads at every site: entries of a sequence of one chain, or nothing.
template <class Law, class T>
struct Entries {
  NoiseSource noise;
  PF_HD Entries(const NoiseSource& n, uint64_t) : noise(n) {}
};
template <class T>
struct NoEntries {};

// One block of a sequence, or one number of it.
template <class Law, class T>
PF_HD void entry_block(const NoiseSource& noise, uint64_t block, T* values) {
  const ChainCounter<uint32_t> chain(noise.chain_offset, 0u, noise.purpose);
  Law::template values<T>(
      philox4x32_10<uint32_t>(static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                              chain.c2, chain.c3, PhiloxKey(noise.seed)),
      0, Draw<T>::kPerBlock, values);
}
template <class Law, class T>
PF_HD T entry(const NoiseSource& noise, uint64_t index) {
  constexpr int kPerBlock = Draw<T>::kPerBlock;
  T values[kPerBlock];
  entry_block<Law>(noise, index / kPerBlock, values);
  T value = values[0];
  PF_UNROLL
  for (int j = 1; j < kPerBlock; ++j) value = index % kPerBlock == j ? values[j] : value;
  return value;
}

// The entries of the sites that a warp comes to next: a block of them a lane, in the warp's own
// part of shared memory.
template <class Source, class T>
class NoiseAhead;
template <class T>
class NoiseAhead<NoEntries<T>, T> {
 public:
  PF_HD NoiseAhead(const NoEntries<T>&, uint64_t, T*) {}
  PF_HD void reach(int, int) {}
  PF_HD const T* at(int) const { return nullptr; }
};
template <class Law, class T>
class NoiseAhead<Entries<Law, T>, T> {
  static constexpr int kPerBlock = Draw<T>::kPerBlock;
  struct alignas(16) Values {  // written as one
    T value[kPerBlock];
  };

 public:
  // Site i reads entry first + i.
  PF_HD NoiseAhead(const Entries<Law, T>& source, uint64_t first, T* memory)
      : source_(source), first_(first), memory_(memory) {}
  // For all lanes: sites begin ... end - 1, no more than there are lanes, can be read.
  PF_HD void reach(int begin, int end) {
    if (end <= end_) return;
    const uint64_t entry = first_ + static_cast<uint64_t>(begin);
    const int lane = WarpDim<false>::lane();
    begin_ = begin - static_cast<int>(entry % kPerBlock);
    end_ = begin_ + kReductionWidth * kPerBlock;
    Values drawn;
    entry_block<Law>(source_.noise, entry / kPerBlock + static_cast<uint64_t>(lane), drawn.value);
    sync_warp();  // what was there has been read
    reinterpret_cast<Values*>(memory_)[lane] = drawn;
    sync_warp();
  }
  PF_HD const T* at(int site) const { return memory_ + (site - begin_); }

 private:
  const Entries<Law, T>& source_;
  uint64_t first_;
  T* memory_;
  int begin_ = 0, end_ = 0;
};

}  // namespace pf::PF_BACKEND
