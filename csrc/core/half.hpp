// SPDX-License-Identifier: Apache-2.0
// Two-byte numbers as storage: kernels compute in float, and round to nearest even on the way out.
// Written in integers, so that every backend rounds alike.
#pragma once

#include "core/pack.hpp"

namespace pf::PF_BACKEND {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

PF_HD float widened(float x) { return x; }
PF_HD double widened(double x) { return x; }
PF_HD float widened(BFloat16 x) { return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
PF_HD float widened(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t rest = x.bits & 0x7fffu;
  // The exponent is moved by a multiplication, which also normalises subnormals.
  const float scaled = bit_cast<float>(rest << 13) * 0x1p112f;
  const uint32_t magnitude =
      rest >= 0x7c00u ? rest << 13 | 0x7f800000u : bit_cast<uint32_t>(scaled);
  return bit_cast<float>(sign | magnitude);
}

template <class S>
struct Narrow;
template <>
struct Narrow<float> {
  static PF_HD float from(float x) { return x; }
};
template <>
struct Narrow<double> {
  static PF_HD double from(double x) { return x; }
};
template <>
struct Narrow<BFloat16> {
  static PF_HD BFloat16 from(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return {static_cast<uint16_t>(x != x ? 0x7fc0u : rounded)};
  }
};
template <>
struct Narrow<Float16> {
  static PF_HD Float16 from(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x), sign = bits >> 16 & 0x8000u;
    const uint32_t rest = bits & 0x7fffffffu;
    // Below 2^-14 the addition of 1/2 rounds to the spacing 2^-24 of the subnormals.
    const uint32_t small = bit_cast<uint32_t>(bit_cast<float>(rest) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1u)) >> 13;
    const uint32_t finite = rest < 0x38800000u ? small : normal;
    const uint32_t magnitude = rest > 0x7f800000u    ? 0x7e00u
                               : rest >= 0x477ff000u ? 0x7c00u
                                                     : finite;
    return {static_cast<uint16_t>(sign | magnitude)};
  }
};

}  // namespace pf::PF_BACKEND
