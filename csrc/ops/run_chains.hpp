// SPDX-License-Identifier: Apache-2.0
// Many steps of a Markov kernel on a native target in one call: the state stays in registers, draws
// and streaming statistics are taken on the way. A Move is the kernel:
//
//   kRows                      rows of coordinates that it needs; row 0 is the state
//   more_bytes_per_dim(p)      a coordinate's scratch beyond these rows, if there is any
//   value(wanted)              the log-density at the state before a step, if wanted
//   step(k, wanted)            takes step k; the chains whose state is left out of the statistics
//   finish()                   puts back what it keeps in memory beside the state
#pragma once

#include "backend/backend.hpp"
#include "kernels/metropolis.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {

// What a step leaves out of the statistics where every state counts.
struct Nobody {};

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

// The streaming sums of one tile. Where scratch is scarce it has the sums of the open group, and
// what is only touched when a group ends stays in memory. Where it is not, it has all sums from
// the start of a call to its end, and the states of some steps wait there and are added together,
// in order: reading and writing the sums costs more than the additions.
template <class T, class D>
class TileMoments {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  using Mask = typename Traits<Real>::Mask;
  using Wide = typename Traits<Real>::Wide;

 public:
  static PF_HD int64_t bytes(D dim) {
    return dim * (kWides * int64_t{sizeof(Wide)} + (3 + n_waiting(dim)) * int64_t{sizeof(Real)});
  }

  PF_HD TileMoments(const Moments& moments, int64_t steps_done, int64_t n_steps, const Tile& tile,
                    D dim)
      : moments_(moments),
        group_(moments.open != nullptr ? kStepGroup : 1),
        until_added_(group_ - steps_done % group_),
        until_closed_(moments.batch > 0 ? moments.batch - steps_done % moments.batch : 0),
        closes_here_(until_closed_ > 0 && until_closed_ <= n_steps),
        was_open_(until_added_ < group_),
        is_open_(was_open_),
        tile_(tile),
        dim_(dim),
        sum_(tile.template array<Wide>(0)),
        squares_(tile.template array<Wide>(dim * sizeof(Wide))),
        sum_at_batch_(tile.template array<Wide>(2 * dim * sizeof(Wide))),
        batch_squares_(tile.template array<Wide>(3 * dim * sizeof(Wide))),
        shift_(tile.template array<Real>(kWides * dim * sizeof(Wide))),
        open_(tile.template array<Real>(dim * (kWides * sizeof(Wide) + sizeof(Real)))),
        open_squares_(tile.template array<Real>(dim * (kWides * sizeof(Wide) + 2 * sizeof(Real)))),
        waiting_(tile.template array<Real>(dim * (kWides * sizeof(Wide) + 3 * sizeof(Real)))) {
    if (!wanted()) return;
    tile.load_rows(static_cast<const T*>(moments.shift), dim, shift_);
    if (was_open_) {
      tile.load_rows(static_cast<const T*>(moments.open), dim, open_);
      tile.load_rows(static_cast<const T*>(moments.open_squares), dim, open_squares_);
    } else if (kWides == 0) {
      dim.each([&](int64_t i) { open_[i] = open_squares_[i] = Real(T(0)); });
    }
    if (kWides == 0) return;
    tile.load_rows(moments.sum, dim, sum_);
    tile.load_rows(moments.sum_of_squares, dim, squares_);
    if (!closes_here_) return;
    tile.load_rows(moments.sum_at_batch, dim, sum_at_batch_);
    tile.load_rows(moments.batch_squares, dim, batch_squares_);
  }
  PF_HD bool wanted() const { return moments_.sum != nullptr; }
  // Takes in the state after a step.
  PF_HD void add(const Real* x, Nobody) {
    if (n_waiting(dim_) > 0) {
      dim_.each([&](int64_t i) { waiting_[n_waits_ * dim_ + i] = x[i]; });
    } else {
      dim_.each([&](int64_t i) { take(i, x[i] - shift_[i]); });
    }
    end_step();
  }
  // The shift itself adds nothing.
  PF_HD void add(const Real* x, Mask left_out) {
    if (n_waiting(dim_) > 0) {
      dim_.each([&](int64_t i) PF_INLINE_LAMBDA {
        waiting_[n_waits_ * dim_ + i] = select(left_out, Real(shift_[i]), x[i]);
      });
    } else {
      dim_.each([&](int64_t i)
                    PF_INLINE_LAMBDA { take(i, select(left_out, Real(T(0)), x[i] - shift_[i])); });
    }
    end_step();
  }
  PF_HD void put_back() {
    if (n_waits_ > 0) add_waiting(false);
    if (was_open_ || until_added_ < group_) {
      if (kWides > 0 && !is_open_) {
        dim_.each([&](int64_t i) { open_[i] = open_squares_[i] = Real(T(0)); });
      }
      tile_.store_rows(static_cast<T*>(moments_.open), dim_, open_);
      tile_.store_rows(static_cast<T*>(moments_.open_squares), dim_, open_squares_);
    }
    if (kWides == 0) return;
    tile_.store_rows(moments_.sum, dim_, sum_);
    tile_.store_rows(moments_.sum_of_squares, dim_, squares_);
    if (!closes_here_) return;
    tile_.store_rows(moments_.sum_at_batch, dim_, sum_at_batch_);
    tile_.store_rows(moments_.batch_squares, dim_, batch_squares_);
  }

