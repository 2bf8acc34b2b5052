// SPDX-License-Identifier: Apache-2.0
// Many Langevin steps of a native target in one call: the state stays in registers.
#include "backend/backend.hpp"
#include "kernels/langevin.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

// The streaming sums of one tile, taken from memory at the start and put back at the end.
template <class T, class D>
class TileMoments {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  using Wide = typename Traits<Real>::Wide;

 public:
  static constexpr int64_t kBytesPerDim = 3 * sizeof(Wide);

  PF_HD TileMoments(const Moments& moments, const Tile& tile, D dim, Real* spare)
      : moments_(moments),
        dim_(dim),
        shift_(tile.template array<Wide>(0)),
        sum_(tile.template array<Wide>(dim * kBytesPerDim / 3)),
        squares_(tile.template array<Wide>(dim * kBytesPerDim / 3 * 2)) {
    if (!wanted()) return;
    tile.load_rows(static_cast<const T*>(moments.shift), dim, spare);
    dim.each([&](int64_t i) { shift_[i] = to_wide(spare[i]); });
    tile.load_rows(moments.sum, dim, sum_);
    tile.load_rows(moments.sum_of_squares, dim, squares_);
  }
  PF_HD bool wanted() const { return moments_.sum != nullptr; }
  // weight: 1 for the chains that moved, 0 for the others
  PF_HD void add(const Real* x, Wide weight) const {
    dim_.each([&](int64_t i) {
      const Wide off = (to_wide(x[i]) - shift_[i]) * weight;
      sum_[i] = sum_[i] + off;
      squares_[i] = fma(off, off, squares_[i]);
    });
  }
  PF_HD void put_back(const Tile& tile) const {
    tile.store_rows(moments_.sum, dim_, sum_);
    tile.store_rows(moments_.sum_of_squares, dim_, squares_);
  }

 private:
  Moments moments_;
  D dim_;
  typename Tile::template Array<Wide> shift_, sum_, squares_;
};

template <class T, class Target, class D>
struct RunChains {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  using Wide = typename Traits<Real>::Wide;
  using Arrays = PointArrays<Real, D>;
  LangevinRunParams p;
  Target target;
  D dim;

  PF_HD int64_t moment_bytes() const {
    return p.moments.sum != nullptr ? dim * TileMoments<T, D>::kBytesPerDim : 0;
  }
  int64_t scratch_bytes() const { return moment_bytes() + dim * Arrays::kBytesPerDim; }

  PF_HD void operator()(const Tile& tile) const {
    Arrays point(reinterpret_cast<Real*>(tile.scratch + moment_bytes()), dim);
    Real *x = point.x, *score = point.score, *proposed = point.proposed;
    const TileMoments<T, D> moments(p.moments, tile, dim, proposed);

    tile.load_rows(static_cast<const T*>(p.x), dim, x);
    const Real step_size = tile.load(p.step_size);
    const Real noise_scale = langevin_noise_scale(step_size, tile.load(p.beta));
    auto noise = tile.normals(p.noise, dim, static_cast<uint64_t>(p.n_steps * dim), point.noise);
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
      noise.begin_step(dim);
      dim.each([&](int64_t i) {
        proposed[i] = langevin_move(x[i], score[i], step_size, noise_scale, noise.at(i));
        finite = fma(proposed[i], Real(T(0)), finite);
      });
      const Wide moved = take(tile, dim.of_chain(finite != finite), point);
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
      dim.each([&](int64_t i) { point.x[i] = select(refused, point.x[i], point.proposed[i]); });
      return to_wide(select(refused, Real(T(0)), Real(T(1))));
    }
    dim.each([&](int64_t i) { point.x[i] = point.proposed[i]; });
    return Wide(1.0);
  }
};

}  // namespace

void langevin_run(const LangevinRunParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_target<T>(p.target, [&](const auto& target, auto dim) {
      using D = decltype(dim);
      using Run = RunChains<T, value_type<decltype(target)>, D>;
      const Run run{p, target, dim};
      const double cost =
          2.0 * static_cast<double>(p.n_chains) * static_cast<double>(p.n_steps * dim);
      for_each_chain<T, D>(p.n_chains, run.scratch_bytes(), p.place, cost, run);
    });
  });
}

}  // namespace pf::PF_BACKEND
