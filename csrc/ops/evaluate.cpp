// SPDX-License-Identifier: Apache-2.0
// The log-density and the score of a native target at given points.
#include "backend/backend.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T, class Target, int kDim>
struct Evaluate {
  using Tile = ChainTile<T>;
  using Arrays = PointArrays<typename Tile::Real, kDim>;
  EvaluateParams p;
  Target target;
  Dim<kDim> dim;

  PF_HD void operator()(const Tile& tile) const {
    Arrays point(tile.scratch, dim);
    tile.load_rows(static_cast<const T*>(p.x), dim, point.x);
    const auto value = evaluate_at(target, point, dim, p.log_density != nullptr);
    if (p.log_density != nullptr) tile.store(static_cast<T*>(p.log_density), value);
    if (p.score != nullptr) tile.store_rows(static_cast<T*>(p.score), dim, point.score);
  }
};

}  // namespace

void evaluate(const EvaluateParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_target<T>(p.target, [&](const auto& target, auto dim) {
      using Op = Evaluate<T, value_type<decltype(target)>, decltype(dim)::kValue>;
      const double cost = 2.0 * static_cast<double>(p.n_chains) * static_cast<double>(dim);
      for_each_chain<T>(p.n_chains, dim * Op::Arrays::kBytesPerDim, p.n_threads, cost,
                        Op{p, target, dim});
    });
  });
}

}  // namespace pf::PF_BACKEND
