// SPDX-License-Identifier: Apache-2.0
// The noise contract: every chain owns endless sequences of random numbers, one a purpose, and
// entry n of a sequence is a pure function of (seed, purpose, chain, n).
//
// Philox4x32-10 with key = seed and counter = (block: 64 bits, chain: 56 bits, purpose: 8 bits).
// A float32 block holds four numbers, a float64 block two.
// Reference: J. K. Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3, SC11.
#pragma once

#include "core/math.hpp"

namespace pf::PF_BACKEND {

template <class Word>
struct Block {
  Word w[4];
};

// The ten round keys of a seed: the same for every lane, so they are made once.
struct PhiloxKey {
  uint32_t k0[10], k1[10];
  explicit PF_HD PhiloxKey(uint64_t seed) {
    for (int round = 0; round < 10; ++round) {
      k0[round] = static_cast<uint32_t>(seed) + static_cast<uint32_t>(round) * 0x9E3779B9u;
      k1[round] = static_cast<uint32_t>(seed >> 32) + static_cast<uint32_t>(round) * 0xBB67AE85u;
    }
  }
};

template <class Word>
PF_HD Block<Word> philox4x32_10(Word c0, Word c1, Word c2, Word c3, const PhiloxKey& key) {
  PF_UNROLL
  for (int round = 0; round < 10; ++round) {
    Word hi0, lo0, hi1, lo1;
    mul_hi_lo(c0, 0xD2511F53u, hi0, lo0);
    mul_hi_lo(c2, 0xCD9E8D57u, hi1, lo1);
    c0 = hi1 ^ c1 ^ Word(key.k0[round]);
    c1 = lo1;
    c2 = hi0 ^ c3 ^ Word(key.k1[round]);
    c3 = lo0;
  }
  return {{c0, c1, c2, c3}};
}

// How a Real is drawn: numbers a block, uniforms from words, memory order of its lanes.
template <class T>
struct Draw;

template <>
struct Draw<float> {
  static constexpr int kPerBlock = 4;
  // u = (w + 1/2) 2^-32 with w rounded to float first: in (0, 1]
  template <class Word>
  static PF_HD auto uniform(const Block<Word>& b, int i) {
    auto f = to_float(b.w[i]);
    using Real = decltype(f);
    return fma(f, Real(0x1p-32f), Real(0x1p-33f));
  }
};

template <class Word>
PF_HD auto uint53_to_double(Word high, Word low);
template <>
PF_HD auto uint53_to_double(uint32_t high, uint32_t low) {
  // high * 2^21 + (low >> 11) < 2^53: every step is exact
  return static_cast<double>(high) * 0x1p21 + static_cast<double>(low >> 11);
}
#if !defined(PF_CUDA)
template <>
PF_HD auto uint53_to_double(Pack<uint32_t> high, Pack<uint32_t> low) {
  const uint64_t two52_bits = 0x4330000000000000;
  const double two52 = 0x1p52;
  const Pack<double> h = bit_cast<Pack<double>>(widen(high) | two52_bits) - two52;
  const Pack<double> l = bit_cast<Pack<double>>(widen(low >> 11) | two52_bits) - two52;
  return h * 0x1p21 + l;
}
#endif

template <>
struct Draw<double> {
  static constexpr int kPerBlock = 2;
  template <class Word>
  static PF_HD auto uniform(const Block<Word>& b, int i) {
    auto v = uint53_to_double(b.w[2 * i], b.w[2 * i + 1]);
    using Real = decltype(v);
    return fma(v, Real(0x1p-53), Real(0x1p-54));
  }
};

// Two standard normals from two uniforms in (0, 1]: Box and Muller (1958).
template <class Real>
PF_HD void box_muller(Real u0, Real u1, Real& z0, Real& z1) {
  using T = typename Traits<Real>::Scalar;
  const Real radius = sqrt(Real(T(-2)) * log_normal_range(u0, Real(T(0))));
  const SinCos<Real> angle = sincospi(u1 + u1);
  z0 = radius * angle.cos;
  z1 = radius * angle.sin;
}

// The numbers of a block as laws. `values` fills kPerBlock numbers; only pairs that hold one of
// the entries [first, last) of the block are computed.
struct Normal {
  template <class T, class Real, class Word>
  static PF_HD void values(const Block<Word>& b, int first, int last, Real* z) {
    PF_UNROLL
    for (int i = 0; i < Draw<T>::kPerBlock; i += 2) {
      if (i < last && i + 2 > first) {
        box_muller(Draw<T>::uniform(b, i), Draw<T>::uniform(b, i + 1), z[i], z[i + 1]);
      } else {
        z[i] = z[i + 1] = Real(T(0));
      }
    }
  }
};
struct Uniform {
  template <class T, class Real, class Word>
  static PF_HD void values(const Block<Word>& b, int first, int last, Real* z) {
    PF_UNROLL
    for (int i = 0; i < Draw<T>::kPerBlock; ++i) z[i] = Draw<T>::uniform(b, i);
    (void)first, (void)last;
  }
};

// The chain words of the counter for kLanes (or one) chains that follow `chain`.
template <class Word>
struct ChainCounter {
  Word c2, c3;
  PF_HD ChainCounter(uint64_t chain, Word lane, uint32_t purpose) {
    const uint32_t low = static_cast<uint32_t>(chain);
    const Word high = Word(static_cast<uint32_t>(chain >> 32) | purpose << 24);
    c2 = lane + Word(low);
    // a carry into the upper word shows as a sum below its addend
    c3 = high + select(c2 < Word(low), Word(1u), Word(0u));
  }
};

#if !defined(PF_CUDA)

// How many blocks a stream makes at a time: independent ones overlap in the pipeline. The numbers
// do not depend on it.
constexpr int kBlocksAhead = 8;

// Blocks block .. block + n - 1 of these chains' sequences, as numbers of a law.
template <class Law, class Real, class Word>
static PF_NOINLINE void fill_ahead(const ChainCounter<Word>& chains, const PhiloxKey& key,
                                   uint64_t block, int n, Real* values) {
  using T = typename Traits<Real>::Scalar;
  Block<Word> words[kBlocksAhead];
  for (int i = 0; i < n; ++i, ++block) {
    words[i] = philox4x32_10(Word(static_cast<uint32_t>(block)),
                             Word(static_cast<uint32_t>(block >> 32)), chains.c2, chains.c3, key);
  }
  for (int i = 0; i < n; ++i) {
    Law::template values<T>(words[i], 0, Draw<T>::kPerBlock, values + i * Draw<T>::kPerBlock);
  }
}

// The sequence of numbers of the chains in the lanes of Real, read in order: entries start .. end.
template <class Law, class Real>
class NoiseStream {
  using T = typename Traits<Real>::Scalar;
  using Word = typename Traits<Real>::Word;
  static constexpr int kPerBlock = Draw<T>::kPerBlock;

