// SPDX-License-Identifier: Apache-2.0
// One lattice of spins as four strings of bits, for all but the smallest.
//
// Block q of a sweep's noise holds the words of sites 4 q ... 4 q + 3, so bit q of string w would
// be site 4 q + w: then comparing the words of kLanes blocks gives kLanes bits of four strings, and
// no bit ever moves. In rows of odd parity strings 0 and 1, and 2 and 3, are exchanged, so that
// strings 0 and 2 hold the sites of one colour and strings 1 and 3 those of the other. A site of
// string 2 j + c then has one of the two neighbours along its row at the same place of string
// 2 j + 1 - c, and the other in string 2 (1 - j) + 1 - c, there or one bit away. Its neighbours
// across rows are in the former string where rows have an even number of pairs of sites, whole
// blocks, and otherwise in the latter, where a block may also have the end of one row and the
// beginning of the next.
#pragma once

#include <initializer_list>

#include "backend/cpu.hpp"
#include "backend/cpu_bits.hpp"

namespace pf::PF_BACKEND {

// The words of n blocks beside the thresholds: for 64 blocks a word of each of 4 * count strings,
// `stride` words apart. Words of a row of thresholds m lie at strings 4 m ... 4 m + 3.
template <bool kCarries>
static PF_NOINLINE void compare_blocks(const NoiseSource& noise, uint64_t chain, uint64_t first,
                                       int64_t n_words, const uint32_t* thresholds, int count,
                                       uint64_t* strings, int64_t stride) {
  uint32_t order[kLanes];
  for (int l = 0; l < kLanes; ++l) order[l] = static_cast<uint32_t>(l);
  const Pack<uint32_t> lane = Pack<uint32_t>::load(order);
  const PhiloxKey key(noise.seed);
  const Pack<uint32_t> c2(static_cast<uint32_t>(chain));
  const Pack<uint32_t> c3(static_cast<uint32_t>(chain >> 32) | noise.purpose << 24);
  const Pack<uint32_t> high(static_cast<uint32_t>(first >> 32));
  constexpr int kBytes = kLanes / 8;
  char* out = reinterpret_cast<char*>(strings);
  for (int64_t i = 0; i < n_words * 64 / kLanes; ++i) {
    const uint32_t low = static_cast<uint32_t>(first) + static_cast<uint32_t>(i * kLanes);
    const Pack<uint32_t> c0 = lane + low;
    Pack<uint32_t> c1 = high;
    if (kCarries) {
      c1 = high + select(c0 < Pack<uint32_t>(static_cast<uint32_t>(first)), Pack<uint32_t>(1u),
                         Pack<uint32_t>(0u));
    }
    const Block<Pack<uint32_t>> words = philox4x32_10(c0, c1, c2, c3, key);
    for (int m = 0; m < count; ++m) {
      const Pack<uint32_t> threshold(thresholds[m]);
      PF_UNROLL
      for (int w = 0; w < 4; ++w) {
        const uint32_t bits = below_bits(words.w[w], threshold);
        memcpy(out + (4 * m + w) * stride * 8 + i * kBytes, &bits, kBytes);
      }
    }
  }
}

// kOddPairs: whether a row has an odd number of pairs.
template <class Model, bool kOddPairs>
class SpinStrings {
  static constexpr int kDims = Model::kDims;
  static constexpr int64_t kAlign = 8;  // words; a register has no more

 public:
  // A row has `pairs_` pairs, and of strings `row_` bits, rounded up; a layer has an even number of
  // rows.
  SpinStrings(const LatticeShape& shape, int n_masks, void* memory)
      : pairs_(shape.size[kDims - 1] / 2),
        row_((pairs_ + 1) / 2),
        layer_(pairs_ * shape.size[kDims - 2] / 2),
        n_(kDims == 2 ? layer_ : layer_ * shape.size[0]),
        n_words_((n_ + 63) / 64),
        stride_(aligned(n_words_)),
        reach_((kDims == 2 ? row_ : layer_) / 64 + 1),
        halo_(aligned(reach_ + 1 + kAlign)),
        n_masks_(n_masks),
        memory_(static_cast<uint64_t*>(memory)),
        counts_(memory_ == nullptr ? nullptr : memory_ + words(), 4 * stride_) {}
  int64_t bytes(bool counts) const {
    return 8 * words() + (counts ? BitCounts::bytes(4 * stride_) : 0);
  }

