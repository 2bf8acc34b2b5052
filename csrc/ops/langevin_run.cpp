// SPDX-License-Identifier: Apache-2.0
// Many Langevin steps of a native target in one call: the state stays in registers.
#include "backend/backend.hpp"
#include "kernels/langevin.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T, class Target, int kDim>
void run(const LangevinRunParams& p, const Target& target, Dim<kDim> d) {
  using Real = typename ChainTile<T>::Real;
  using Wide = typename Traits<Real>::Wide;
  const int64_t dim = d;
  const bool moments = p.moments.sum != nullptr;
  const int64_t wide = static_cast<int64_t>(sizeof(Wide) / sizeof(Real));
  const int64_t scratch =
      dim * (PointArrays<Real, kDim>::kScratchPerDim + (moments ? 3 * wide : 0));
  const double cost = 2.0 * static_cast<double>(p.n_chains) * static_cast<double>(p.n_steps * dim);

  for_each_chain<T>(p.n_chains, scratch, p.n_threads, cost, [&](const ChainTile<T>& tile) {
    PointArrays<Real, kDim> point(tile.scratch, dim);
    Real *x = point.x, *score = point.score, *proposed = point.proposed;
    Wide* shift = reinterpret_cast<Wide*>(reinterpret_cast<Real*>(tile.scratch) +
                                          dim * PointArrays<Real, kDim>::kScratchPerDim);
    Wide *sum = shift + dim, *sum_of_squares = sum + dim;

    T* rows = static_cast<T*>(p.x);
    tile.load_rows(rows, dim, x);
    if (moments) {
      tile.load_rows(static_cast<const T*>(p.moments.shift), dim, proposed);
      for (int64_t i = 0; i < dim; ++i) shift[i] = to_wide(proposed[i]);
      tile.load_rows(p.moments.sum, dim, sum);
      tile.load_rows(p.moments.sum_of_squares, dim, sum_of_squares);
    }
    const Real step_size = tile.load(p.step_size);
    const Real noise_scale = langevin_noise_scale(step_size, tile.load(p.beta));
    auto noise = tile.normals(p.noise, static_cast<uint64_t>(p.n_steps * dim));
    T* draws = static_cast<T*>(p.draws);
    T* log_density = static_cast<T*>(p.log_density);
    int64_t until_kept = p.thin - p.steps_done % p.thin;
    bool owed = false;  // the last state was kept and its log-density is still to be written

    for (int64_t k = 0;; ++k) {
      if (k == p.n_steps && !owed) break;
      const Real value = evaluate_at(target, point, d, owed);
      if (owed) {
        tile.store(log_density, value);
        log_density += p.n_chains;
        owed = false;
      }
      if (k == p.n_steps) break;
      Real finite = Real(T(0));  // turns NaN with the first coordinate that is not finite
      for (int64_t i = 0; i < dim; ++i) {
        proposed[i] = langevin_move(x[i], score[i], step_size, noise_scale, noise.next());
        finite = fma(proposed[i], Real(T(0)), finite);
      }
      const auto refused = finite != finite;
      Wide weight = Wide(1.0);
      if (any(refused)) {
        tile.count_where(refused, p.n_nonfinite);
        for (int64_t i = 0; i < dim; ++i) x[i] = select(refused, x[i], proposed[i]);
        weight = to_wide(select(refused, Real(T(0)), Real(T(1))));
      } else {
        for (int64_t i = 0; i < dim; ++i) x[i] = proposed[i];
      }
      if (moments) {
        for (int64_t i = 0; i < dim; ++i) {
          const Wide off = (to_wide(x[i]) - shift[i]) * weight;
          sum[i] = sum[i] + off;
          sum_of_squares[i] = fma(off, off, sum_of_squares[i]);
        }
      }
      if (--until_kept == 0) {
        until_kept = p.thin;
        if (draws != nullptr) {
          tile.store_rows(draws, dim, x);
          draws += p.n_chains * dim;
          owed = log_density != nullptr;
        }
      }
    }
    tile.store_rows(rows, dim, x);
    if (moments) {
      tile.store_rows(p.moments.sum, dim, sum);
      tile.store_rows(p.moments.sum_of_squares, dim, sum_of_squares);
    }
  });
}

}  // namespace

void langevin_run(const LangevinRunParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_target<T>(p.target, [&](const auto& target, auto dim) { run<T>(p, target, dim); });
  });
}

}  // namespace pf::PF_BACKEND
