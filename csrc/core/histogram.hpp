// SPDX-License-Identifier: Apache-2.0
// Bins that widen with the distance from a centre, and an order of floating-point numbers as
// integers.
#pragma once

#include "core/pack.hpp"
#include "core/view.hpp"

namespace pf::PF_BACKEND {

// The bin of a value t = (x - centre) / scale. With u = 1 + |t|, every doubling of u is cut into 32
// bins of equal width, which are the leading bits of u; what is further out than the outermost bin,
// beyond 2^32 scales, belongs to it.
PF_HD int sketch_bin(double t) {
  constexpr int kBits = 5, kSide = kSketchBins / 2;
  const double size = t < 0.0 ? -t : t;
  const uint64_t leading = bit_cast<uint64_t>(1.0 + size) >> (52 - kBits);
  const int64_t steps = static_cast<int64_t>(leading) - (int64_t{1023} << kBits);
  const int64_t out = steps < kSide ? steps : kSide - 1;
  return static_cast<int>(t < 0.0 ? kSide - 1 - out : kSide + out);
}

// Smaller numbers have smaller integers.
PF_HD int64_t in_order(double x) {
  const int64_t bits = bit_cast<int64_t>(x);
  return bits < 0 ? bits ^ INT64_MAX : bits;
}

}  // namespace pf::PF_BACKEND