  // Marks the rows, once for all lattices of the shape.
  void mark() {
    memset(marks(kOddRow, 0), 0, static_cast<size_t>(8 * kMarks * stride_));
    const int64_t rows_a_layer = 2 * layer_ / pairs_;
    for (int64_t r = 0, p = 0; p < 2 * n_; ++r, p += pairs_) {
      const int64_t y = r % rows_a_layer;
      if ((y + r / rows_a_layer) % 2 != 0) mark_pairs(kOddRow, p, p + pairs_);
      mark_pairs(kRowStart, p, p + 1);
      mark_pairs(kRowEnd, p + pairs_ - 1, p + pairs_);
      if (kDims == 3 && y == 0) mark_pairs(kLayerStart, p, p + pairs_);
      if (kDims == 3 && y == rows_a_layer - 1) mark_pairs(kLayerEnd, p, p + pairs_);
    }
  }

  template <class U>
  void load(const U* x) {
    for (int64_t i = 0; i < n_words_; ++i) {
      uint64_t word[4] = {};
      for (int part = 0; part < 4; ++part) {
        const int64_t first = 256 * i + 64 * part, left = 4 * n_ - first;
        if (left <= 0) break;
        const uint64_t bits = up_bits(x + first, left < 64 ? static_cast<int>(left) : 64);
        for (int w = 0; w < 4; ++w) word[w] |= every_fourth(bits >> w) << 16 * part;
      }
      exchange(i, 0, word[0], word[1]);
      exchange(i, 1, word[2], word[3]);
      for (int w = 0; w < 4; ++w) spins(w)[i] = word[w];
    }
    for (int w = 0; w < 4; ++w) close_string(spins(w), n_, reach_ + 1);
  }
  template <class U>
  void store(U up, U down, U* x) const {
    for (int64_t i = 0; i < n_words_; ++i) {
      const uint64_t word[4] = {spins(0)[i], spins(1)[i], spins(2)[i], spins(3)[i]};
      for_sites(i, word, [&](int64_t first, int n, uint64_t bits) {
        write_spins(bits, up, down, n, x + first);
      });
    }
  }

  // What sweeps counted up to step k goes to the sums of a lattice, and counting starts anew.
  int n_counted() const { return counts_.n(); }
  template <class Sums>
  void add_counts(const Sums& sums, int64_t k, int64_t lattice, const Place& place) {
    const auto states = sums.states(k, counts_.n());
    const double nanoseconds = 8.0 * static_cast<double>(n_);
    const int64_t n_registers = (n_words_ + kBitWords - 1) / kBitWords;
    for_each_block(n_registers, 4, place, nanoseconds, 0, [&](int64_t begin, int64_t end, void*) {
      for (int64_t i = begin * kBitWords; i < end * kBitWords; i += kBitWords) {
        uint64_t n_up[kBitWords * 32];
        counts_of_sites(i, n_up);
        const int64_t left = 4 * n_ - 256 * i, here = 256 * kBitWords;
        sums.add(states, lattice, 256 * i, left < here ? left : here,
                 reinterpret_cast<const uint8_t*>(n_up));
      }
    });
    counts_.clear();
  }

