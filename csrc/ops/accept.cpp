// SPDX-License-Identifier: Apache-2.0
// Accepting or refusing proposals on a target that torch has evaluated.
#include "backend/backend.hpp"
#include "kernels/metropolis.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

// The rows of one tile's chains as they lie in memory, a coordinate at a time.
template <class U, class Tile, class D>
struct Columns {
  const Tile& tile;
  U* rows;
  D dim;
  PF_HD auto operator[](int64_t i) const { return tile.load_column(rows, dim, i); }
  template <class Value>
  PF_HD void put(int64_t i, const Value& value) const {
    tile.store_column(rows, dim, i, value);
  }
};

template <class T, class D>
struct AcceptChains {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  AcceptParams p;
  D dim;

  int64_t scratch_bytes() const {
    const bool used = kHasScratch && p.langevin && dim <= kMostInScratch;
    return used ? 4 * dim * int64_t{sizeof(Real)} : 0;
  }

  PF_HD void operator()(const Tile& tile) const {
    T* values = static_cast<T*>(p.log_density);
    const Real value = tile.load_values(values);
    const Real next_value = tile.load_values(static_cast<const T*>(p.proposed_log_density));
    const auto x = columns<T>(tile, p.x), y = columns<T>(tile, const_cast<void*>(p.proposed));
    const auto score = columns<T>(tile, p.score);
    const auto next_score = columns<T>(tile, const_cast<void*>(p.proposed_score));

    const Real beta = tile.load(p.beta);
    Real correction = Real(T(0));
    if (p.langevin) {
      correction = asymmetry(tile, x, y, score, next_score, tile.load(p.step_size), beta);
    } else if (p.correction != nullptr) {
      correction = tile.load_values(static_cast<const T*>(p.correction));
    }
    auto uniforms = tile.uniforms(p.accept, 1);
    uniforms.begin_step(Dim<1>{1});
    const auto verdict = judge(fma(beta, next_value - value, correction), uniforms.at(0));
    if (any(verdict.nonfinite)) tile.count_where(verdict.nonfinite, p.tallies.n_nonfinite);
    const auto probability = to_wide(verdict.probability);
    tile.store(p.tallies.accepted, tile.load_values(p.tallies.accepted) + probability);
    tile.store(p.tallies.accepted_squares,
               fma(probability, probability, tile.load_values(p.tallies.accepted_squares)));
    dim.sync();
    tile.copy_rows_unless(verdict.refused, x.rows, y.rows, dim);
    if (p.score != nullptr) {
      tile.copy_rows_unless(verdict.refused, score.rows, next_score.rows, dim);
    }
    tile.store(values, select(verdict.refused, value, next_value));
    if (p.taken != nullptr) tile.mark_unless(verdict.refused, p.taken);
    if (p.kept != nullptr) {
      tile.copy_rows_unless(verdict.refused, static_cast<T*>(p.kept), y.rows, dim);
    }
    if (p.moments.sum != nullptr) add_to_moments(tile, x);
  }

 private:
  // Rows with no kernel of their own become packs as a whole, unless they are very long.
  static constexpr bool kHasScratch = !Tile::kScratchIsScarce && !D::kKnown;
  static constexpr int64_t kMostInScratch = 1024;

  template <class U>
  PF_HD Columns<U, Tile, D> columns(const Tile& tile, void* rows) const {
    return {tile, static_cast<U*>(rows), dim};
  }
  template <class X>
  PF_HD Real asymmetry(const Tile& tile, const X& x, const X& y, const X& score,
                       const X& next_score, Real step_size, Real beta) const {
    if constexpr (kHasScratch) {
      if (dim <= kMostInScratch) {
        Real* const in = tile.template array<Real>(0);
        const X* const given[] = {&x, &y, &score, &next_score};
        for (int k = 0; k < 4; ++k) tile.load_rows(given[k]->rows, dim, in + k * dim);
        return langevin_asymmetry<Real>(dim, in, in + dim, in + 2 * dim, in + 3 * dim, step_size,
                                        beta);
      }
    }
    return langevin_asymmetry<Real>(dim, x, y, score, next_score, step_size, beta);
  }
  template <class X>
  PF_HD void add_to_moments(const Tile& tile, const X& x) const {
    const auto shift = columns<T>(tile, const_cast<void*>(p.moments.shift));
    const auto sum = columns<double>(tile, p.moments.sum);
    const auto squares = columns<double>(tile, p.moments.sum_of_squares);
    dim.each([&](int64_t i) {
      const auto off = to_wide(x[i]) - to_wide(shift[i]);
      sum.put(i, sum[i] + off);
      squares.put(i, fma(off, off, squares[i]));
    });
  }
};

}  // namespace

void accept(const AcceptParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    const double cost = static_cast<double>(p.n_chains) * (20 + 2.0 * static_cast<double>(p.dim));
    with_dim<T, 8>(p.dim, [&](auto dim) {
      using D = decltype(dim);
      const AcceptChains<T, D> body{p, dim};
      for_each_chain<T, D>(p.n_chains, body.scratch_bytes(), p.place, cost, body);
    });
  });
}

}  // namespace pf::PF_BACKEND
