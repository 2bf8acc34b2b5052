// SPDX-License-Identifier: Apache-2.0
// The walk of a CPU over elements and the noise that belongs to them.
#pragma once

#include "backend/cpu.hpp"
#include "core/half.hpp"

namespace pf::PF_BACKEND {

// Up to kLanes numbers of a two-byte type.
template <class T, class S>
PF_HD Pack<T> load_wider(const S* p, int count) {
  T lanes[kLanes] = {};
  for (int l = 0; l < count; ++l) lanes[l] = widened(p[l]);
  return Pack<T>::load(lanes);
}
template <class S, class T>
PF_HD void store_narrower(S* p, const Pack<T>& x, int count) {
  T lanes[kLanes];
  x.store(lanes);
  for (int l = 0; l < count; ++l) p[l] = Narrow<S>::from(lanes[l]);
}

// kLanes consecutive elements of flat arrays, or, at the end of a run, `count` of them.
template <class T>
struct FullElements {
  int64_t first;
  PF_HD Pack<T> load(const T* p) const { return Pack<T>::load(p + first); }
  PF_HD void store(T* p, Pack<T> x) const { x.store(p + first); }
  PF_HD void stream(T* p, Pack<T> x) const { x.stream(p + first); }
  template <class S>
  PF_HD Pack<T> load(const S* p) const {
    return load_wider<T>(p + first, kLanes);
  }
  template <class S>
  PF_HD void store(S* p, Pack<T> x) const {
    store_narrower(p + first, x, kLanes);
  }
  template <class S>
  PF_HD void stream(S* p, Pack<T> x) const {
    store(p, x);
  }
};
template <class T>
struct PartialElements {
  int64_t first;
  int count;
  PF_HD Pack<T> load(const T* p) const {
    T lanes[kLanes] = {};
    memcpy(lanes, p + first, static_cast<size_t>(count) * sizeof(T));
    return Pack<T>::load(lanes);
  }
  PF_HD void store(T* p, Pack<T> x) const {
    T lanes[kLanes];
    x.store(lanes);
    memcpy(p + first, lanes, static_cast<size_t>(count) * sizeof(T));
  }
  template <class S>
  PF_HD Pack<T> load(const S* p) const {
    return load_wider<T>(p + first, count);
  }
  template <class S>
  PF_HD void store(S* p, Pack<T> x) const {
    store_narrower(p + first, x, count);
  }
  template <class S>
  PF_HD void stream(S* p, Pack<T> x) const {
    store(p, x);
  }
};

// visit(at, n) for elements [begin, end), n counting from 0: full packs, then the rest.
template <class T, class Visit>
PF_HD void for_elements(int64_t begin, int64_t end, const Visit& visit) {
  int64_t e = begin;
  for (; e + kLanes <= end; e += kLanes) visit(FullElements<T>{e}, e - begin);
  if (e < end) visit(PartialElements<T>{e, static_cast<int>(end - e)}, e - begin);
}

// kernel(at) for n values that need no noise.
template <class T, class Kernel>
static void for_each_value(int64_t n, const Place& place, const Kernel& kernel) {
  for_each_block(n, 4096, place, 2.0 * static_cast<double>(n), 0,
                 [&](int64_t begin, int64_t end, void*) {
                   for_elements<T>(begin, end, [&](auto at, int64_t) { kernel(at); });
                 });
}

// The blocks of noise under a (n_rows, n_per_row) array: each row needs `per_row` of them and
// reads its first number at `phase` inside the first.
template <class T>
struct BlockGrid {
  static constexpr int kPerBlock = Draw<T>::kPerBlock;
  int64_t per_row;
  uint64_t first_block;
  int phase;
  BlockGrid(uint64_t start, int64_t n_per_row)
      : first_block(start / kPerBlock), phase(static_cast<int>(start % kPerBlock)) {
    per_row = n_per_row == 0 ? 0 : (phase + n_per_row + kPerBlock - 1) / kPerBlock;
  }
};

// Upper counter words lane by lane: once in 2^32 blocks or chains they differ between lanes.
template <class T>
static PF_NOINLINE void carry_into_upper_words(const BlockGrid<T>& grid, uint64_t chain,
                                               int64_t block, uint32_t purpose,
                                               const Pack<uint32_t>& lane, Pack<uint32_t>* c1,
                                               Pack<uint32_t>* c3) {
  uint32_t order[kLanes], high_block[kLanes], high_chain[kLanes];
  lane.store(order);
  for (int l = 0; l < kLanes; ++l) {
    const int64_t index = block + order[l];
    const uint64_t b = grid.first_block + static_cast<uint64_t>(index % grid.per_row);
    const uint64_t c = chain + static_cast<uint64_t>(index / grid.per_row);
    high_block[l] = static_cast<uint32_t>(b >> 32);
    high_chain[l] = static_cast<uint32_t>(c >> 32) | purpose;
  }
  *c1 = Pack<uint32_t>::load(high_block);
  *c3 = Pack<uint32_t>::load(high_chain);
}

// Counter words for kLanes consecutive (row, block) pairs of the grid. Lanes are ordered so that a
// transposition inside 128-bit lanes leaves the numbers in memory order.
template <class T>
struct PairCounter {
  static PF_HD Pack<uint32_t> lane_order() {
    uint32_t order[kLanes];
    constexpr int kQuads = kVectorBytes / 16;
    constexpr int kPerQuad = 16 / sizeof(T);
    for (int l = 0; l < kLanes; ++l) {
      const int inside = l % Pack<T>::kLanesPerRegister;
      order[l] =
          static_cast<uint32_t>(l - inside + (inside % kPerQuad) * kQuads + inside / kPerQuad);
    }
    return Pack<uint32_t>::load(order);
  }