 private:
  static constexpr int64_t kWides = Tile::kScratchIsScarce ? 0 : 4;  // sums in scratch
  // States that wait at most: of many coordinates fewer, so that they stay in a near cache.
  static constexpr int64_t kMostWaiting = kStepGroup;
  static PF_HD int64_t n_waiting(D dim) {
    return Tile::kScratchIsScarce ? 0 : dim > 256 ? 4 : kMostWaiting;
  }

  PF_HD void take(int64_t i, Real off) const {
    open_[i] = open_[i] + off;
    open_squares_[i] = fma(off, off, open_squares_[i]);
  }
  PF_HD void end_step() {
    const bool closes = --until_closed_ == 0;
    const bool ends = --until_added_ == 0;
    if (ends) until_added_ = group_;
    if (closes) until_closed_ = moments_.batch;
    if (n_waiting(dim_) == 0) {
      if (ends) add_open();
    } else if (++n_waits_ == n_waiting(dim_) || ends || closes) {
      add_waiting(ends);
    }
    if (closes) close_batch();
  }
  // Adds the sums of the open group, which ends, to those in memory.
  PF_HD void add_open() const {
    const Moments& m = moments_;
    dim_.each([&](int64_t i) PF_INLINE_LAMBDA {
      const Wide sum = tile_.load_column(m.sum, dim_, i) + to_wide(Real(open_[i]));
      const Wide squares =
          tile_.load_column(m.sum_of_squares, dim_, i) + to_wide(Real(open_squares_[i]));
      tile_.template store_column<double>(m.sum, dim_, i, sum);
      tile_.template store_column<double>(m.sum_of_squares, dim_, i, squares);
      open_[i] = open_squares_[i] = Real(T(0));
    });
  }
  // Adds the states that wait to the open group, and that, where it ends, to the sums in scratch.
  PF_HD void add_waiting(bool ends) {
    if (ends && !is_open_) {
      each_with_waiting(false, [&](int64_t i, Real open, Real open_squares) PF_INLINE_LAMBDA {
        sum_[i] = sum_[i] + to_wide(open);
        squares_[i] = squares_[i] + to_wide(open_squares);
      });
    } else {
      each_with_waiting(is_open_, [&](int64_t i, Real open, Real open_squares) PF_INLINE_LAMBDA {
        open_[i] = open;
        open_squares_[i] = open_squares;
        if (!ends) return;
        sum_[i] = sum_[i] + to_wide(open);
        squares_[i] = squares_[i] + to_wide(open_squares);
      });
    }
    n_waits_ = 0;
    is_open_ = !ends;
  }
  // body(i, sums of the open group with the states that wait), which begins with what is in scratch
  // or anew.
  template <class Body>
  PF_HD void each_with_waiting(bool is_open, const Body& body) const {
    const int64_t n_waits =
        n_waits_ < kMostWaiting ? n_waits_ : kMostWaiting;  // which GCC must see
    dim_.each([&](int64_t i) PF_INLINE_LAMBDA {
      Real open = is_open ? Real(open_[i]) : Real(T(0));
      Real open_squares = is_open ? Real(open_squares_[i]) : Real(T(0));
      const Real shift = shift_[i];
      for (int64_t n = 0; n < n_waits; ++n) {
        const Real off = waiting_[n * dim_ + i] - shift;
        open = open + off;
        open_squares = fma(off, off, open_squares);
      }
      body(i, open, open_squares);
    });
  }
  PF_HD void close_batch() const {
    const Moments& m = moments_;
    const bool is_open = kWides == 0 || is_open_;
    dim_.each([&](int64_t i) PF_INLINE_LAMBDA {
      const Wide open = to_wide(is_open ? Real(open_[i]) : Real(T(0)));
      if (kWides > 0) {
        const Wide sum = sum_[i] + open, grown = sum - sum_at_batch_[i];
        batch_squares_[i] = batch_squares_[i] + grown * grown;
        sum_at_batch_[i] = sum;
      } else {
        const Wide sum = tile_.load_column(m.sum, dim_, i) + open;
        const Wide grown = sum - tile_.load_column(m.sum_at_batch, dim_, i);
        const Wide batches = tile_.load_column(m.batch_squares, dim_, i) + grown * grown;
        tile_.template store_column<double>(m.batch_squares, dim_, i, batches);
        tile_.template store_column<double>(m.sum_at_batch, dim_, i, sum);
      }
    });
  }

  Moments moments_;
  int64_t group_, until_added_;  // steps of a group, and to the end of the open one
  int64_t until_closed_;         // steps to the end of the batch; never 0 where there are none
  int64_t n_waits_ = 0;
  bool closes_here_;  // a batch
  bool was_open_;     // a group, when the call began
  bool is_open_;      // where states wait: whether a group has sums in scratch
  const Tile& tile_;
  D dim_;
  typename Tile::template Array<Wide> sum_, squares_, sum_at_batch_, batch_squares_;
  typename Tile::template Array<Real> shift_, open_, open_squares_, waiting_;
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
      const auto left_out = kernel.step(k, kept && log_density != nullptr);
      if (moments.wanted()) moments.add(rows[0], left_out);
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
