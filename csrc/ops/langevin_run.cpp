// SPDX-License-Identifier: Apache-2.0
// Many Langevin steps of a native target in one call: the state stays in registers.
#include "backend/backend.hpp"
#include "kernels/langevin.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

// The streaming sums of one tile, taken from memory at the start and put back at the end.
template <class T>
class TileMoments {
  using Tile = ChainTile<T>;
  using Real = typename Tile::Real;
  using Wide = typename Traits<Real>::Wide;

 public:
  static constexpr int64_t kBytesPerDim = 3 * sizeof(Wide);

  PF_HD TileMoments(const Moments& moments, const Tile& tile, int64_t dim, Real* spare)
      : moments_(moments), dim_(dim), shift_(reinterpret_cast<Wide*>(tile.scratch)) {
    if (!wanted()) return;
    tile.load_rows(static_cast<const T*>(moments.shift), dim, spare);
    for (int64_t i = 0; i < dim; ++i) shift_[i] = to_wide(spare[i]);
    tile.load_rows(moments.sum, dim, sum());
    tile.load_rows(moments.sum_of_squares, dim, squares());
  }
  PF_HD bool wanted() const { return moments_.sum != nullptr; }
  // weight: 1 for the chains that moved, 0 for the others
  PF_HD void add(const Real* x, Wide weight) const {
    for (int64_t i = 0; i < dim_; ++i) {
      const Wide off = (to_wide(x[i]) - shift_[i]) * weight;
      sum()[i] = sum()[i] + off;
      squares()[i] = fma(off, off, squares()[i]);
    }
  }
  PF_HD void put_back(const Tile& tile) const {
    tile.store_rows(moments_.sum, dim_, sum());
    tile.store_rows(moments_.sum_of_squares, dim_, squares());
  }

 private:
  PF_HD Wide* sum() const { return shift_ + dim_; }
  PF_HD Wide* squares() const { return shift_ + 2 * dim_; }

  Moments moments_;
  int64_t dim_;
  Wide* shift_;
};

template <class T, class Target, int kDim>
struct RunChains {
  using Tile = ChainTile<T>;
  using Real = typename Tile::Real;
  using Wide = typename Traits<Real>::Wide;
  using Arrays = PointArrays<Real, kDim>;
  LangevinRunParams p;
  Target target;
  Dim<kDim> dim;

  int64_t scratch_bytes() const {
    const int64_t moments = p.moments.sum != nullptr ? TileMoments<T>::kBytesPerDim : 0;
    return dim * (moments + Arrays::kBytesPerDim);
  }

  PF_HD void operator()(const Tile& tile) const {
    const int64_t after_moments = p.moments.sum != nullptr ? dim * TileMoments<T>::kBytesPerDim : 0;
    Arrays point(tile.scratch + after_moments, dim);
    Real *x = point.x, *score = point.score, *proposed = point.proposed;
    const TileMoments<T> moments(p.moments, tile, dim, proposed);

    tile.load_rows(static_cast<const T*>(p.x), dim, x);
    const Real step_size = tile.load(p.step_size);
    const Real noise_scale = langevin_noise_scale(step_size, tile.load(p.beta));
    auto noise = tile.normals(p.noise, static_cast<uint64_t>(p.n_steps * dim));
    T* draws = static_cast<T*>(p.draws);
    T* log_density = static_cast<T*>(p.log_density);
    int64_t until_kept = p.thin - p.steps_done % p.thin;
    bool owed = false;  // the last state was kept and its log-density is still to be written

    for (int64_t k = 0;; ++k) {
      if (k == p.n_steps && !owed) break;
      const Real value = evaluate_at(target, point, dim, owed);
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
      const Wide moved = take(tile, finite != finite, point);
      if (moments.wanted()) moments.add(x, moved);
      if (--until_kept == 0) {
        until_kept = p.thin;
        if (draws != nullptr) {
          tile.store_rows(draws, dim, x);
          draws += p.n_chains * dim;
          owed = log_density != nullptr;
        }
      }
    }
    tile.store_rows(static_cast<T*>(p.x), dim, x);
    if (moments.wanted()) moments.put_back(tile);
  }

 private:
  // x = proposed except where refused, which is counted; 1 for the chains that moved, else 0.
  PF_HD Wide take(const Tile& tile, typename Traits<Real>::Mask refused, Arrays& point) const {
    if (any(refused)) {
      tile.count_where(refused, p.n_nonfinite);
      for (int64_t i = 0; i < dim; ++i) {
        point.x[i] = select(refused, point.x[i], point.proposed[i]);
      }
      return to_wide(select(refused, Real(T(0)), Real(T(1))));
    }
    for (int64_t i = 0; i < dim; ++i) point.x[i] = point.proposed[i];
    return Wide(1.0);
  }
};

}  // namespace

void langevin_run(const LangevinRunParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_target<T>(p.target, [&](const auto& target, auto dim) {
      using Run = RunChains<T, value_type<decltype(target)>, decltype(dim)::kValue>;
      const Run run{p, target, dim};
      const double cost =
          2.0 * static_cast<double>(p.n_chains) * static_cast<double>(p.n_steps * dim);
      for_each_chain<T>(p.n_chains, run.scratch_bytes(), p.n_threads, cost, run);
    });
  });
}

}  // namespace pf::PF_BACKEND
