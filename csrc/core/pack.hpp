// SPDX-License-Identifier: Apache-2.0
// Real: what a kernel computes with. A CUDA thread uses float or double; a CPU thread uses
// Pack<float> or Pack<double>, the same value of kLanes chains at once. Both offer the same
// vocabulary (arithmetic, fma, sqrt, select, any bit of an integer), so a kernel is written once.
#pragma once

#include "core/config.hpp"
#if !defined(PF_CUDA)
#include "core/simd.hpp"
#endif

namespace pf::PF_BACKEND {

// ---- one value ---------------------------------------------------------------------------------

PF_HD float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
PF_HD double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
PF_HD float sqrt(float a) { return __builtin_sqrtf(a); }
PF_HD double sqrt(double a) { return __builtin_sqrt(a); }
template <class T>
PF_HD T select(bool condition, T a, T b) {
  return condition ? a : b;
}
// a > b ? a : b, so b where either is NaN
template <class T>
PF_HD T maximum(T a, T b) {
  return a > b ? a : b;
}
PF_HD bool any(bool condition) { return condition; }
PF_HD float to_float(uint32_t a) { return static_cast<float>(a); }
PF_HD void mul_hi_lo(uint32_t a, uint32_t m, uint32_t& hi, uint32_t& lo) {
  const uint64_t product = static_cast<uint64_t>(a) * m;
  hi = static_cast<uint32_t>(product >> 32);
  lo = static_cast<uint32_t>(product);
}
template <class To, class From>
PF_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

template <bool kFirst, class A, class B>
struct Select {
  using type = A;
};
template <class A, class B>
struct Select<false, A, B> {
  using type = B;
};

// Types that go with a Real: its scalar, its 32-bit words of noise, its raw bits, its masks.
template <class Real>
struct Traits;
template <>
struct Traits<float> {
  using Scalar = float;
  using Word = uint32_t;
  using Bits = uint32_t;
  using Mask = bool;
  using Wide = double;
};
template <>
struct Traits<double> {
  using Scalar = double;
  using Word = uint32_t;
  using Bits = uint64_t;
  using Mask = bool;
  using Wide = double;
};
PF_HD uint64_t widen(uint32_t a) { return a; }
PF_HD double to_wide(float a) { return static_cast<double>(a); }
PF_HD double to_wide(double a) { return a; }

#if !defined(PF_CUDA)

// ---- kLanes values -----------------------------------------------------------------------------

template <class T>
struct Pack {
  using Register = typename RegisterOf<T>::type;
  using InMemory = typename RegisterOf<T>::in_memory;
  static constexpr int kRegisters = kLanes * static_cast<int>(sizeof(T)) / kVectorBytes;
  static constexpr int kLanesPerRegister = kLanes / kRegisters;
  Register r[kRegisters];

  // Copied by registers: copies as a whole go through the stack, which GCC 12 cannot undo.
  Pack() = default;
  PF_HD Pack(const Pack& other) { *this = other; }
  PF_HD Pack& operator=(const Pack& other) {
    PF_UNROLL
    for (int k = 0; k < kRegisters; ++k) r[k] = other.r[k];
    return *this;
  }
  PF_HD Pack(T value) {  // a constant is every lane's constant
    PF_UNROLL
    for (int k = 0; k < kRegisters; ++k) r[k] = value - Register{};
  }
  static PF_HD Pack load(const T* p) {
    Pack a;
    PF_UNROLL
    for (int k = 0; k < kRegisters; ++k) {
      a.r[k] = *reinterpret_cast<const InMemory*>(p + k * kLanesPerRegister);
    }
    return a;
  }
  PF_HD void store(T* p) const {
    PF_UNROLL
    for (int k = 0; k < kRegisters; ++k) {
      *reinterpret_cast<InMemory*>(p + k * kLanesPerRegister) = r[k];
    }
  }
  // Past the caches, where p is aligned for it: for what is not read again soon.
  PF_HD void stream(T* p) const {
    if (reinterpret_cast<uintptr_t>(p) % kVectorBytes != 0) return store(p);
    PF_UNROLL
    for (int k = 0; k < kRegisters; ++k) stream_register(p + k * kLanesPerRegister, r[k]);
  }
};

template <class To, class T>
PF_HD To bit_cast(Pack<T> from) {
  static_assert(To::kRegisters == Pack<T>::kRegisters, "bit_cast keeps the size");
  To to;
  PF_UNROLL
  for (int k = 0; k < To::kRegisters; ++k) to.r[k] = (typename To::Register)from.r[k];
  return to;
}

// One truth value a lane, as wide as the T it was compared from.
template <int kBytes>
struct Mask {
  using Element = typename MaskElement<kBytes>::type;
  using Register = typename RegisterOf<Element>::mask;
  Register r[Pack<Element>::kRegisters];

