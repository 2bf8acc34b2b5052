// SPDX-License-Identifier: Apache-2.0
// Lattices of spins on a GPU as words of 32 sites of a row, in shared or in global memory.
//
// A sweep is two halves. The first draws the noise of the sites, compares it with the thresholds
// and updates one colour; the second reads these comparisons and updates the other. Each reads the
// spins of one plane and writes them to another, so that nothing is read while it is written.
#pragma once

#include "backend/cuda.cuh"
#include "core/spins.hpp"

namespace pf::PF_BACKEND {

constexpr int kWarp = 32;

// Bit i is that of the warp's lane i.
#if defined(__CUDA_ARCH__) || defined(PF_EMULATOR)
PF_HD uint32_t bits_of_warp(bool mine) { return __ballot_sync(kWholeWarp, mine); }
PF_HD uint32_t n_set(uint32_t bits) { return static_cast<uint32_t>(__popc(bits)); }
// Of the warp's lanes; lane 0 has it.
PF_HD uint32_t sum_of_warp(uint32_t mine) {
  PF_UNROLL
  for (unsigned away = kWarp / 2; away > 0; away /= 2) {
    mine += __shfl_down_sync(kWholeWarp, mine, away);
  }
  return mine;
}
#else
PF_HD uint32_t bits_of_warp(bool mine) { return mine; }
PF_HD uint32_t n_set(uint32_t bits) { return bits; }
PF_HD uint32_t sum_of_warp(uint32_t mine) { return mine; }
#endif

// Rows of sites as words of bits: the lowest bit of a word is its first site, and each row begins
// with a word. Bits beyond the end of a row are zero. There are fewer than 2^31 words.
template <int kDims>
class BitRows {
 public:
  static constexpr int kSites = 32;  // in a word

  struct Word {
    uint32_t index, column, y, z;
  };
  // Every so many words from one on.
  struct Part {
    Word first, step;
    uint32_t end;
  };

  static PF_HD int64_t words(const LatticeShape& s) {
    int64_t words = (s.size[kDims - 1] + kSites - 1) / kSites;
    for (int i = 0; i < kDims - 1; ++i) words *= s.size[i];
    return words;
  }
  explicit PF_HD BitRows(const LatticeShape& s)
      : row_(s.size[kDims - 1]),
        width_(static_cast<uint32_t>((row_ + kSites - 1) / kSites)),
        height_(static_cast<uint32_t>(s.size[kDims - 2])),
        depth_(kDims == 3 ? static_cast<uint32_t>(s.size[0]) : 1),
        last_bit_(static_cast<int>((row_ - 1) % kSites)) {}

  PF_HD uint32_t words() const { return width_ * height_ * depth_; }
  PF_HD bool fill_their_words() const { return last_bit_ == kSites - 1; }

  PF_HD Part part(uint32_t first, uint32_t step, uint32_t end) const {
    return {word(first), word(step), end};
  }
  template <class Visit>
  PF_HD void each(const Part& part, const Visit& visit) const {
    for (Word w = part.first; w.index < part.end; go_on(w, part.step)) visit(w);
  }

  PF_HD int64_t first_site(const Word& w) const {
    return static_cast<int64_t>(w.z * height_ + w.y) * row_ + int64_t{w.column} * kSites;
  }
  PF_HD int n_sites(const Word& w) const { return last_bit(w) + 1; }
  // The sites of a colour.
  PF_HD uint32_t of_colour(const Word& w, uint32_t colour) const {
    return 0x55555555u << (w.y + w.z + colour) % 2 & ~0u >> (kSites - 1 - last_bit(w));
  }
  // The neighbours of the sites of a word: along the row, then across rows, then across layers.
  // `at` is where the word lies.
  PF_HD void neighbours(const uint32_t* spins, uint32_t at, const Word& w, uint32_t* n) const {
    const uint32_t bits = spins[at], layer = width_ * height_;
    const bool begins = w.column == 0, ends = w.column + 1 == width_;
    const uint32_t before = spins[begins ? at + width_ - 1 : at - 1];
    const uint32_t after = spins[ends ? at + 1 - width_ : at + 1];
    n[0] = bits << 1 | (before >> (begins ? last_bit_ : kSites - 1) & 1);
    n[1] = bits >> 1 | (after & 1) << last_bit(w);
    n[2] = spins[w.y > 0 ? at - width_ : at + layer - width_];
    n[3] = spins[w.y + 1 < height_ ? at + width_ : at + width_ - layer];
    if constexpr (kDims == 3) {
      const uint32_t all = layer * depth_;
      n[4] = spins[w.z > 0 ? at - layer : at + all - layer];
      n[5] = spins[w.z + 1 < depth_ ? at + layer : at + layer - all];
    }
  }