  // One sweep: both colours of each slab, but for the second colour's edges between slabs, which
  // wait until the first colour is done everywhere. Returns how many spins turned over, and counts
  // which are up if asked to.
  int64_t sweep(const Model& model, const typename Model::Lattice& lattice,
                const NoiseSource& noise, uint64_t chain, uint64_t step, bool counts,
                const Place& place) {
    const uint64_t first_block = noise.start / 4 + step * static_cast<uint64_t>(n_);
    const int64_t edge = aligned(reach_ + 1);
    const int64_t slab = 8 * edge > 512 ? 8 * edge : 512;
    const int64_t n_slabs = stride_ < 2 * slab ? 1 : (stride_ + slab - 1) / slab;
    const auto end_of = [&](int64_t s) {
      return (s + 1) * slab < stride_ && n_slabs > 1 ? (s + 1) * slab : stride_;
    };
    // A slab's words of the second colour reach nothing but its first colour from `edge` on, and up
    // to here: behind the string's last site its beginning is not there yet.
    const auto inner_end_of = [&](int64_t s) {
      const int64_t end = end_of(s) < n_words_ ? end_of(s) : n_words_;
      return (end - 1 - reach_) / kAlign * kAlign;
    };
    const double nanoseconds = 2.5 * static_cast<double>(n_);
    int64_t turned = 0;
    const auto add = [&](int64_t n) { __atomic_fetch_add(&turned, n, __ATOMIC_RELAXED); };
    for_each_block(n_slabs, 1, place, nanoseconds, 0, [&](int64_t s, int64_t, void*) {
      const int64_t begin = s * slab, end = end_of(s), inner_end = inner_end_of(s);
      compare(lattice, noise, chain, first_block, begin, end);
      add(update<0>(model, lattice, begin, end));
      if (n_slabs > 1 && begin + edge < inner_end) {
        add(update<1>(model, lattice, begin + edge, inner_end));
      }
    });
    close_colour(0);
    if (counts) counts_.begin();
    for_each_block(n_slabs, 1, place, 0.1 * nanoseconds, 0, [&](int64_t s, int64_t, void*) {
      const int64_t begin = s * slab, end = end_of(s), inner_end = inner_end_of(s);
      if (n_slabs > 1 && begin + edge < inner_end) {
        add(update<1>(model, lattice, begin, begin + edge));
        add(update<1>(model, lattice, inner_end, end));
      } else {
        add(update<1>(model, lattice, begin, end));
      }
      for (int w = 0; counts && w < 4; ++w) {
        counts_.add(spins(w) + begin, w * stride_ + begin, end - begin);
      }
    });
    close_colour(1);
    return turned;
  }

 private:
  enum Mark { kOddRow, kRowStart, kRowEnd, kLayerStart, kLayerEnd };
  // Where pairs are even both halves of a block are in one row: one mark is that of both but for
  // the first and the last pair, which are always in half 0 and half 1.
  static constexpr int kHalves = kOddPairs ? 2 : 1;
  static constexpr int kMarks = kHalves * (kDims == 2 ? 3 : 5);
  static constexpr int64_t aligned(int64_t words) { return (words + kAlign - 1) / kAlign * kAlign; }
  // visit(first, n, bits) for the sites of word i of the four strings, in order.
  template <class Visit>
  PF_HD void for_sites(int64_t i, const uint64_t (&strings)[4], const Visit& visit) const {
    uint64_t word[4] = {strings[0], strings[1], strings[2], strings[3]};
    exchange(i, 0, word[0], word[1]);
    exchange(i, 1, word[2], word[3]);
    for (int part = 0; part < 4; ++part) {
      const int64_t first = 256 * i + 64 * part, left = 4 * n_ - first;
      if (left <= 0) break;
      uint64_t bits = 0;
      for (int w = 0; w < 4; ++w) bits |= spread_fourfold(word[w] >> 16 * part & 0xffff) << w;
      visit(first, left < 64 ? static_cast<int>(left) : 64, bits);
    }
  }
  // The counts of the sites of the words from i on of the four strings, in bytes, in order.
  void counts_of_sites(int64_t i, uint64_t (&n_up)[kBitWords * 32]) const {
    constexpr int kDigits = BitCounts::kDigits;
    BitRegister a[4][kDigits];
    for (int w = 0; w < 4; ++w) counts_.digits(w * stride_ + i, a[w]);
    for (int w = 0; w < 4; w += 2) {
      const BitRegister odd_row = load_bits(marks(kOddRow, w / 2) + i);
      for (int d = 0; d < kDigits; ++d) exchange_bits(odd_row, a[w][d], a[w + 1][d]);
    }
    // Bit r of byte j of digit d goes to bit d of byte j of register r. So site 4 (8 j + r) + w of
    // a word's has its count in a[w][r], byte j.
    for (auto& of_string : a) {
      for (int d = 0; d < 4; ++d) {
        swap_bits(of_string[d], of_string[d + 4], 4, 0x0f0f0f0f0f0f0f0fu);
      }
      for (const int d : {0, 1, 4, 5}) {
        swap_bits(of_string[d], of_string[d + 2], 2, 0x3333333333333333u);
      }
      for (int d = 0; d < 8; d += 2) {
        swap_bits(of_string[d], of_string[d + 1], 1, 0x5555555555555555u);
      }
    }
    // The three binary digits of j change places with the last of r and those of w, which are then
    // the place of a byte.
    for (int w = 0; w < 4; ++w) {
      for (int r = 0; r < 8; r += 2) swap_bits(a[w][r], a[w][r + 1], 32, 0x00000000ffffffffu);
    }
    for (int r = 0; r < 8; ++r) {
      for (int w = 0; w < 2; ++w) swap_bits(a[w][r], a[w + 2][r], 16, 0x0000ffff0000ffffu);
      for (int w = 0; w < 4; w += 2) swap_bits(a[w][r], a[w + 1][r], 8, 0x00ff00ff00ff00ffu);
    }
    for (int w = 0; w < 4; ++w) {
      for (int r = 0; r < 8; ++r) {
        for (int64_t k = 0; k < kBitWords; ++k) {
          n_up[32 * k + 16 * (r % 2) + 4 * w + r / 2] = a[w][r][k];
        }
      }
    }
  }
  int64_t words() const { return 4 * spin_stride() + (kMarks + 4 * n_masks_) * stride_; }
  int64_t spin_stride() const { return stride_ + 2 * halo_; }
  PF_HD uint64_t* spins(int w) const { return memory_ + halo_ + w * spin_stride(); }
  PF_HD uint64_t* marks(int mark, int half) const {
    return memory_ + 4 * spin_stride() + (mark * kHalves + (kOddPairs ? half : 0)) * stride_;
  }
  // Marks the pairs [begin, end).
  void mark_pairs(int mark, int64_t begin, int64_t end) {
    for (int half = 0; half < 2; ++half) {
      set_bits(marks(mark, half), (begin - half + 1) / 2, (end - half + 1) / 2);
    }
  }
  PF_HD uint64_t* masks(int m, int w) const {
    return memory_ + 4 * spin_stride() + kMarks * stride_ + (4 * m + w) * stride_;
  }
  void close_colour(int c) {
    for (int w = c; w < 4; w += 2) close_string(spins(w), n_, reach_ + 1);
  }

