// SPDX-License-Identifier: Apache-2.0
// The log-density and the score of a native target at given points.
#include "backend/backend.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

constexpr int kLargestOwn = 16;

template <class T, class Target, class D>
struct Evaluate {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  enum { kX, kScore, kWork, kRows = kWork + 2 };
  using Point = Rows<Real, D, kRows>;
  EvaluateParams p;
  Target target;
  D dim;

  PF_HD void operator()(const Tile& tile) const {
    Point rows(reinterpret_cast<Real*>(tile.scratch), dim);
    tile.load_rows(static_cast<const T*>(p.x), dim, rows[kX]);
    const auto value =
        evaluate_at(target, rows[kX], rows[kScore], rows[kWork], dim, p.log_density != nullptr);
    if (p.log_density != nullptr) tile.store(static_cast<T*>(p.log_density), value);
    if (p.score != nullptr) tile.store_rows(static_cast<T*>(p.score), dim, rows[kScore]);
  }
};

}  // namespace

void evaluate(const EvaluateParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_target<T, kLargestOwn>(p.target, [&](const auto& target, auto dim) {
      using D = decltype(dim);
      using Op = Evaluate<T, value_type<decltype(target)>, D>;
      const double cost = 2.0 * static_cast<double>(p.n_chains) * static_cast<double>(dim);
      for_each_chain<T, D>(p.n_chains, dim * Op::Point::kBytesPerDim, p.place, cost,
                           Op{p, target, dim});
    });
  });
}

}  // namespace pf::PF_BACKEND
