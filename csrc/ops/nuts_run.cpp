// SPDX-License-Identifier: Apache-2.0
// The no-U-turn sampler on a native target: trajectories that double until they turn back, and a
// state drawn from all points of one with weights exp(-H).
//
// The chains of a tile double together, so that all are at the same leaf of the new half; those
// that have ended stand still. The new half is cut into the aligned blocks of a binary counter:
// before leaf n one block waits for each bit of n that is set.
#include "kernels/hamiltonian.hpp"
#include "kernels/metric.hpp"
#include "kernels/no_u_turn.hpp"
#include "ops/run_chains.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T, class Target, class D>
class NutsMove {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  using Mask = typename Traits<Real>::Mask;
  // The next state, and what is drawn from the new half of the trajectory; its ends, backward and
  // forward; the sum of its momenta, and those at the end that does not move and where the new half
  // begins; the latest point, and of the block that ends there the sum and the first of its
  // momenta. "Pulled" is L' s.
  enum {
    kX,
    kNewX,
    kScore,
    kBackX,
    kBackMomentum,
    kBackPulled,
    kFrontX,
    kFrontMomentum,
    kFrontPulled,
    kTotal,
    kFar,
    kNear,
    kNewScore,
    kAt,
    kMomentum,
    kAtScore,
    kPulled,
    kTurned,
    kBlockTotal,
    kBlockFirst,
    kWork
  };
  enum { kWaitingTotal, kWaitingFirst, kWaitingLast, kWaitingParts };

 public:
  static constexpr int kRows = kWork + 2;
  using Chain = Rows<Real, D, kRows>;
  // The blocks that wait, beside the rows: the longest is a quarter of a trajectory.
  static int64_t more_bytes_per_dim(const RunParams& p) {
    return (p.max_depth - 1) * kWaitingParts * static_cast<int64_t>(sizeof(Real));
  }

  PF_HD NutsMove(const RunParams& p, const Target& target, const Tile& tile, D dim, Chain& rows)
      : p_(p),
        target_(target),
        tile_(tile),
        dim_(dim),
        rows_(rows),
        waiting_(tile.template array<Real>(moment_bytes<T, D>(p, dim) + dim * Chain::kBytesPerDim)),
        metric_(p.metric),
        step_size_(tile.load(p.step_size)),
        noise_(tile.normals(p.noise, dim, p.n_steps, rows.noise())),
        tree_(resolved(p.tree)),
        uniforms_(tile.uniforms(tree_, 0)) {
    tree_.seed_at = tree_.step_at = nullptr;
    acceptance_.load(p.tallies, tile);
    if constexpr (D::kKnown) {
      value_ = evaluate_at(target, rows[kX], rows[kScore], rows[kWork], dim, true);
    }
  }

  PF_HD Real value(bool) const { return value_; }
  PF_HD Nobody step(int64_t k, bool) {
    // Depth -1 is the evaluation at the start of all, where the constructor has not made it: see
    // Evaluations.
    for (int64_t depth = D::kKnown || begun_ ? 0 : -1; depth < p_.max_depth; ++depth) {
      if (depth == 0) begin(k);
      if (depth > 0 && !any(alive_)) break;
      grow(depth);
    }
    acceptance_.add(accepted_ / leaves_);
    const auto diverged = diverged_ > Real(T(0));
    if (any(diverged)) {
      tile_.count_where(diverged, p_.tallies.n_divergent);
      const auto nonfinite = diverged_ > Real(T(1));
      if (any(nonfinite)) tile_.count_where(nonfinite, p_.tallies.n_nonfinite);
    }
    return {};
  }
  PF_HD void finish() const { acceptance_.store(p_.tallies, tile_); }

 private:
  // A trajectory of one point.
  PF_HD void begin(int64_t k) {
    Real *x = rows_[kX], *total = rows_[kTotal];
    Real *back_x = rows_[kBackX], *back = rows_[kBackMomentum], *back_pulled = rows_[kBackPulled];
    Real *front_x = rows_[kFrontX], *front = rows_[kFrontMomentum];
    Real* front_pulled = rows_[kFrontPulled];
    metric_.pull(rows_[kScore], back_pulled, dim_);
    noise_.begin_step(dim_);
    dim_.each([&](int64_t i) {
      total[i] = front[i] = back[i] = noise_.at(i);
      front_x[i] = back_x[i] = x[i];
      front_pulled[i] = back_pulled[i];
    });
    const int64_t per_step = INT64_C(1) << p_.max_depth;
    NoiseSource tree = tree_;
    tree.start += static_cast<uint64_t>(k) * static_cast<uint64_t>(per_step);
    uniforms_ = tile_.uniforms(tree, per_step);
    directions_ = next_uniform();
    const Real zero = Real(T(0));
    start_ = value_;
    kinetic_ = half_square<Real>(dim_, back);
    weight_ = accepted_ = leaves_ = diverged_ = zero;
    alive_ = zero == zero;
  }