  Pack<uint32_t> c0, c1, c2, c3;
  // The first lane is block `block` of row `row` of `grid`.
  PF_HD PairCounter(const BlockGrid<T>& grid, const NoiseSource& noise, int64_t row, int64_t block,
                    Pack<uint32_t> lane, uint32_t reciprocal) {
    const uint64_t chain = noise.chain_offset + static_cast<uint64_t>(row);
    const uint64_t counter = grid.first_block + static_cast<uint64_t>(block);
    const uint64_t row_end = grid.first_block + static_cast<uint64_t>(grid.per_row);
    const uint32_t width = static_cast<uint32_t>(grid.per_row);
    const uint32_t purpose = noise.purpose << 24;
    // How many rows further each lane is.
    Pack<uint32_t> down;
    if (grid.per_row >= kLanes) {
      const int64_t left = grid.per_row - block;
      const uint32_t wrap = left < kLanes ? static_cast<uint32_t>(left) : kLanes;
      down = select(lane >= wrap, Pack<uint32_t>(1u), Pack<uint32_t>(0u));
    } else {
      down = ((lane + static_cast<uint32_t>(block)) * reciprocal) >> 16;
    }
    c0 = lane + static_cast<uint32_t>(counter) - down * width;
    c2 = down + static_cast<uint32_t>(chain);
    c1 = Pack<uint32_t>(static_cast<uint32_t>(counter >> 32));
    c3 = Pack<uint32_t>(static_cast<uint32_t>(chain >> 32) | purpose);
    const bool block_carry = (grid.first_block >> 32) != ((row_end + kLanes) >> 32);
    const bool chain_carry = (chain >> 32) != ((chain + kLanes) >> 32);
    if (block_carry || chain_carry) {
      carry_into_upper_words(grid, chain, block, purpose, lane, &c1, &c3);
    }
  }
};

PF_HD void store_in_order(float* out, const Pack<float>* z) {
  PF_UNROLL
  for (int k = 0; k < Pack<float>::kRegisters; ++k) {
    constexpr int kPerRegister = Pack<float>::kLanesPerRegister;
    FloatRegister r[4];
    transpose4_register(z[0].r[k], z[1].r[k], z[2].r[k], z[3].r[k], r);
    PF_UNROLL
    for (int i = 0; i < 4; ++i) {
      *reinterpret_cast<FloatInMemory*>(out + (k * 4 + i) * kPerRegister) = r[i];
    }
  }
}
PF_HD void store_in_order(double* out, const Pack<double>* z) {
  PF_UNROLL
  for (int k = 0; k < Pack<double>::kRegisters; ++k) {
    constexpr int kPerRegister = Pack<double>::kLanesPerRegister;
    DoubleRegister r[2];
    interleave2_register(z[0].r[k], z[1].r[k], r);
    PF_UNROLL
    for (int i = 0; i < 2; ++i) {
      *reinterpret_cast<DoubleInMemory*>(out + (k * 2 + i) * kPerRegister) = r[i];
    }
  }
}

// Numbers of `Law` for pairs [begin, end) of the grid, block after block, into `out`, which has
// room up to the next multiple of kLanes pairs.
template <class Law, class T>
PF_HD void draw_pairs(const BlockGrid<T>& grid, const NoiseSource& noise, int64_t n_per_row,
                      int64_t begin, int64_t end, T* out) {
  constexpr int kPerBlock = Draw<T>::kPerBlock;
  const PhiloxKey key(noise.seed);
  const Pack<uint32_t> lane = PairCounter<T>::lane_order();
  const uint32_t reciprocal =
      65536u / static_cast<uint32_t>(grid.per_row < 65536 ? grid.per_row : 65536) + 1;
  const int first = grid.per_row == 1 ? grid.phase : 0;
  const int last = grid.per_row == 1 ? grid.phase + static_cast<int>(n_per_row) : kPerBlock;
  int64_t row = begin / grid.per_row, block = begin % grid.per_row;
  for (int64_t p = begin; p < end; p += kLanes, out += kLanes * kPerBlock) {
    const PairCounter<T> c(grid, noise, row, block, lane, reciprocal);
    Pack<T> z[kPerBlock];
    Law::template values<T>(philox4x32_10(c.c0, c.c1, c.c2, c.c3, key), first, last, z);
    store_in_order(out, z);
    block += kLanes;
    if (block >= grid.per_row) {
      row += block / grid.per_row;
      block %= grid.per_row;
    }
  }
}

// For every element of a (n_rows, n_per_row) array: kernel(coefficients, at, noise), where
// coefficients = kernel.at_row(row) is taken once when kernel.uniform() says it is the same for
// all rows, and noise is the element's entry of its row's sequence under `Law`.
template <class Law, class T, class Kernel>
static void for_each_element(int64_t n_rows, int64_t n_per_row, const NoiseSource& noise,
                             const Place& place, const Kernel& kernel) {
  constexpr int kPerBlock = Draw<T>::kPerBlock;
  constexpr int64_t kPairs = 512;
  if (n_rows == 0 || n_per_row == 0) return;
  const BlockGrid<T> grid(noise.start, n_per_row);
  const int64_t n_pairs = n_rows * grid.per_row;
  const double nanoseconds = 1.5 * kPerBlock * static_cast<double>(n_pairs);
  const bool aligned = grid.phase == 0 && n_per_row % kPerBlock == 0;
  for_each_block(n_pairs, kPairs, place, nanoseconds, (2 * kPairs * kPerBlock + kLanes) * sizeof(T),
                 [&](int64_t begin, int64_t end, void* scratch) {
                   T* drawn = static_cast<T*>(scratch);
                   draw_pairs<Law>(grid, noise, n_per_row, begin, end, drawn);
                   const int64_t last_row = (end - 1) / grid.per_row;
                   // Elements of `row` inside the tile: [from, to) of the flat array.
                   auto from = [&](int64_t row) {
                     const int64_t block = begin - row * grid.per_row;
                     const int64_t entry = block > 0 ? block * kPerBlock - grid.phase : 0;
                     return row * n_per_row + (entry > 0 ? entry : 0);
                   };
                   auto to = [&](int64_t row) {
                     const int64_t block = end - row * grid.per_row;
                     const int64_t entry = block * kPerBlock - grid.phase;
                     return row * n_per_row + (entry < n_per_row ? entry : n_per_row);
                   };
                   const int64_t first_row = begin / grid.per_row;
                   const int64_t tile_first = from(first_row);
                   const T* noise_of_tile = drawn;
                   if (!aligned) {  // close the gaps that rows leave in their first and last blocks
                     T* packed = drawn + kPairs * kPerBlock;
                     noise_of_tile = packed;
                     for (int64_t row = first_row; row <= last_row; ++row) {
                       const int64_t e = from(row), n = to(row) - e;
                       const int64_t entry = e - row * n_per_row + grid.phase;
                       const int64_t source = (row * grid.per_row - begin) * kPerBlock + entry;
                       for (int64_t i = 0; i < n; ++i)
                         packed[e - tile_first + i] = drawn[source + i];
                     }
                   }
                   auto apply = [&](int64_t row, int64_t e_begin, int64_t e_end) {
                     const auto coefficients = kernel.at_row(row);
                     const T* xi = noise_of_tile + (e_begin - tile_first);
                     for_elements<T>(e_begin, e_end, [&](auto at, int64_t n) {
                       kernel(coefficients, at, Pack<T>::load(xi + n));
                     });
                   };
                   if (kernel.uniform()) {
                     apply(first_row, tile_first, to(last_row));
                   } else {
                     for (int64_t row = first_row; row <= last_row; ++row)
                       apply(row, from(row), to(row));
                   }
                 });
}

}  // namespace pf::PF_BACKEND