 private:
  PF_HD Word word(uint32_t index) const {
    const uint32_t line = index / width_, z = kDims == 3 ? line / height_ : 0;
    return {index, index - line * width_, line - z * height_, z};
  }
  // Without a division.
  PF_HD void go_on(Word& w, const Word& step) const {
    w = {w.index + step.index, w.column + step.column, w.y + step.y, w.z + step.z};
    if (w.column >= width_) {
      w.column -= width_;
      ++w.y;
    }
    if (kDims == 3 && w.y >= height_) {
      w.y -= height_;
      ++w.z;
    }
  }
  PF_HD int last_bit(const Word& w) const {
    return w.column + 1 == width_ ? last_bit_ : kSites - 1;
  }

  int64_t row_;
  uint32_t width_, height_, depth_;
  int last_bit_;
};

// One lattice: its law, how many of its spins a sweep has turned over, and planes of words, fewer
// than 2^32 words in all. Two planes hold spins, before a sweep and between its halves, one the
// comparisons with each threshold, and where sums are wanted eight the binary digits of how often a
// spin was up.
template <class Model>
class SpinBits {
  static constexpr int kDims = Model::kDims, kDigits = 8;
  static constexpr int64_t kLawBytes = 192;
  using Law = typename Model::Lattice;
  static_assert(sizeof(Law) <= kLawBytes - 8, "the law fits, and what has turned over");

 public:
  using Rows = BitRows<kDims>;
  using Word = typename Rows::Word;
  using Part = typename Rows::Part;
  static constexpr int kMostCounted = (1 << kDigits) - 1;

  static int64_t bytes(const LatticeShape& shape, int n_masks, bool sums) {
    return kLawBytes + (all_words(shape, n_masks, sums) * 4 + 7) / 8 * 8;
  }
  static void must_be_counted(const LatticeShape& shape, int n_masks, bool sums) {
    if (all_words(shape, n_masks, sums) > UINT32_MAX) too_many_sites(shape.n_sites);
  }
  PF_HD SpinBits(const LatticeShape& shape, int n_masks, void* memory)
      : rows_(shape),
        n_masks_(static_cast<uint32_t>(n_masks)),
        words_(rows_.words()),
        law_(static_cast<Law*>(memory)),
        turned_(reinterpret_cast<int64_t*>(static_cast<char*>(memory) + kLawBytes) - 1),
        planes_(reinterpret_cast<uint32_t*>(static_cast<char*>(memory) + kLawBytes)) {}

  static PF_HD uint32_t lane() { return thread() % kWarp; }
  PF_HD uint32_t words() const { return words_; }
  // Words [begin, end), one a thread of the block, or one a warp.
  PF_HD Part of_thread(uint32_t begin, uint32_t end) const {
    return rows_.part(begin + thread(), threads(), end);
  }
  PF_HD Part of_warp(uint32_t begin, uint32_t end) const {
    return rows_.part(begin + thread() / kWarp, threads() / kWarp, end);
  }

  PF_HD void make_law(const Model& model, int64_t lattice) const {
    if (thread() == 0) *turned_ = 0;
    if (thread() < Model::kClasses) model.put_class(lattice, static_cast<int>(thread()), *law_);
  }
  template <class U>
  PF_HD void pack(const Spins<U>& s, const U* x, const Part& part) const {
    each_site(part, [&](const Word& w, int64_t site, bool exists) {
      const uint32_t bits = bits_of_warp(exists && s.is_up(x[site]));
      if (lane() == 0) planes_[before() + w.index] = bits;
    });
  }
  template <class U>
  PF_HD void unpack(const Spins<U>& s, U* x, const Part& part) const {
    each_site(part, [&](const Word& w, int64_t site, bool exists) {
      if (exists) x[site] = bit_of_lane(planes_[before() + w.index]) != 0 ? s.up : s.down;
    });
  }