 public:
  PF_HD NoiseStream(uint64_t seed, uint32_t purpose, uint64_t chain, Word lane, uint64_t start,
                    uint64_t end)
      : chains_(chain, lane, purpose),
        key_(seed),
        block_(start / kPerBlock),
        blocks_left_(end > start ? (end + kPerBlock - 1) / kPerBlock - start / kPerBlock : 0) {
    if (blocks_left_ > 0) refill();
    entry_ = static_cast<int>(start % kPerBlock);
  }
  // Before a step and at its coordinates, which are visited in order.
  template <class D>
  PF_HD void begin_step(D) {}
  PF_HD Real at(int64_t) {
    if (entry_ == available_) refill();
    return values_[entry_++];
  }

 private:
  PF_HD void refill() {
    const int n = blocks_left_ < kBlocksAhead ? static_cast<int>(blocks_left_) : kBlocksAhead;
    fill_ahead<Law>(chains_, key_, block_, n, values_);
    block_ += static_cast<uint64_t>(n);
    blocks_left_ -= static_cast<uint64_t>(n);
    entry_ = 0;
    available_ = n * kPerBlock;
  }

  ChainCounter<Word> chains_;
  PhiloxKey key_;
  uint64_t block_, blocks_left_;
  int entry_ = 0, available_ = 0;
  Real values_[kBlocksAhead * kPerBlock];
};

#endif  // !PF_CUDA

}  // namespace pf::PF_BACKEND