  // Doubles the trajectories that have not ended.
  PF_HD void grow(int64_t depth) {
    const bool at_start = !D::kKnown && depth < 0;
    if (!at_start) choose_ends(depth);
    const int64_t n_leaves = at_start ? 1 : INT64_C(1) << depth;
    for (int64_t leaf = 0; leaf < n_leaves; ++leaf) {
      const Real zero = Real(T(0));
      Real log_u = zero;
      if (!at_start) {
        half_step_ = select(alive_, half_step_, zero);  // the others stand still
        log_u = log(next_uniform());
        if (leaf == 0) log_accept_ = log_u;
      }
      const Real value = leapfrog(at_start);
      if (at_start) {
        value_ = value;
        begun_ = true;
        return;
      }
      weigh(leaf, value, log_u);
      join(leaf);
      if (!any(alive_)) return;
    }
    unite();
  }

  // Where the next doubling goes.
  PF_HD void choose_ends(int64_t depth) {
    depth_ = depth;
    const Real one = Real(T(1)), zero = Real(T(0)), twice = directions_ + directions_;
    forward_ = twice > one;
    directions_ = twice - select(forward_, one, zero);
    half_step_ = select(forward_, step_size_, -step_size_) * Real(T(0.5));
    const Real *back_x = rows_[kBackX], *front_x = rows_[kFrontX];
    const Real *back = rows_[kBackMomentum], *front = rows_[kFrontMomentum];
    const Real *back_pulled = rows_[kBackPulled], *front_pulled = rows_[kFrontPulled];
    Real *at = rows_[kAt], *momentum = rows_[kMomentum], *pulled = rows_[kPulled];
    Real *far = rows_[kFar], *near = rows_[kNear];
    dim_.each([&](int64_t i) {
      at[i] = select(forward_, front_x[i], back_x[i]);
      pulled[i] = select(forward_, front_pulled[i], back_pulled[i]);
      momentum[i] = near[i] = select(forward_, front[i], back[i]);
      far[i] = select(forward_, back[i], front[i]);
    });
  }

  // A leapfrog step to the next leaf, or only the evaluation of the state.
  PF_HD Real leapfrog(bool at_start) {
    Real *at = rows_[kAt], *score = rows_[kAtScore];
    if (!at_start) {
      kick_momentum();
      const Real step_size = half_step_ + half_step_;
      metric_.each_pushed(
          rows_[kMomentum], rows_[kTurned], dim_,
          [&](int64_t i, const Real& pushed) { at[i] = drift(at[i], pushed, step_size); });
    }
    const Real value = evaluate_at(target_, at_start ? rows_[kX] : at,
                                   at_start ? rows_[kScore] : score, rows_[kWork], dim_, true);
    if (at_start) return value;
    metric_.pull(score, rows_[kPulled], dim_);
    kick_momentum();
    return value;
  }
  PF_HD void kick_momentum() {
    Real *momentum = rows_[kMomentum], *pulled = rows_[kPulled];
    dim_.each([&](int64_t i) { momentum[i] = kick(momentum[i], pulled[i], half_step_); });
  }

  // Takes in the weight of a leaf, at which the log-density is `value`.
  PF_HD void weigh(int64_t leaf, Real value, Real log_u) {
    const Real zero = Real(T(0)), one = Real(T(1));
    const Real gain = (value - start_) + (kinetic_ - half_square<Real>(dim_, rows_[kMomentum]));
    const Mask finite = gain < infinity<Real>();
    const Mask fine = (gain >= Real(T(-kDivergence))) & finite;
    const Real probability = select(finite, exp(select(gain < zero, gain, zero)), zero);
    accepted_ = accepted_ + select(alive_, probability, zero);
    leaves_ = leaves_ + select(alive_, one, zero);
    const Real how = select(finite, one, one + one);
    diverged_ = select(alive_ & !fine, how, diverged_);
    alive_ = alive_ & fine;
    Real *x = rows_[kNewX], *score = rows_[kNewScore];
    const Real *at = rows_[kAt], *at_score = rows_[kAtScore];
    new_weight_ = leaf == 0 ? gain : add_logs(new_weight_, gain);
    const Mask taken = log_u <= gain - new_weight_;  // the first leaf always: log_u <= 0
    new_value_ = select(taken, value, new_value_);
    dim_.each([&](int64_t i) {
      x[i] = select(taken, at[i], x[i]);
      score[i] = select(taken, at_score[i], score[i]);
    });
  }

