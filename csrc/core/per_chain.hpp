// SPDX-License-Identifier: Apache-2.0
// Reading what may lie in memory or in the parameters: coefficients, where noise starts.
#pragma once

#include "core/config.hpp"
#include "core/view.hpp"

namespace pf::PF_BACKEND {

template <class T>
PF_HD T value_of(const PerChain& p, int64_t chain) {
  return p.data != nullptr ? static_cast<const T*>(p.data)[chain * p.stride]
                           : static_cast<T>(p.number);
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
