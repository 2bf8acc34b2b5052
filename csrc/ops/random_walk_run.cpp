// SPDX-License-Identifier: Apache-2.0
// Metropolis-Hastings (algorithm 1) with proposals that need no score:
//
//   symmetric        y = x + s L xi
//   log-normal       y = x exp(s L xi)                  log q(x | y) - log q(y | x) = s sum L xi
//   autoregressive   y = c + r (x - c) + sqrt(1 - r^2) L xi,  L diagonal: reversible for N(c, L L')
#include "kernels/metric.hpp"
#include "ops/run_chains.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T, class Target, class D>
class RandomWalkMove {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  enum { kX, kProposed, kNoise, kStep, kWork };

 public:
  static constexpr int kRows = kWork + 2;
  using Chain = Rows<Real, D, kRows>;

  PF_HD RandomWalkMove(const RunParams& p, const Target& target, const Tile& tile, D dim,
                       Chain& rows)
      : p_(p),
        target_(target),
        dim_(dim),
        rows_(rows),
        metric_(p.metric),
        scale_(tile.load(p.step_size)),
        beta_(tile.load(p.beta)),
        fresh_(static_cast<T>(sqrt(fma(-p.persistence, p.persistence, 1.0)))),
        noise_(tile.normals(p.noise, dim, p.n_steps, rows.noise())),
        judge_(p, tile, dim) {
    evaluations_.start(value_, [&](bool of_state) { return evaluate(of_state); });
  }

  PF_HD Real value(bool) const { return value_; }
  PF_HD Nobody step(int64_t, bool) {
    Real *x = rows_[kX], *proposed = rows_[kProposed];
    Real correction = Real(T(0));
    const Real value = evaluations_.next(
        value_, [&] { correction = propose(); }, [&](bool of_state) { return evaluate(of_state); });
    const auto refused = judge_.refused(fma(beta_, value - value_, correction));
    dim_.each([&](int64_t i) { proposed[i] = select(refused, x[i], proposed[i]); });
    rows_.advance();
    value_ = select(refused, value_, value);
    return {};
  }
  PF_HD void finish() const { judge_.finish(); }

 private:
  // The score is computed and dropped, where the compiler does not see that it is not needed; it
  // takes the place of the noise, which has been used.
  PF_HD Real evaluate(bool of_state) {
    return evaluate_at(target_, rows_[of_state ? kX : kProposed], rows_[kNoise], rows_[kWork], dim_,
                       true);
  }
  // Returns log q(x | y) - log q(y | x).
  PF_HD Real propose() {
    Real *x = rows_[kX], *proposed = rows_[kProposed], *step = rows_[kStep];
    draw_step();
    if (p_.proposal == ProposalKind::kSymmetric) {
      dim_.each([&](int64_t i) { proposed[i] = fma(scale_, step[i], x[i]); });
      return Real(T(0));
    }
    if (p_.proposal == ProposalKind::kLogNormal) {
      dim_.each([&](int64_t i) { proposed[i] = x[i] * exp(scale_ * step[i]); });
      return row_dot<Real>(
          dim_, [&](int64_t i) { return step[i]; }, [&](int64_t) { return scale_; });
    }
    return autoregress();
  }
  PF_HD void draw_step() {
    Real *xi = rows_[kNoise], *step = rows_[kStep];
    noise_.begin_step(dim_);
    dim_.each([&](int64_t i) { xi[i] = noise_.at(i); });
    metric_.push(xi, step, dim_);
  }
  PF_HD Real autoregress() {
    Real *x = rows_[kX], *proposed = rows_[kProposed], *step = rows_[kStep];
    const T* center = static_cast<const T*>(p_.center);
    const T* spread = static_cast<const T*>(p_.metric.factor);
    const Real persistence = Real(static_cast<T>(p_.persistence));
    dim_.each([&](int64_t i) {
      proposed[i] =
          fma(Real(fresh_), step[i], fma(persistence, x[i] - Real(center[i]), Real(center[i])));
    });
    // log N(x; c, L L') - log N(y; c, L L') = (y - x) . (L L')^-1 (y + x - 2 c) / 2
    const Real sum = row_dot<Real>(
        dim_, [&](int64_t i) { return (proposed[i] - x[i]) / Real(spread[i]); },
        [&](int64_t i) {
          return ((proposed[i] - Real(center[i])) + (x[i] - Real(center[i]))) / Real(spread[i]);
        });
    return sum * Real(T(0.5));
  }

  const RunParams& p_;
  const Target& target_;
  D dim_;
  Chain& rows_;
  Metric<T> metric_;
  Real scale_, beta_, value_ = Real(T(0));
  T fresh_;
  Evaluations<D> evaluations_;
  typename Tile::Normals noise_;
  TileJudge<T, D> judge_;
};

}  // namespace

void random_walk_run(const RunParams& p) { run_chains<RandomWalkMove, 8>(p, 1.5); }

}  // namespace pf::PF_BACKEND