  // A part of the block of 2^level leaves that waits.
  PF_HD decltype(auto) waiting(int64_t level, int part, int64_t i) const {
    return waiting_[(level * kWaitingParts + part) * dim_ + i];
  }
  // The block that ends at this leaf.
  PF_HD auto block() const {
    const Real *total = rows_[kBlockTotal], *first = rows_[kBlockFirst];
    const Real* last = rows_[kMomentum];
    return stretch([=](int64_t i) { return total[i]; }, [=](int64_t i) { return first[i]; },
                   [=](int64_t i) { return last[i]; });
  }

  // Joins the blocks that end at a leaf to those that wait for them.
  PF_HD void join(int64_t leaf) {
    Real *total = rows_[kBlockTotal], *first = rows_[kBlockFirst];
    const Real* momentum = rows_[kMomentum];
    dim_.each([&](int64_t i) { total[i] = first[i] = momentum[i]; });
    int64_t level = 0;  // the block has 2^level leaves
    for (; leaf >> level & 1; ++level) {
      const auto one = stretch([&](int64_t i) { return waiting(level, kWaitingTotal, i); },
                               [&](int64_t i) { return waiting(level, kWaitingFirst, i); },
                               [&](int64_t i) { return waiting(level, kWaitingLast, i); });
      alive_ = alive_ & goes_on<Real>(dim_, one, block(), level == 0);
      dim_.each([&](int64_t i) {
        total[i] = waiting(level, kWaitingTotal, i) + total[i];
        first[i] = waiting(level, kWaitingFirst, i);
      });
    }
    if (level == depth_) return;
    dim_.each([&](int64_t i) {
      waiting(level, kWaitingTotal, i) = total[i];
      waiting(level, kWaitingFirst, i) = first[i];
      waiting(level, kWaitingLast, i) = momentum[i];
    });
  }

  // Adds the new half to the trajectory.
  PF_HD void unite() {
    const Mask taken = alive_ & (log_accept_ <= new_weight_ - weight_);
    weight_ = add_logs(weight_, new_weight_);
    value_ = select(taken, new_value_, value_);
    Real* total = rows_[kTotal];
    const Real *far = rows_[kFar], *near = rows_[kNear], *block_total = rows_[kBlockTotal];
    const auto before =
        stretch([=](int64_t i) { return total[i]; }, [=](int64_t i) { return far[i]; },
                [=](int64_t i) { return near[i]; });
    alive_ = alive_ & goes_on<Real>(dim_, before, block(), depth_ == 0);
    dim_.each([&](int64_t i) {
      total[i] = total[i] + block_total[i];
      put_where(taken, rows_[kX], rows_[kNewX], i);
      put_where(taken, rows_[kScore], rows_[kNewScore], i);
      put_where(forward_, rows_[kFrontX], rows_[kAt], i);
      put_where(forward_, rows_[kFrontMomentum], rows_[kMomentum], i);
      put_where(forward_, rows_[kFrontPulled], rows_[kPulled], i);
      put_where(!forward_, rows_[kBackX], rows_[kAt], i);
      put_where(!forward_, rows_[kBackMomentum], rows_[kMomentum], i);
      put_where(!forward_, rows_[kBackPulled], rows_[kPulled], i);
    });
  }
  PF_HD static void put_where(Mask chosen, Real* to, const Real* from, int64_t i) {
    to[i] = select(chosen, from[i], to[i]);
  }

  PF_HD Real next_uniform() {
    uniforms_.begin_step(Dim<1>{1});
    return uniforms_.at(0);
  }

  const RunParams& p_;
  const Target& target_;
  const Tile& tile_;
  D dim_;
  Chain& rows_;
  typename Tile::template Array<Real> waiting_;
  Metric<T> metric_;
  Real step_size_, value_ = Real(T(0));
  bool begun_ = false;
  typename Tile::Normals noise_;
  NoiseSource tree_;
  typename Tile::Uniforms uniforms_;
  TileAcceptance<T, D> acceptance_;
  // Of the trajectory: the log-density and the kinetic energy at its start, the logarithm of the
  // sum of its weights; over its leaves, the sum of acceptance probabilities, their number, and
  // whether one diverged (1), out of the finite numbers (2); the digits that are the directions
  // to come.
  Real start_, kinetic_, weight_, accepted_, leaves_, diverged_, directions_;
  Mask alive_, forward_;
  // Of the new half: half the step with its direction, the logarithm of the sum of its weights, the
  // log-density at the state drawn from it, and the uniform that decides whether that is taken.
  Real half_step_, new_weight_, new_value_, log_accept_;
  int64_t depth_;
};

}  // namespace

void nuts_run(const RunParams& p) { run_chains<NutsMove, 4>(p, 20.0); }

}  // namespace pf::PF_BACKEND