  // The halves of a sweep whose noise begins with `entry`.
  PF_HD void first_half(const Model& model, const PhiloxKey& key,
                        const ChainCounter<uint32_t>& chain, uint64_t entry,
                        const Part& part) const {
    const Update update(*this, model);
    if (rows_.fill_their_words()) {
      rows_.each(part, [&](const Word& w) {
        compare<true>(key, chain, entry + uint64_t{w.index} * Rows::kSites, w);
        planes_[between() + w.index] = update(before(), w, 0);
      });
    } else {
      rows_.each(part, [&](const Word& w) {
        compare<false>(key, chain, entry + static_cast<uint64_t>(rows_.first_site(w)), w);
        planes_[between() + w.index] = update(before(), w, 0);
      });
    }
  }
  // n_counted: how many states have been counted with this one, or 0 where none is. Returns how
  // many spins the sweep has turned over in the words of all lanes of the warp, of which lane 0
  // knows.
  PF_HD uint32_t second_half(const Model& model, int n_counted, const Part& part) const {
    const Update update(*this, model);
    uint32_t turned = 0;
    rows_.each(part, [&](const Word& w) {
      const uint32_t bits = update(between(), w, 1);
      turned += n_set(bits ^ planes_[before() + w.index]);
      planes_[before() + w.index] = bits;
      if (n_counted > 0) count(w, bits, n_counted == 1);
    });
    return sum_of_warp(turned);
  }
  // Adds up what all have turned over in a sweep, and once they have, gives it to the acceptances.
  PF_HD void add_turned(uint32_t n) const { atomic_add(turned_, int64_t{n}); }
  PF_HD void settle_turned(const TurnedShares& shares, int64_t lattice) const {
    if (thread() != 0 || !shares.wanted()) return;
    shares.add(lattice, *turned_);
    *turned_ = 0;
  }
  template <class U>
  PF_HD void add_counts(const SpinSums<U>& sums, const SpinStates& states, int64_t lattice,
                        const Part& part) const {
    each_site(part, [&](const Word& w, int64_t site, bool exists) {
      if (!exists) return;
      uint32_t n_up = 0;
      PF_UNROLL
      for (uint32_t d = 0; d < kDigits; ++d) n_up |= bit_of_lane(planes_[digit(d) + w.index]) << d;
      sums.add(states, lattice, site, 1, &n_up);
    });
  }

 private:
  static int64_t all_words(const LatticeShape& shape, int n_masks, bool sums) {
    return (2 + n_masks + (sums ? kDigits : 0)) * Rows::words(shape);
  }
  static PF_HD uint32_t thread() { return static_cast<uint32_t>(thread_in_block()); }
  static PF_HD uint32_t threads() { return static_cast<uint32_t>(block_size()); }
  static PF_HD uint32_t bit_of_lane(uint32_t bits) { return bits >> lane() & 1; }
  // The lanes of a warp take the sites of each word, some of which may not exist.
  template <class Visit>
  PF_HD void each_site(const Part& part, const Visit& visit) const {
    rows_.each(part, [&](const Word& w) {
      visit(w, rows_.first_site(w) + lane(), static_cast<int>(lane()) < rows_.n_sites(w));
    });
  }

