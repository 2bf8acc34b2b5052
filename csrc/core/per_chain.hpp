// SPDX-License-Identifier: Apache-2.0
// Reading what may lie in memory or in the parameters: coefficients, where noise starts; rows.
#pragma once

#include "core/config.hpp"
#include "core/view.hpp"

namespace pf::PF_BACKEND {

template <class T>
PF_HD T value_of(const PerChain& p, int64_t chain) {
  return p.data != nullptr ? static_cast<const T*>(p.data)[chain * p.stride]
                           : static_cast<T>(p.number);
}

// i / width, by a short division where all of n such numbers i have 32 bits.
PF_HD int64_t row_of(int64_t i, int64_t width, int64_t n) {
  const bool is_short = n <= INT64_C(0xffffffff);
  return is_short ? static_cast<uint32_t>(i) / static_cast<uint32_t>(width) : i / width;
}

// With the seed and the start that it points to.
PF_HD NoiseSource resolved(NoiseSource noise) {
  if (noise.seed_at != nullptr) noise.seed = static_cast<uint64_t>(*noise.seed_at);
  if (noise.step_at != nullptr) {
    noise.start = static_cast<uint64_t>(*noise.step_at) * static_cast<uint64_t>(noise.per_step);
  }
  return noise;
}

}  // namespace pf::PF_BACKEND
