// SPDX-License-Identifier: Apache-2.0
// Statistics over the chains of whole states: sums, squares and products, and histograms.
#include "backend/pooled.hpp"

#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

// The sums of the states, one after another.
struct AddStates {
  PooledParams p;
  PF_HD void operator()(int64_t i) const {
    const PooledStates& s = p.states;
    double total = p.total[i];
    for (int64_t k = 0; k < s.n_states; ++k) total += s.sums[k * s.width + i];
    p.total[i] = total;
  }
};

}  // namespace

void pooled(const PooledParams& p) {
  if (p.states.n_states == 0 || p.states.dim == 0) return;
  with_dtype(p.dtype, [&](auto zero) { sum_states<decltype(zero)>(p.states, p.place); });
  const double cost = 1.0 * static_cast<double>(p.states.width * p.states.n_states);
  for_each_row(p.states.width, p.place, cost, AddStates{p});
}

void sketch(const SketchParams& p) {
  if (p.sketch.n == 0 || p.sketch.dim == 0) return;
  with_dtype(p.dtype, [&](auto zero) { count_values<decltype(zero)>(p.sketch, p.place); });
}

}  // namespace pf::PF_BACKEND
