// SPDX-License-Identifier: Apache-2.0
// Spins as bits: from the words of a state to bits and back, and strings of bits that close on
// themselves, of which a register holds hundreds.
#pragma once

#include <string.h>

#include "core/pack.hpp"

namespace pf::PF_BACKEND {

using BitRegister = Uint64Register;
constexpr int64_t kBitWords = kVectorBytes / 8;  // words in a register

PF_HD BitRegister load_bits(const uint64_t* p) {
  return *reinterpret_cast<const Uint64InMemory*>(p);
}
PF_HD void store_bits(uint64_t* p, BitRegister r) { *reinterpret_cast<Uint64InMemory*>(p) = r; }
PF_HD BitRegister same_bits(bool bit) { return BitRegister{} - static_cast<uint64_t>(bit); }
template <class Bits>
PF_HD Bits choose_bits(Bits where, Bits a, Bits b) {
  return (where & a) | (~where & b);
}

// ---- states ------------------------------------------------------------------------------------

// Bit i is set where word i of n <= 64 is up, that is where its top bit is clear.
template <class U>
PF_HD uint64_t up_bits(const U* x, int n) {
  uint64_t bits = 0;
  int i = 0;
  if constexpr (sizeof(U) == 1) {
    for (; i + 8 <= n; i += 8) {
      uint64_t eight;
      memcpy(&eight, x + i, 8);
      bits |= (((~eight >> 7) & 0x0101010101010101u) * 0x0102040810204080u >> 56) << i;
    }
  } else if constexpr (sizeof(U) == 4) {
    for (; i + kLanes <= n; i += kLanes) {
      const auto word = Pack<uint32_t>::load(reinterpret_cast<const uint32_t*>(x + i));
      bits |= static_cast<uint64_t>(below_bits(word, Pack<uint32_t>(uint32_t{1} << 31))) << i;
    }
  }
  for (; i < n; ++i) bits |= static_cast<uint64_t>(x[i] >> (sizeof(U) * 8 - 1) == 0) << i;
  return bits;
}

// Bit i of the lowest eight as the lowest of byte i.
PF_HD uint64_t one_in_each(uint64_t bits) {
  return (((bits & 0xff) * 0x0101010101010101u & 0x8040201008040201u) + 0x7f7f7f7f7f7f7f7fu) >> 7 &
         0x0101010101010101u;
}

template <class U>
PF_HD void write_spins(uint64_t bits, U up, U down, int n, U* x) {
  const U turned = static_cast<U>(up ^ down);
  int i = 0;
  if constexpr (sizeof(U) == 1) {
    for (; i + 8 <= n; i += 8) {
      const uint64_t eight = down * uint64_t{0x0101010101010101u} ^ one_in_each(bits >> i) * turned;
      memcpy(x + i, &eight, 8);
    }
  }
  for (; i < n; ++i) x[i] = static_cast<U>(down ^ (turned & -static_cast<U>(bits >> i & 1)));
}

// Adds 2^digit to the counts of the bits of a word that are set; none may pass 255.
PF_HD void add_digit(uint64_t bits, int digit, uint8_t counts[64]) {
  for (int i = 0; i < 64; i += 8) {
    uint64_t eight;
    memcpy(&eight, counts + i, 8);
    eight += one_in_each(bits >> i) << digit;
    memcpy(counts + i, &eight, 8);
  }
}

// Bits 0, 4, 8, ... of a word as sixteen, and back.
PF_HD uint64_t every_fourth(uint64_t x) {
  x &= 0x1111111111111111u;
  x = (x | x >> 3) & 0x0303030303030303u;
  x = (x | x >> 6) & 0x000f000f000f000fu;
  x = (x | x >> 12) & 0x000000ff000000ffu;
  return (x | x >> 24) & 0xffffu;
}
PF_HD uint64_t spread_fourfold(uint64_t x) {
  x = (x | x << 24) & 0x000000ff000000ffu;
  x = (x | x << 12) & 0x000f000f000f000fu;
  x = (x | x << 6) & 0x0303030303030303u;
  return (x | x << 3) & 0x1111111111111111u;
}

// Bit j of a[i] becomes bit i of a[j].
PF_HD void transpose_bits(uint32_t a[32]) {
  uint32_t mask = 0x0000ffff;
  for (int step = 16; step != 0; step /= 2, mask ^= mask << step) {
    for (int i = 0; i < 32; i = (i + step + 1) & ~step) {
      const uint32_t swap = (a[i] >> step ^ a[i + step]) & mask;
      a[i] ^= swap << step;
      a[i + step] ^= swap;
    }
  }
}

// Exchanges the bits of a and b under a mask.
template <class Bits>
PF_HD void exchange_bits(Bits where, Bits& a, Bits& b) {
  const Bits turned = (a ^ b) & where;
  a = a ^ turned;
  b = b ^ turned;
}
// Swaps the bits of b under a mask with those of a that are `shift` higher.
PF_HD void swap_bits(BitRegister& a, BitRegister& b, int shift, uint64_t mask) {
  const BitRegister turned = ((a >> shift) ^ b) & mask;
  a = a ^ (turned << shift);
  b = b ^ turned;
}

// How often the bits of some words were set, in binary. Of each digit there are two planes of bits:
// the digit itself, and bits of its weight that wait until there are as many again and both are
// added at once. So a digit is touched half as often as the one before it.
class BitCounts {
 public:
  static constexpr int kDigits = 8, kMost = 255;
  static int64_t bytes(int64_t n_words) { return 2 * kDigits * n_words * 8; }

