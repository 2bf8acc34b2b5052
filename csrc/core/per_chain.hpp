// SPDX-License-Identifier: Apache-2.0
// Reading a coefficient that is one number for all chains or one a chain.
#pragma once

#include "core/config.hpp"
#include "core/view.hpp"

namespace pf::PF_BACKEND {

template <class T>
PF_HD T value_of(const PerChain& p, int64_t chain) {
  return static_cast<const T*>(p.data)[chain * p.stride];
}

}  // namespace pf::PF_BACKEND