  Mask() = default;
  PF_HD Mask(const Mask& other) { *this = other; }
  PF_HD Mask& operator=(const Mask& other) {
    PF_UNROLL
    for (int k = 0; k < Pack<Element>::kRegisters; ++k) r[k] = other.r[k];
    return *this;
  }
};
template <class T>
using MaskOf = Mask<static_cast<int>(sizeof(T))>;

#define PF_FOR_EACH_REGISTER \
  PF_UNROLL                  \
  for (int k = 0; k < Pack<T>::kRegisters; ++k)
#define PF_BINARY(op)                               \
  template <class T>                                \
  PF_HD Pack<T> operator op(Pack<T> a, Pack<T> b) { \
    PF_FOR_EACH_REGISTER a.r[k] = a.r[k] op b.r[k]; \
    return a;                                       \
  }                                                 \
  template <class T>                                \
  PF_HD Pack<T> operator op(Pack<T> a, T b) {       \
    return a op Pack<T>(b);                         \
  }                                                 \
  template <class T>                                \
  PF_HD Pack<T> operator op(T a, Pack<T> b) {       \
    return Pack<T>(a) op b;                         \
  }
PF_BINARY(+)
PF_BINARY(-)
PF_BINARY(*)
PF_BINARY(/)
PF_BINARY(&)
PF_BINARY(|)
PF_BINARY(^)
#undef PF_BINARY
#define PF_SHIFT(op)                            \
  template <class T>                            \
  PF_HD Pack<T> operator op(Pack<T> a, int n) { \
    PF_FOR_EACH_REGISTER a.r[k] = a.r[k] op n;  \
    return a;                                   \
  }
PF_SHIFT(<<)
PF_SHIFT(>>)
#undef PF_SHIFT
#define PF_COMPARE(op)                                                              \
  template <class T>                                                                \
  PF_HD MaskOf<T> operator op(Pack<T> a, Pack<T> b) {                               \
    MaskOf<T> m;                                                                    \
    PF_FOR_EACH_REGISTER m.r[k] = (typename MaskOf<T>::Register)(a.r[k] op b.r[k]); \
    return m;                                                                       \
  }                                                                                 \
  template <class T>                                                                \
  PF_HD MaskOf<T> operator op(Pack<T> a, T b) {                                     \
    return a op Pack<T>(b);                                                         \
  }
PF_COMPARE(<)
PF_COMPARE(<=)
PF_COMPARE(>)
PF_COMPARE(>=)
PF_COMPARE(==)
PF_COMPARE(!=)
#undef PF_COMPARE
template <class T>
PF_HD Pack<T> operator-(Pack<T> a) {
  PF_FOR_EACH_REGISTER a.r[k] = -a.r[k];
  return a;
}
template <int kBytes>
PF_HD Mask<kBytes> operator!(Mask<kBytes> m) {
  using T = typename Mask<kBytes>::Element;
  PF_FOR_EACH_REGISTER m.r[k] = ~m.r[k];
  return m;
}
template <int kBytes>
PF_HD Mask<kBytes> operator&(Mask<kBytes> a, Mask<kBytes> b) {
  using T = typename Mask<kBytes>::Element;
  PF_FOR_EACH_REGISTER a.r[k] = a.r[k] & b.r[k];
  return a;
}
template <class T>
PF_HD Pack<T> fma(Pack<T> a, Pack<T> b, Pack<T> c) {
  PF_FOR_EACH_REGISTER a.r[k] = fma_register(a.r[k], b.r[k], c.r[k]);
  return a;
}
template <class T>
PF_HD Pack<T> fma(Pack<T> a, T b, Pack<T> c) {
  return fma(a, Pack<T>(b), c);
}
template <class T>
PF_HD Pack<T> fma(Pack<T> a, Pack<T> b, T c) {
  return fma(a, b, Pack<T>(c));
}
template <class T>
PF_HD Pack<T> fma(T a, Pack<T> b, Pack<T> c) {
  return fma(Pack<T>(a), b, c);
}
template <class T>
PF_HD Pack<T> fma(Pack<T> a, T b, T c) {
  return fma(a, Pack<T>(b), Pack<T>(c));
}
template <class T>
PF_HD Pack<T> sqrt(Pack<T> a) {
  PF_FOR_EACH_REGISTER a.r[k] = sqrt_register(a.r[k]);
  return a;
}
template <class T>
PF_HD Pack<T> select(MaskOf<T> m, Pack<T> a, Pack<T> b) {
  PF_FOR_EACH_REGISTER a.r[k] = m.r[k] ? a.r[k] : b.r[k];
  return a;
}
template <class T>
PF_HD Pack<T> select(MaskOf<T> m, Pack<T> a, T b) {
  return select(m, a, Pack<T>(b));
}
template <class T>
PF_HD Pack<T> select(MaskOf<T> m, T a, Pack<T> b) {
  return select(m, Pack<T>(a), b);
}
template <class T>
PF_HD Pack<T> maximum(Pack<T> a, Pack<T> b) {
  PF_FOR_EACH_REGISTER a.r[k] = maximum_register(a.r[k], b.r[k]);
  return a;
}
template <int kBytes>
PF_HD bool any(Mask<kBytes> m) {
  using T = typename Mask<kBytes>::Element;
  auto found = m.r[0];
  PF_FOR_EACH_REGISTER found = found | m.r[k];
  return any_register(found);
}
#undef PF_FOR_EACH_REGISTER

PF_HD Pack<float> to_float(Pack<uint32_t> a) {
  Pack<float> f;
  PF_UNROLL
  for (int k = 0; k < Pack<float>::kRegisters; ++k) f.r[k] = to_float_register(a.r[k]);
  return f;
}
PF_HD void mul_hi_lo(Pack<uint32_t> a, uint32_t m, Pack<uint32_t>& hi, Pack<uint32_t>& lo) {
  PF_UNROLL
  for (int k = 0; k < Pack<uint32_t>::kRegisters; ++k) {
    mul_hi_lo_register(a.r[k], m, hi.r[k], lo.r[k]);
  }
}
// Bit l is set where lane l of a is below that of b.
PF_HD uint32_t below_bits(Pack<uint32_t> a, Pack<uint32_t> b) {
  uint32_t bits = 0;
  PF_UNROLL
  for (int k = 0; k < Pack<uint32_t>::kRegisters; ++k) {
    bits |= below_bits_register(a.r[k], b.r[k]) << (k * Pack<uint32_t>::kLanesPerRegister);
  }
  return bits;
}
PF_HD Pack<uint64_t> widen(Pack<uint32_t> a) {
  uint32_t lanes[kLanes];
  uint64_t wide[kLanes];
  a.store(lanes);
  for (int l = 0; l < kLanes; ++l) wide[l] = lanes[l];
  return Pack<uint64_t>::load(wide);
}
PF_HD Pack<double> to_wide(Pack<float> a) {
  Pack<double> wide;
  PF_UNROLL
  for (int k = 0; k < Pack<double>::kRegisters; ++k) {
    wide.r[k] = to_wide_register(a.r[k / 2], k % 2 == 1);
  }
  return wide;
}
PF_HD Pack<double> to_wide(Pack<double> a) { return a; }

template <class T>
struct Traits<Pack<T>> {
  using Scalar = T;
  using Word = Pack<uint32_t>;
  using Bits = Pack<typename Traits<T>::Bits>;
  using Mask = MaskOf<T>;
  using Wide = Pack<double>;
};

#endif  // !PF_CUDA

}  // namespace pf::PF_BACKEND
