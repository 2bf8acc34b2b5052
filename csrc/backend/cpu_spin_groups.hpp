// SPDX-License-Identifier: Apache-2.0
// Thirty-two lattices of spins as the bits of one word a site, for small lattices.
#pragma once

#include "backend/cpu.hpp"
#include "backend/cpu_bits.hpp"

namespace pf::PF_BACKEND {

constexpr int kGroup = 32;

template <class Model>
class SpinGroup {
  static constexpr int kDims = Model::kDims;

 public:
  SpinGroup(const LatticeShape& shape, int n_masks, void* memory)
      : row_(shape.size[kDims - 1]),
        rows_(shape.size[kDims - 2]),
        layers_(kDims == 2 ? 1 : shape.size[0]),
        n_(row_ * rows_ * layers_),
        n_masks_(n_masks),
        spins_(static_cast<uint32_t*>(memory)) {}
  int64_t bytes(bool counts) const { return 4 * n_ * (1 + n_masks_ + (counts ? kDigits : 0)) + 64; }

  // x holds `count` lattices one after another; missing ones are down.
  template <class U>
  void load(const U* x, int count) {
    for_tiles([&](int64_t first, int n, uint32_t* a) {
      for (int l = 0; l < kGroup; ++l) {
        a[l] = l < count ? static_cast<uint32_t>(up_bits(x + l * n_ + first, n)) : 0;
      }
      transpose_bits(a);
      memcpy(spins_ + first, a, static_cast<size_t>(n) * 4);
    });
  }
  template <class U>
  void store(U up, U down, U* x, int count) const {
    for_tiles([&](int64_t first, int n, uint32_t* a) {
      memcpy(a, spins_ + first, static_cast<size_t>(n) * 4);
      transpose_bits(a);
      for (int l = 0; l < count; ++l) write_spins(a[l], up, down, n, x + l * n_ + first);
    });
  }

  // Counts which spins are up; what was counted up to step k of `count` lattices, the first of
  // which is number `lattice`, goes to their sums, and counting starts anew.
  int n_counted() const { return n_counted_; }
  void count() {
    if (n_counted_++ == 0) memset(digit(0), 0, static_cast<size_t>(4 * kDigits * n_));
    for (int64_t i = 0; i < n_; ++i) count_bits(spins_[i], digit(0) + i, n_);
  }
  template <class Sums>
  void add_counts(const Sums& sums, int64_t k, int64_t lattice, int count) {
    const auto states = sums.states(k, n_counted_);
    for_tiles([&](int64_t first, int n, uint32_t* a) {
      uint8_t n_up[kGroup][64] = {};
      for (int d = 0; d < kDigits; ++d) {
        memcpy(a, digit(d) + first, static_cast<size_t>(n) * 4);
        transpose_bits(a);
        for (int l = 0; l < count; ++l) add_digit(a[l], d, n_up[l]);
      }
      for (int l = 0; l < count; ++l) sums.add(states, lattice + l, first, n, n_up[l]);
    });
    n_counted_ = 0;
  }

  // One sweep; turned[l] is how many spins of lattice l turned over.
  void sweep(const Model& model, const typename Model::Group& group, const NoiseSource& noise,
             uint64_t first_chain, int count, uint64_t step, uint8_t (&turned)[64]) {
    compare(group, noise, first_chain, count,
            noise.start / 4 + step * static_cast<uint64_t>(n_ / 4));
    const auto rule = model.template rule<uint32_t>(group);
    uint32_t digits[kDigits] = {};
    for (int colour = 0; colour < 2; ++colour) update(model, group, rule, colour, digits);
    memset(turned, 0, sizeof(turned));
    for (int d = 0; d < kDigits; ++d) add_digit(digits[d], d, turned);
  }

 private:
  static constexpr int kDigits = BitCounts::kDigits;
  uint32_t* masks(int m) const { return spins_ + (1 + m) * n_; }
  uint32_t* digit(int d) const { return spins_ + (1 + n_masks_ + d) * n_; }