  // The comparisons of the sites of a word, whose noise begins with `entry`. Where rows fill their
  // words that is eight blocks, of which only the lowest bits differ; elsewhere the first may begin
  // before the row, and what belongs to the next row is not drawn.
  template <bool kWhole>
  PF_HD void compare(const PhiloxKey& key, const ChainCounter<uint32_t>& chain, uint64_t entry,
                     const Word& w) const {
    constexpr int kBlocks = kWhole ? 8 : 9, kSites = Rows::kSites;
    const int skipped = kWhole ? 0 : static_cast<int>(entry % 4), end = skipped + rows_.n_sites(w);
    uint32_t words[4 * kBlocks];
    PF_UNROLL
    for (int q = 0; q < kBlocks; ++q) {
      Block<uint32_t> made{};
      if (kWhole || 4 * q < end) {
        const uint64_t block = kWhole ? entry / 4 | q : entry / 4 + static_cast<uint64_t>(q);
        made = philox4x32_10(static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                             chain.c2, chain.c3, key);
      }
      PF_UNROLL
      for (int i = 0; i < 4; ++i) words[4 * q + i] = made.w[i];
    }
    for (uint32_t m = 0; m < n_masks_; ++m) {
      const uint32_t threshold = law_->thresholds[m];
      uint32_t bits = below<kSites>(words, threshold);
      if constexpr (!kWhole) {
        const uint32_t more = below<4>(words + kSites, threshold);
        bits = bits >> skipped | more << 1 << (kSites - 1 - skipped);
      }
      planes_[mask(m) + w.index] = bits;
    }
  }
  // Bit i says that word i is below the threshold.
  template <int n>
  static PF_HD uint32_t below(const uint32_t* words, uint32_t threshold) {
    // A word plus the threshold's complement carries where it is not below. The carry comes in from
    // the right as the bits move to the left: one addition of 64 bits.
    const uint32_t complement = 0u - threshold;
    uint32_t bits = threshold;  // or anything: it moves out
    PF_UNROLL
    for (int i = n - 1; i >= 0; --i) {
      const uint64_t high = uint64_t{bits} << 32;
      bits = static_cast<uint32_t>(((high | words[i]) + (high | complement)) >> 32);
    }
    return threshold != 0 ? ~bits & ~0u >> (32 - n) : 0;
  }

  // The new spins of a word from those of a plane, and what that needs of the law, in registers.
  class Update {
   public:
    PF_HD Update(const SpinBits& lattice, const Model& model)
        : lattice_(lattice), model_(model), rule_(model.template rule<uint32_t>(*lattice.law_)) {
      PF_UNROLL
      for (int k = 0; k < Model::kClasses; ++k) {
        masks_[k] = lattice.mask(static_cast<uint32_t>(lattice.law_->mask_of_class[k]));
      }
    }
    PF_HD uint32_t operator()(uint32_t plane, const Word& w, uint32_t colour) const {
      const Rows& rows = lattice_.rows_;
      const uint32_t* planes = lattice_.planes_;
      uint32_t n[2 * kDims];
      rows.neighbours(planes, plane + w.index, w, n);
      const uint32_t spin = planes[plane + w.index], mine = rows.of_colour(w, colour);
      const uint32_t next =
          model_.update(spin, n, rule_, [&](int k) { return planes[masks_[k] + w.index]; });
      return (next & mine) | (spin & ~mine);
    }

   private:
    const SpinBits& lattice_;
    const Model& model_;
    IsingRule<uint32_t> rule_;
    uint32_t masks_[Model::kClasses];
  };

  // Adds one where a bit is set; the first state of those that are counted sets all digits.
  PF_HD void count(const Word& w, uint32_t bits, bool is_first) const {
    if (is_first) {
      PF_UNROLL
      for (uint32_t d = 0; d < kDigits; ++d) planes_[digit(d) + w.index] = d == 0 ? bits : 0;
      return;
    }
    for (uint32_t at = digit(0) + w.index; bits != 0; at += words_) {
      const uint32_t counted = planes_[at];
      planes_[at] = counted ^ bits;
      bits &= counted;
    }
  }

  // Where planes begin.
  PF_HD uint32_t before() const { return 0; }
  PF_HD uint32_t between() const { return words_; }
  PF_HD uint32_t mask(uint32_t m) const { return (2 + m) * words_; }
  PF_HD uint32_t digit(uint32_t d) const { return (2 + n_masks_ + d) * words_; }

  Rows rows_;
  uint32_t n_masks_, words_;
  Law* law_;
  int64_t* turned_;
  uint32_t* planes_;
};

}  // namespace pf::PF_BACKEND