  // Memory for n_words words, a multiple of those in a register.
  BitCounts(uint64_t* memory, int64_t n_words) : memory_(memory), n_words_(n_words) {}
  void clear() { n_ = 0; }
  int n() const { return n_; }  // states that were counted
  // To be called before add() of all words of a state.
  void begin() { ++n_; }
  // Counts the bits of n words, a multiple of those in a register, which begin with word `first`.
  void add(const uint64_t* words, int64_t first, int64_t n) const {
    const int n_full = __builtin_ctz(static_cast<unsigned>(n_));  // digits whose bits wait already
    for (int64_t i = 0; i < n; i += kBitWords) {
      BitRegister carry = load_bits(words + i);
      uint64_t* at = memory_ + first + i;
      for (int d = 0; d < n_full; ++d, at += 2 * n_words_) {
        const BitRegister waits = load_bits(at + n_words_), twice = carry & waits;
        const BitRegister once = carry ^ waits;
        if (n_ >> (d + 1) == 1) {  // the first of this digit
          store_bits(at, once);
          carry = twice;
          continue;
        }
        const BitRegister digit = load_bits(at);
        store_bits(at, digit ^ once);
        carry = twice | (digit & once);
      }
      store_bits(at + n_words_, carry);
    }
  }
  // The binary digits of the counts of the bits of a register at word `first`.
  PF_HD void digits(int64_t first, BitRegister (&out)[kDigits]) const {
    const uint64_t* at = memory_ + first;
    BitRegister carry{};
    for (int d = 0; d < kDigits; ++d, at += 2 * n_words_) {
      const BitRegister digit = n_ >> (d + 1) != 0 ? load_bits(at) : BitRegister{};
      const BitRegister waits = (n_ >> d & 1) != 0 ? load_bits(at + n_words_) : BitRegister{};
      const BitRegister once = digit ^ waits;
      out[d] = once ^ carry;
      carry = (digit & waits) | (once & carry);
    }
  }

 private:
  uint64_t* memory_;
  int64_t n_words_;
  int n_ = 0;
};

// How many bits of some registers are set.
class BitTally {
 public:
  PF_HD void add(BitRegister r) {
    constexpr uint64_t kPairs = 0x3333333333333333u;
    r = r - (r >> 1 & uint64_t{0x5555555555555555u});
    r = (r & kPairs) + (r >> 2 & kPairs);
    bytes_ = bytes_ + ((r + (r >> 4)) & uint64_t{0x0f0f0f0f0f0f0f0fu});
    if (++n_ == kMost) fold();
  }
  PF_HD int64_t total() {
    fold();
    return total_;
  }

 private:
  static constexpr int kMost = 255 / 8;  // that bytes have room for
  PF_HD void fold() {
    constexpr uint64_t kBytes = 0x00ff00ff00ff00ffu;
    const BitRegister words = (bytes_ & kBytes) + (bytes_ >> 8 & kBytes);
    for (int64_t i = 0; i < kBitWords; ++i) {
      total_ += static_cast<int64_t>(words[i] * 0x0001000100010001u >> 48);
    }
    bytes_ = BitRegister{};
    n_ = 0;
  }

  BitRegister bytes_{};
  int n_ = 0;
  int64_t total_ = 0;
};

// ---- strings -----------------------------------------------------------------------------------

// Where the bits `offset` after (or before) those of a word begin.
struct BitShift {
  int64_t words;
  int bits;
  explicit PF_HD BitShift(int64_t offset = 0)
      : words(offset >> 6), bits(static_cast<int>(offset & 63)) {}
};
PF_HD BitRegister load_shifted(const uint64_t* at, BitShift by) {
  const BitRegister low = load_bits(at + by.words);
  if (by.bits == 0) return low;
  return low >> by.bits | load_bits(at + by.words + 1) << (64 - by.bits);
}

// Sets bits [begin, end).
static PF_NOINLINE void set_bits(uint64_t* words, int64_t begin, int64_t end) {
  while (begin < end) {
    const int64_t stop = (begin | 63) + 1 < end ? (begin | 63) + 1 : end;
    words[begin >> 6] |= ~uint64_t{0} >> (64 - (stop - begin)) << (begin & 63);
    begin = stop;
  }
}

// 64 bits of a string of n >= 64 bits that closes on itself, from bit p < n on.
PF_HD uint64_t closed_bits(const uint64_t* words, int64_t n, int64_t p) {
  const uint64_t* at = words + (p >> 6);
  uint64_t bits = p % 64 == 0 ? at[0] : at[0] >> p % 64 | at[1] << (64 - p % 64);
  const int64_t left = n - p;
  if (left < 64) bits = (bits & ~(~uint64_t{0} << left)) | words[0] << left;
  return bits;
}

// Copies the ends of a string past each other, `halo` words each, so that shifted loads close.
static PF_NOINLINE void close_string(uint64_t* words, int64_t n, int64_t halo) {
  const int64_t full = n >> 6;
  int64_t p = full * 64;
  if (p < n) {
    words[full] = closed_bits(words, n, p);
    p += 64;
  }
  int64_t i = p >> 6;
  for (p -= n; i < full + 1 + halo; ++i) {
    words[i] = closed_bits(words, n, p);
    p = p + 64 < n ? p + 64 : p + 64 - n;
  }
  p = 0;
  for (i = -1; i >= -halo; --i) {
    p = p >= 64 ? p - 64 : p - 64 + n;
    words[i] = closed_bits(words, n, p);
  }
}

}  // namespace pf::PF_BACKEND
