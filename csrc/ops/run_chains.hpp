// SPDX-License-Identifier: Apache-2.0
// Many steps of a Markov kernel on a native target in one call: the state stays in registers, draws
// and streaming statistics are taken on the way. A Move is the kernel:
//
//   kRows                      rows of coordinates that it needs; row 0 is the state, and row 1
//                              keeps nothing from step to step
//   more_bytes_per_dim(p)      a coordinate's scratch beyond these rows, if there is any
//   value(wanted)              the log-density at the state before a step, if wanted
//   step(k, wanted)            takes step k; the chains whose state is left out of the statistics.
//                              Its state goes to row 1 and rows.advance() then makes that row 0;
//                              or row 0 changes in place
//   finish()                   puts back what it keeps in memory beside the state
#pragma once

#include "backend/backend.hpp"
#include "kernels/metropolis.hpp"
#include "ops/ops.hpp"
#include "ops/tile_moments.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {

// Evaluations of a move: of the state before the first step, then of every proposal. Kernels for
// any number of coordinates do the first in the loop of the others, so that they have the code of
// all targets once, which takes the compiler longest; the others do it before, with start().
template <class D>
class Evaluations {
 public:
  // evaluate(true) is of the state, and goes to `value`.
  template <class Real, class Evaluate>
  PF_HD void start(Real& value, const Evaluate& evaluate) {
    if constexpr (D::kKnown) value = evaluate(true);
  }
  // evaluate(false), after propose().
  template <class Real, class Propose, class Evaluate>
  PF_HD Real next(Real& value, const Propose& propose, const Evaluate& evaluate) {
    if constexpr (D::kKnown) {
      propose();
      return evaluate(false);
    } else {
      for (;;) {
        if (begun_) propose();
        const Real found = evaluate(!begun_);
        if (begun_) return found;
        begun_ = true;
        value = found;
      }
    }
  }

 private:
  bool begun_ = false;
};

// The acceptance probabilities of one tile.
template <class T, class D>
class TileAcceptance {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  using Wide = typename Traits<Real>::Wide;

 public:
  PF_HD void load(const Tallies& tallies, const Tile& tile) {
    sum_ = tile.load_values(static_cast<const double*>(tallies.accepted));
    squares_ = tile.load_values(static_cast<const double*>(tallies.accepted_squares));
  }
  PF_HD void add(Real probability) {
    const Wide p = to_wide(probability);
    sum_ = sum_ + p;
    squares_ = fma(p, p, squares_);
  }
  PF_HD void store(const Tallies& tallies, const Tile& tile) const {
    tile.store(tallies.accepted, sum_);
    tile.store(tallies.accepted_squares, squares_);
  }

 private:
  Wide sum_, squares_;
};

// Judges the proposals of one tile and counts what becomes of them.
template <class T, class D>
class TileJudge {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  using Mask = typename Traits<Real>::Mask;

 public:
  PF_HD TileJudge(const RunParams& p, const Tile& tile, D dim)
      : tallies_(p.tallies), tile_(tile), dim_(dim), uniforms_(tile.uniforms(p.accept, p.n_steps)) {
    acceptance_.load(tallies_, tile);
  }
  // The chains whose proposal of the next step is refused.
  PF_HD Mask refused(Real log_ratio) {
    uniforms_.begin_step(Dim<1>{1});
    const auto verdict = judge(log_ratio, uniforms_.at(0));
    const auto nonfinite = dim_.of_chain(verdict.nonfinite);
    if (any(nonfinite)) tile_.count_where(nonfinite, tallies_.n_nonfinite);
    acceptance_.add(verdict.probability);
    return verdict.refused;
  }
  PF_HD void finish() const { acceptance_.store(tallies_, tile_); }

 private:
  const Tallies& tallies_;
  const Tile& tile_;
  D dim_;
  typename Tile::Uniforms uniforms_;
  TileAcceptance<T, D> acceptance_;
};

template <class T, class D>
PF_HD int64_t moment_bytes(const RunParams& p, D dim) {
  return p.moments.sum != nullptr ? TileMoments<T, D>::bytes(dim) : 0;
}
template <class Kernel>
static auto more_bytes_per_dim(const RunParams& p, int) -> decltype(Kernel::more_bytes_per_dim(p)) {
  return Kernel::more_bytes_per_dim(p);
}
template <class Kernel>
static int64_t more_bytes_per_dim(const RunParams&, ...) {
  return 0;
}

template <template <class, class, class> class Move, class T, class Target, class D>
struct RunChains {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  using Kernel = Move<T, Target, D>;
  using Chain = Rows<Real, D, Kernel::kRows>;
  RunParams p;
  Target target;
  D dim;

  int64_t scratch_bytes() const {
    return moment_bytes<T>(p, dim) + dim * (Chain::kBytesPerDim + more_bytes_per_dim<Kernel>(p, 0));
  }

  PF_HD void operator()(const Tile& tile) const {
    Chain rows(reinterpret_cast<Real*>(tile.scratch + moment_bytes<T>(p, dim)), dim);
    TileMoments<T, D> moments(p.moments, p.steps_done, p.n_steps, tile, dim);
    tile.load_rows(static_cast<const T*>(p.x), dim, rows[0]);
    Kernel kernel(p, target, tile, dim, rows);
    T* draws = static_cast<T*>(p.draws);
    T* log_density = static_cast<T*>(p.log_density);
    int64_t until_kept = p.thin - p.steps_done % p.thin;
    bool owed = false;  // the last state was kept and its log-density is still to be written

    for (int64_t k = 0;; ++k) {
      if (k == p.n_steps && !owed) break;
      const Real value = kernel.value(owed);
      if (owed) {
        tile.store(log_density, value);
        log_density += p.n_chains;
        owed = false;
      }
      if (k == p.n_steps) break;
      const bool kept = --until_kept == 0;
      if (moments.wanted()) moments.make_room(rows);
      const auto left_out = kernel.step(k, kept && log_density != nullptr);
      if (moments.wanted()) moments.add(rows, left_out);
      if (kept) {
        until_kept = p.thin;
        if (draws != nullptr) {
          tile.store_rows(draws, dim, rows[0]);
          draws += p.n_chains * dim;
          owed = log_density != nullptr;
        }
      }
    }
    tile.store_rows(static_cast<T*>(p.x), dim, rows[0]);
    kernel.finish();
    if (moments.wanted()) moments.put_back();
  }
};

template <template <class, class, class> class Move, int kLargestOwn>
static void run_chains(const RunParams& p, double steps_cost) {
  with_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_target<T, kLargestOwn>(p.target, [&](const auto& target, auto dim) {
      using D = decltype(dim);
      using Run = RunChains<Move, T, value_type<decltype(target)>, D>;
      const Run run{p, target, dim};
      const double cost =
          2.0 * steps_cost * static_cast<double>(p.n_chains) * static_cast<double>(p.n_steps * dim);
      for_each_chain<T, D>(p.n_chains, run.scratch_bytes(), p.place, cost, run);
    });
  });
}

}  // namespace pf::PF_BACKEND