  // Adds the bits of a word to counts of each, whose binary digits lie `stride` words apart.
  static PF_HD void count_bits(uint32_t bits, uint32_t* digits, int64_t stride) {
    for (int d = 0; d < kDigits; ++d) {
      uint32_t& digit = digits[d * stride];
      const uint32_t before = digit;
      digit = before ^ bits;
      bits &= before;
    }
  }

  template <class Visit>
  void for_tiles(const Visit& visit) const {
    for (int64_t first = 0; first < n_; first += kGroup) {
      uint32_t a[kGroup] = {};
      visit(first, n_ - first < kGroup ? static_cast<int>(n_ - first) : kGroup, a);
    }
  }

  // Bit l of masks(m)[s] is set where lattice l's word of site s is below its threshold m.
  void compare(const typename Model::Group& group, const NoiseSource& noise, uint64_t first_chain,
               int count, uint64_t first_block) const {
    const PhiloxKey key(noise.seed);
    uint32_t order[kLanes];
    for (int l = 0; l < kLanes; ++l) order[l] = static_cast<uint32_t>(l);
    const Pack<uint32_t> lane = Pack<uint32_t>::load(order);
    for (int part = 0; part < kGroup / kLanes && part * kLanes < count; ++part) {
      const ChainCounter<Pack<uint32_t>> chain(first_chain + static_cast<uint64_t>(part * kLanes),
                                               lane, noise.purpose);
      for (int64_t b = 0; b < n_ / 4; ++b) {
        const uint64_t block = first_block + static_cast<uint64_t>(b);
        const Block<Pack<uint32_t>> words = philox4x32_10(
            Pack<uint32_t>(static_cast<uint32_t>(block)),
            Pack<uint32_t>(static_cast<uint32_t>(block >> 32)), chain.c2, chain.c3, key);
        for (int m = 0; m < n_masks_; ++m) {
          const auto threshold = Pack<uint32_t>::load(group.thresholds[m] + part * kLanes);
          PF_UNROLL
          for (int w = 0; w < 4; ++w) {
            const uint32_t bits = below_bits(words.w[w], threshold) << (part * kLanes % kGroup);
            uint32_t& mask = masks(m)[4 * b + w];
            mask = part == 0 ? bits : mask | bits;
          }
        }
      }
    }
  }

  // Updates a colour; counts how often a bit turned over, in binary, of fewer than 256 sites.
  template <class Rule>
  PF_NOINLINE void update(const Model& model, const typename Model::Group& group, const Rule& rule,
                          int colour, uint32_t (&digits)[kDigits]) const {
    const int64_t layer = row_ * rows_;
    for (int64_t z = 0; z < layers_; ++z) {
      for (int64_t y = 0; y < rows_; ++y) {
        const int64_t row = z * layer + y * row_;
        const int64_t down = y + 1 < rows_ ? row_ : row_ - layer;
        const int64_t up = y > 0 ? -row_ : layer - row_;
        const int64_t below = z + 1 < layers_ ? layer : layer - n_;
        const int64_t above = z > 0 ? -layer : n_ - layer;
        for (int64_t i = (colour + y + z) % 2; i < row_; i += 2) {
          uint32_t* s = spins_ + row + i;
          uint32_t n[2 * kDims] = {s[i + 1 < row_ ? 1 : 1 - row_], s[i > 0 ? -1 : row_ - 1],
                                   s[down], s[up]};
          if constexpr (kDims == 3) {
            n[4] = s[below];
            n[5] = s[above];
          }
          const uint32_t next = model.update(
              *s, n, rule, [&](int k) { return masks(group.mask_of_class[k])[row + i]; });
          count_bits(*s ^ next, digits, 1);
          *s = next;
        }
      }
    }
  }

  int64_t row_, rows_, layers_, n_;
  int n_masks_;
  uint32_t* spins_;
  int n_counted_ = 0;
};

}  // namespace pf::PF_BACKEND
