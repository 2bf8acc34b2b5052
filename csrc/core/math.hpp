// SPDX-License-Identifier: Apache-2.0
// exp, log, log1p, tanh, sincospi for every Real: branch-free, in terms of fma, the same bits on
// every backend. Polynomials are minimax fits made by tools/minimax.py; the largest errors over
// the whole range are measured by tools/measure_ulp.py and stand in docs/numerics.md.
#pragma once

#include "core/pack.hpp"

namespace pf::PF_BACKEND {

template <class Real>
PF_HD Real polynomial(Real, typename Traits<Real>::Scalar c) {
  return Real(c);
}
// c0 + c1 x + c2 x^2 + ... by Horner's rule
template <class Real, class... Coefficients>
PF_HD Real polynomial(Real x, typename Traits<Real>::Scalar c0, Coefficients... rest) {
  return fma(polynomial(x, static_cast<typename Traits<Real>::Scalar>(rest)...), x, Real(c0));
}

// Layout and constants of the two formats.
template <class T>
struct Format;
template <>
struct Format<float> {
  using Bits = uint32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr Bits kBias = 127, kMantissaMask = 0x007fffff, kOne = 0x3f800000;
  static constexpr Bits kSqrtHalf = 0x3f3504f3;
  static constexpr float kRound =
      0x1.8p23f;  // adding it rounds to an integer, kept in the low bits
  static constexpr float kLn2 = 0x1.62e43p-1f, kLog2e = 0x1.715476p+0f;
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kExpMin = -104.0f, kExpMax = 89.0f, kWeightMin = -125.0f;
  static constexpr float kSmallestNormal = 0x1p-126f, kLargest = 0x1.fffffep127f;
  static constexpr float kSubnormalScale = 0x1p25f, kSubnormalShift = 25.0f;
  static constexpr float kPiHigh = 0x1.921fb6p+1f, kPiLow = -0x1.777a5cp-24f;
};
template <>
struct Format<double> {
  using Bits = uint64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr Bits kBias = 1023, kMantissaMask = 0x000fffffffffffff, kOne = 0x3ff0000000000000;
  static constexpr Bits kSqrtHalf = 0x3fe6a09e667f3bcd;
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kLn2 = 0x1.62e42fefa39efp-1, kLog2e = 0x1.71547652b82fep+0;
  static constexpr double kLn2High = 0x1.62e42fefa0000p-1, kLn2Low = 0x1.cf79abc9e3b39p-40;
  static constexpr double kExpMin = -746.0, kExpMax = 710.0, kWeightMin = -1021.0;
  static constexpr double kSmallestNormal = 0x1p-1022, kLargest = 0x1.fffffffffffffp1023;
  static constexpr double kSubnormalScale = 0x1p54, kSubnormalShift = 54.0;
  static constexpr double kPiHigh = 0x1.921fb54442d18p+1, kPiLow = 0x1.1a62633145c07p-53;
};

template <class Real>
PF_HD Real infinity() {
  return Real(static_cast<typename Traits<Real>::Scalar>(__builtin_huge_val()));
}

template <class Real>
PF_HD Real absolute(Real x) {
  using Bits = typename Traits<Real>::Bits;
  using Word = typename Format<typename Traits<Real>::Scalar>::Bits;
  return bit_cast<Real>((bit_cast<Bits>(x) << 1) >> 1 | Word(0));
}
// |magnitude| with the sign of x
template <class Real>
PF_HD Real with_sign_of(Real magnitude, Real x) {
  using Bits = typename Traits<Real>::Bits;
  using Word = typename Format<typename Traits<Real>::Scalar>::Bits;
  const Word sign = Word(1) << (sizeof(Word) * 8 - 1);
  return bit_cast<Real>(bit_cast<Bits>(magnitude) | (bit_cast<Bits>(x) & sign));
}

template <class Real>
PF_HD Real exp_tail(Real r, float) {  // (e^r - 1 - r) / r^2 on |r| <= ln(2)/2
  return polynomial(r, 0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558f2p-5f, 0x1.1239e2p-7f,
                    0x1.6a2438p-10f);
}
template <class Real>
PF_HD Real exp_tail(Real r, double) {
  return polynomial(r, 0x1.0000000000000p-1, 0x1.555555555555bp-3, 0x1.5555555555503p-5,
                    0x1.111111110ec5dp-7, 0x1.6c16c16c304a0p-10, 0x1.a01a01b37e2dbp-13,
                    0x1.a01a01368abf4p-16, 0x1.71ddf020e1138p-19, 0x1.27e5b44eb2c4ap-22,
                    0x1.af6be7c9d00cap-26, 0x1.1e3d21d96be8ep-29);
}

// e^x. x = n ln 2 + r; the scale 2^n is applied in two steps, so that n = 128 and subnormal
// results need no branch.
template <class Real>
PF_HD Real exp(Real x) {
  using T = typename Traits<Real>::Scalar;
  using F = Format<T>;
  using Bits = typename Traits<Real>::Bits;
  const Real clamped = select(x > Real(F::kExpMax), Real(F::kExpMax),
                              select(x < Real(F::kExpMin), Real(F::kExpMin), x));
  const Real shifted = fma(clamped, Real(F::kLog2e), Real(F::kRound));
  const Real n = shifted - Real(F::kRound);
  const Real r = fma(n, Real(-F::kLn2Low), fma(n, Real(-F::kLn2High), clamped));
  const Real value = fma(r * r, exp_tail(r, T(0)), r) + Real(T(1));
  // The low bits of `shifted` are n; halves of n + 2 bias can be shifted into exponents unsigned.
  const Bits biased =
      bit_cast<Bits>(shifted) - (bit_cast<typename F::Bits>(F::kRound) - 2 * F::kBias);
  const Bits first = biased >> 1;
  const Bits second = biased - first;
  return value * bit_cast<Real>(first << F::kMantissaBits) *
         bit_cast<Real>(second << F::kMantissaBits);
}

template <class Real>
PF_HD Real exp2_tail(Real r, float) {  // (2^r - 1) / r on |r| <= 1/2
  return polynomial(r, 0x1.62e43p-1f, 0x1.ebfbdcp-3f, 0x1.c6aee8p-5f, 0x1.3b2d4ep-7f,
                    0x1.5f3e8p-10f, 0x1.41fbaap-13f);
}
template <class Real>
PF_HD Real exp2_tail(Real r, double) {
  return polynomial(r, 0x1.62e42fefa39efp-1, 0x1.ebfbdff82c58fp-3, 0x1.c6b08d704a0cfp-5,
                    0x1.3b2ab6fba4e22p-7, 0x1.5d87fe78a26b0p-10, 0x1.430912f883dc3p-13,
                    0x1.ffcbfc74de77fp-17, 0x1.62c021e2488f4p-20, 0x1.b524dd421d2adp-24,
                    0x1.e4d06ccfd2079p-28, 0x1.ea016e23e824cp-32, 0x1.c2ce5aa556ea7p-36);
}

// 2^x for x <= 0, as a weight beside weights near 1: what is below the smallest normal number stays
// there, which leaves room to add the exponent to the bits of 2^r.
template <class Real>
PF_HD Real exp2_weight(Real x) {
  using T = typename Traits<Real>::Scalar;
  using F = Format<T>;
  using Bits = typename Traits<Real>::Bits;
  const Real clamped = maximum(Real(F::kWeightMin), x);
  const Real shifted = clamped + Real(F::kRound);
  const Real r = clamped - (shifted - Real(F::kRound));
  const Real value = fma(r, exp2_tail(r, T(0)), Real(T(1)));
  return bit_cast<Real>(bit_cast<Bits>(value) + (bit_cast<Bits>(shifted) << F::kMantissaBits));
}

// An integer-valued exponent as a Real: the bits of kRound plus k are kRound + k.
template <class Real>
PF_HD Real from_small_integer(typename Traits<Real>::Bits k) {
  using F = Format<typename Traits<Real>::Scalar>;
  return bit_cast<Real>(k + bit_cast<typename F::Bits>(F::kRound)) - Real(F::kRound);
}

// ln of the mantissa 1 + f in [sqrt(1/2), sqrt(2)), plus `exponent` times ln 2.
template <class Real>
PF_HD Real log_assemble(Real f, Real exponent, float) {
  const Real q = polynomial(f, 0x1.555554p-2f, -0x1.000226p-2f, 0x1.99a008p-3f, -0x1.547244p-3f,
                            0x1.22da18p-3f, -0x1.0d853cp-3f, 0x1.055b82p-3f, -0x1.38b5d4p-4f);
  const Real square = f * f;
  const Real correction = fma(square * f, q, exponent * Real(Format<float>::kLn2Low));
  return fma(exponent, Real(Format<float>::kLn2High), fma(square, Real(-0.5f), correction) + f);
}
template <class Real>
PF_HD Real log_assemble(Real f, Real exponent, double) {
  // 2 atanh(s), s = f / (2 + f): ln(1 + f) = f - f^2/2 + s (f^2/2 + 2 s^2 Q(s^2))
  const Real s = f / (f + Real(2.0));
  const Real z = s * s;
  const Real q = polynomial(z, 0x1.5555555555555p-2, 0x1.9999999999dffp-3, 0x1.249249242b414p-3,
                            0x1.c71c7258fddffp-4, 0x1.745cde358352cp-4, 0x1.3b20ab95a1894p-4,
                            0x1.0f5cc867348c8p-4, 0x1.0f6318029ab1fp-4);
  const Real half_square = f * f * Real(0.5);
  const Real tail = s * fma(z + z, q, half_square);
  const Real correction = fma(exponent, Real(Format<double>::kLn2Low), tail);
  return fma(exponent, Real(Format<double>::kLn2High), f - (half_square - correction));
}

// ln x for positive normal x: the part of log() that Box-Muller needs.
template <class Real>
PF_HD Real log_normal_range(Real x, Real exponent_offset) {
  using T = typename Traits<Real>::Scalar;
  using F = Format<T>;
  using Bits = typename Traits<Real>::Bits;
  using Word = typename F::Bits;
  // Subtracting the bits of sqrt(1/2) leaves floor(log2(x / sqrt(1/2))) in the exponent field;
  // one is added on top so that the field stays unsigned.
  const Bits shifted = bit_cast<Bits>(x) - Word(F::kSqrtHalf - (F::kBias << F::kMantissaBits));
  const Bits exponent = shifted >> F::kMantissaBits;
  const Bits mantissa = (shifted & Word(F::kMantissaMask)) + Word(F::kSqrtHalf);
  const Real f = bit_cast<Real>(mantissa) - Real(T(1));
  const Real e = from_small_integer<Real>(exponent - Word(F::kBias)) - exponent_offset;
  return log_assemble(f, e, T(0));
}

// ln x: NaN below zero, -inf at zero, subnormals included.
template <class Real>
PF_HD Real log(Real x) {
  using T = typename Traits<Real>::Scalar;
  using F = Format<T>;
  const auto subnormal = x < Real(F::kSmallestNormal);
  const Real scaled = select(subnormal, x * Real(F::kSubnormalScale), x);
  const Real value =
      log_normal_range(scaled, select(subnormal, Real(F::kSubnormalShift), Real(T(0))));
  const Real inf = infinity<Real>();
  const Real nan = inf - inf;
  Real result = select(x > Real(F::kLargest), inf, value);
  result = select(x == Real(T(0)), -inf, result);
  result = select(x < Real(T(0)), nan, result);
  return select(x != x, x, result);
}

// ln(1 + x): the rounding error of 1 + x is put back to first order.
template <class Real>
PF_HD Real log1p(Real x) {
  using T = typename Traits<Real>::Scalar;
  using F = Format<T>;
  const Real u = x + Real(T(1));
  // The smaller term of the sum is the one that lost bits.
  const Real lost = select(absolute(x) < Real(T(1)), x - (u - Real(T(1))), Real(T(1)) - (u - x));
  const Real corrected = log(u) + lost / u;
  const Real edge =
      select(u == Real(T(0)), -infinity<Real>(), select(x > Real(F::kLargest), x, corrected));
  return select(x == Real(T(0)), x, edge);
}

template <class Real>
PF_HD Real tanh_tail(Real z, float) {  // (tanh(x)/x - 1) / x^2 in z = x^2, |x| <= 0.625
  return polynomial(z, -0x1.555534p-2f, 0x1.110768p-3f, -0x1.b84448p-5f, 0x1.5256d4p-6f,
                    -0x1.76ac0ap-8f);
}
template <class Real>
PF_HD Real tanh_tail(Real z, double) {
  return polynomial(z, -0x1.5555555555555p-2, 0x1.11111111110d4p-3, -0x1.ba1ba1ba175e4p-5,
                    0x1.664f48818d738p-6, -0x1.226e352b365f0p-7, 0x1.d6d3c5e680a13p-9,
                    -0x1.7da298245d10bp-10, 0x1.354dca56a51bdp-11, -0x1.f4bf2bf9defbbp-13,
                    0x1.91a5c3797f94ep-14, -0x1.335ae16f075c4p-15, 0x1.8c2e7fcebb0c0p-17,
                    -0x1.31939ef4948d0p-19);
}

// tanh x: a polynomial near zero, 1 - 2 / (e^{2|x|} + 1) beyond.
template <class Real>
PF_HD Real tanh(Real x) {
  using T = typename Traits<Real>::Scalar;
  const Real a = absolute(x);
  const Real z = x * x;
  const Real near = fma(x * z, tanh_tail(z, T(0)), x);
  const Real far = Real(T(1)) - Real(T(2)) / (exp(a + a) + Real(T(1)));
  return select(a < Real(T(0.625)), near, with_sign_of(far, x));
}

template <class Real>
struct SinCos {
  Real sin, cos;
};

template <class Real>
PF_HD Real sinpi_tail(Real z, float) {  // (sin(pi r)/r - pi) / r^2 in z = r^2, |r| <= 1/4
  return polynomial(z, -0x1.4abbcep+2f, 0x1.466bbcp+1f, -0x1.32cb24p-1f, 0x1.4be68ep-4f);
}
template <class Real>
PF_HD Real sinpi_tail(Real z, double) {
  return polynomial(z, -0x1.4abbce625be53p+2, 0x1.466bc6775aadbp+1, -0x1.32d2cce62ade5p-1,
                    0x1.50783485eeb6ap-4, -0x1.e3074b7df74d5p-8, 0x1.e8eef00b75d48p-12,
                    -0x1.6c63cbea760aap-16);
}
template <class Real>
PF_HD Real cospi_tail(Real z, float) {  // (cos(pi r) - 1) / r^2
  return polynomial(z, -0x1.3bd3ccp+2f, 0x1.03c1dep+2f, -0x1.55c664p+0f, 0x1.d9f7bcp-3f);
}
template <class Real>
PF_HD Real cospi_tail(Real z, double) {
  return polynomial(z, -0x1.3bd3cc9be45dep+2, 0x1.03c1f081b5ab0p+2, -0x1.55d3c7e3c95bcp+0,
                    0x1.e1f50683b42f7p-3, -0x1.a6d1ecb7420e1p-6, 0x1.f9cc6ad123368p-10,
                    -0x1.b26fe8bafa830p-14);
}

// sin and cos of pi times x for |x| <= 2^21 (double: 2^50): the nearest half-integer is taken off
// exactly, so the error does not grow with x. The value beyond that range is not specified.
template <class Real>
PF_HD SinCos<Real> sincospi(Real x) {
  using T = typename Traits<Real>::Scalar;
  using F = Format<T>;
  using Bits = typename Traits<Real>::Bits;
  using Word = typename F::Bits;
  const Real shifted = fma(x, Real(T(2)), Real(F::kRound));
  const Real r = fma(shifted - Real(F::kRound), Real(T(-0.5)), x);
  const Bits quadrant = bit_cast<Bits>(shifted);
  const Real z = r * r;
  const Real s = fma(r, Real(F::kPiHigh), r * fma(z, sinpi_tail(z, T(0)), Real(F::kPiLow)));
  const Real c = fma(z, cospi_tail(z, T(0)), Real(T(1)));
  const auto odd = (quadrant & Word(1)) != Bits(Word(0));
  constexpr int kSignShift = sizeof(Word) * 8 - 2;
  const Word sign = Word(2) << kSignShift;
  const Bits sin_sign = (quadrant << kSignShift) & sign;
  const Bits cos_sign = ((quadrant + Bits(Word(1))) << kSignShift) & sign;
  SinCos<Real> result;
  result.sin = bit_cast<Real>(bit_cast<Bits>(select(odd, c, s)) ^ sin_sign);
  result.cos = bit_cast<Real>(bit_cast<Bits>(select(odd, s, c)) ^ cos_sign);
  return result;
}

}  // namespace pf::PF_BACKEND