  // Between sites by place in their row and sites by colour, for the words at i of two strings.
  PF_HD void exchange(int64_t i, int half, uint64_t& even, uint64_t& odd) const {
    exchange_bits(marks(kOddRow, half)[i], even, odd);
  }

  // The comparisons of words [begin, end) of the strings, by colour.
  void compare(const typename Model::Lattice& lattice, const NoiseSource& noise, uint64_t chain,
               uint64_t first_block, int64_t begin, int64_t end) const {
    constexpr int64_t kChunk = 32;  // words: a few kilobytes that stay in the first cache
    for (int64_t i = begin; i < end; i += kChunk) {
      const int64_t n = end - i < kChunk ? end - i : kChunk;
      const uint64_t first = first_block + static_cast<uint64_t>(64 * i);
      const bool carries = first >> 32 != (first + static_cast<uint64_t>(64 * n)) >> 32;
      (carries ? compare_blocks<true> : compare_blocks<false>)(noise, chain, first, n,
                                                               lattice.thresholds, n_masks_,
                                                               masks(0, 0) + i, stride_);
      for (int m = 0; m < n_masks_; ++m) {
        for (int half = 0; half < 2; ++half) {
          exchange_run(masks(m, 2 * half) + i, masks(m, 2 * half + 1) + i, marks(kOddRow, half) + i,
                       n);
        }
      }
    }
  }
  static PF_HD void exchange_run(uint64_t* even, uint64_t* odd, const uint64_t* odd_row,
                                 int64_t n) {
    for (int64_t i = 0; i < n; i += kBitWords) {
      BitRegister a = load_bits(even + i), b = load_bits(odd + i);
      exchange_bits(load_bits(odd_row + i), a, b);
      store_bits(even + i, a);
      store_bits(odd + i, b);
    }
  }

