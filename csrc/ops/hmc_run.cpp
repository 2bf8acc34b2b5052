// SPDX-License-Identifier: Apache-2.0
// Hamiltonian Monte Carlo on a native target: fresh momentum, leapfrog steps, accept.
//
// In the coordinates of the metric, x = L z, the momentum r is standard normal and
//   H = -log pi(x) + |r|^2 / 2,  dx/dt = L r,  dr/dt = L' s(x)
#include "kernels/hamiltonian.hpp"
#include "kernels/metric.hpp"
#include "ops/run_chains.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T, class Target, class D>
class HmcMove {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  enum { kX, kProposed, kScore, kNextScore, kMomentum, kTurned, kWork };

 public:
  static constexpr int kRows = kWork + 2;
  using Chain = Rows<Real, D, kRows>;

  PF_HD HmcMove(const RunParams& p, const Target& target, const Tile& tile, D dim, Chain& rows)
      : p_(p),
        target_(target),
        tile_(tile),
        dim_(dim),
        rows_(rows),
        metric_(p.metric),
        mean_step_size_(tile.load(p.step_size)),
        jitter_(tile.uniforms(p.jitter_noise, p.n_steps)),
        noise_(tile.normals(p.noise, dim, p.n_steps, rows.noise())),
        judge_(p, tile, dim) {
    if constexpr (D::kKnown) {
      value_ = evaluate_at(target, rows[kX], rows[kScore], rows[kWork], dim, true);
    }
  }

  PF_HD Real value(bool) const { return value_; }
  PF_HD Nobody step(int64_t, bool) {
    Real *x = rows_[kX], *score = rows_[kScore], *r = rows_[kMomentum];
    Real *proposed = rows_[kProposed], *next_score = rows_[kNextScore];
    Real kinetic = Real(T(0)), value = value_;
    // Leapfrog step -1 is the evaluation at the start of all, where the constructor has not made
    // it: see Evaluations.
    for (int64_t l = D::kKnown || begun_ ? 0 : -1; l < p_.n_leapfrog; ++l) {
      const bool at_start = !D::kKnown && l < 0, last = l + 1 == p_.n_leapfrog;
      if (l == 0) kinetic = begin();
      if (!at_start) drift_position();
      value = evaluate_at(target_, at_start ? x : proposed, at_start ? score : next_score,
                          rows_[kWork], dim_, last || at_start);
      if (at_start) {
        value_ = value;
        begun_ = true;
      } else {
        kick_momentum(last ? step_size_ * Real(T(0.5)) : step_size_);
      }
    }
    const Real log_ratio = (value - value_) + (kinetic - half_square<Real>(dim_, r));
    const auto refused = judge_.refused(log_ratio);
    const auto diverged = dim_.of_chain(!(log_ratio >= Real(T(-kDivergence))));
    if (any(diverged)) tile_.count_where(diverged, p_.tallies.n_divergent);
    dim_.each([&](int64_t i) {
      proposed[i] = select(refused, x[i], proposed[i]);
      score[i] = select(refused, score[i], next_score[i]);
    });
    rows_.advance();
    value_ = select(refused, value_, value);
    return {};
  }
  PF_HD void finish() const { judge_.finish(); }

 private:
  // Draws the momentum and takes half a kick; returns the kinetic energy before it.
  PF_HD Real begin() {
    Real *x = rows_[kX], *score = rows_[kScore], *r = rows_[kMomentum];
    Real *proposed = rows_[kProposed], *next_score = rows_[kNextScore];
    noise_.begin_step(dim_);
    dim_.each([&](int64_t i) {
      r[i] = noise_.at(i);
      proposed[i] = x[i];
      next_score[i] = score[i];
    });
    step_size_ = mean_step_size_;
    if (p_.jitter > 0) {
      jitter_.begin_step(Dim<1>{1});
      step_size_ = jittered(mean_step_size_, Real(static_cast<T>(p_.jitter)), jitter_.at(0));
    }
    const Real kinetic = half_square<Real>(dim_, r);
    kick_momentum(step_size_ * Real(T(0.5)));
    return kinetic;
  }
  PF_HD void kick_momentum(Real step_size) {
    Real* r = rows_[kMomentum];
    metric_.each_pulled(
        rows_[kNextScore], rows_[kTurned], dim_,
        [&](int64_t i, const Real& pulled) { r[i] = kick(r[i], pulled, step_size); });
  }
  PF_HD void drift_position() {
    Real* proposed = rows_[kProposed];
    metric_.each_pushed(rows_[kMomentum], rows_[kTurned], dim_, [&](int64_t i, const Real& pushed) {
      proposed[i] = drift(proposed[i], pushed, step_size_);
    });
  }

  const RunParams& p_;
  const Target& target_;
  const Tile& tile_;
  D dim_;
  Chain& rows_;
  Metric<T> metric_;
  Real mean_step_size_, step_size_, value_ = Real(T(0));
  bool begun_ = false;
  typename Tile::Uniforms jitter_;
  typename Tile::Normals noise_;
  TileJudge<T, D> judge_;
};

}  // namespace

void hmc_run(const RunParams& p) {
  run_chains<HmcMove, 4>(p, 2.0 * static_cast<double>(p.n_leapfrog));
}

}  // namespace pf::PF_BACKEND