  // Updates a colour in words [begin, end) of its strings; returns how many spins turned over.
  template <int kColour>
  int64_t update(const Model& model, const typename Model::Lattice& lattice, int64_t begin,
                 int64_t end) const {
    return update_string<kColour, 0>(model, lattice, begin, end) +
           update_string<kColour, 1>(model, lattice, begin, end);
  }
  // The bits of a register at word i that are sites.
  PF_HD BitRegister sites_at(int64_t i) const {
    BitRegister bits{};
    for (int64_t k = 0; k < kBitWords; ++k) {
      const int64_t left = n_ - 64 * (i + k);
      bits[k] = left >= 64 ? ~uint64_t{0} : left <= 0 ? 0 : ~uint64_t{0} >> (64 - left);
    }
    return bits;
  }
  template <int kColour, int kHalf>
  PF_NOINLINE int64_t update_string(const Model& model, const typename Model::Lattice& lattice,
                                    int64_t begin, int64_t end) const {
    constexpr int kMine = 2 * kHalf + kColour, kFacing = 2 * kHalf + 1 - kColour;
    uint64_t* mine = spins(kMine);
    const uint64_t *facing = spins(kFacing), *crossing = spins(2 * (1 - kHalf) + 1 - kColour);
    const uint64_t* odd_row = marks(kOddRow, kHalf);
    // Of odd pairs each half has beginnings and ends of rows, and rows across cross halves.
    const uint64_t *begins = marks(kRowStart, kHalf), *ends = marks(kRowEnd, kHalf);
    const uint64_t* across = kOddPairs ? crossing : facing;
    constexpr int64_t kFarther = kOddPairs && kHalf == 1 ? 1 : 0, kBack = kOddPairs - kFarther;
    const int64_t rows = kOddPairs ? pairs_ / 2 : row_;
    const int64_t down_by = rows + kFarther, up_by = -rows - kBack;
    const BitShift down(down_by), up(up_by), below(layer_), above(-layer_);
    const BitShift down_around(down_by - layer_), up_around(up_by + layer_);
    const BitShift ahead(kHalf == 1 ? 1 : -1), around(kHalf == 1 ? 1 - row_ : row_ - 1);
    const BitShift to_end(rows), to_start(-rows);
    const auto rule = model.template rule<BitRegister>(lattice);
    // Whether the crossing neighbour is after the site, in rows of even parity.
    const BitRegister after_in_even = same_bits(kColour == 1);
    BitTally turned;
    for (int64_t i = begin; i < end; i += kBitWords) {
      BitRegister n[2 * kDims];
      const uint64_t *f = facing + i, *x = crossing + i, *a = across + i;
      n[0] = load_bits(f);
      const BitRegister after = load_bits(odd_row + i) ^ after_in_even;
      if constexpr (kOddPairs) {
        const BitRegister here = load_bits(x), away = load_shifted(x, ahead);
        const BitRegister last =
            choose_bits(load_bits(begins + i), load_shifted(f, to_end), kHalf == 1 ? here : away);
        const BitRegister next =
            choose_bits(load_bits(ends + i), load_shifted(f, to_start), kHalf == 1 ? away : here);
        n[1] = choose_bits(after, next, last);
      } else {
        const BitRegister away = choose_bits(load_bits((kHalf == 1 ? ends : begins) + i),
                                             load_shifted(x, around), load_shifted(x, ahead));
        n[1] = choose_bits(kHalf == 1 ? after : ~after, away, load_bits(x));
      }
      if constexpr (kDims == 2) {
        n[2] = load_shifted(a, down);
        n[3] = load_shifted(a, up);
      } else {
        n[2] = choose_bits(load_bits(marks(kLayerEnd, kHalf) + i), load_shifted(a, down_around),
                           load_shifted(a, down));
        n[3] = choose_bits(load_bits(marks(kLayerStart, kHalf) + i), load_shifted(a, up_around),
                           load_shifted(a, up));
        n[4] = load_shifted(f, below);
        n[5] = load_shifted(f, above);
      }
      const BitRegister spin = load_bits(mine + i);
      const BitRegister next = model.update(spin, n, rule, [&](int k) {
        return load_bits(masks(lattice.mask_of_class[k], kMine) + i);
      });
      store_bits(mine + i, next);
      const bool is_whole = 64 * (i + kBitWords) <= n_;
      turned.add(is_whole ? spin ^ next : (spin ^ next) & sites_at(i));
    }
    return turned.total();
  }

  int64_t pairs_, row_, layer_, n_, n_words_, stride_, reach_, halo_;
  int n_masks_;
  uint64_t* memory_;
  BitCounts counts_;
};

}  // namespace pf::PF_BACKEND
