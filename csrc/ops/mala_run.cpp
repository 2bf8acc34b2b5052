// SPDX-License-Identifier: Apache-2.0
// Metropolis-adjusted Langevin steps of a native target: a Langevin step as the proposal.
#include "kernels/langevin.hpp"
#include "ops/run_chains.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T, class Target, class D>
class MalaMove {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  enum { kX, kProposed, kScore, kNextScore, kWork };

 public:
  static constexpr int kRows = kWork + 2;
  using Chain = Rows<Real, D, kRows>;

  PF_HD MalaMove(const RunParams& p, const Target& target, const Tile& tile, D dim, Chain& rows)
      : target_(target),
        dim_(dim),
        rows_(rows),
        step_size_(tile.load(p.step_size)),
        beta_(tile.load(p.beta)),
        noise_scale_(langevin_noise_scale(step_size_, beta_)),
        noise_(tile.normals(p.noise, dim, p.n_steps, rows.noise())),
        judge_(p, tile, dim) {
    evaluations_.start(value_, [&](bool of_state) { return evaluate(of_state); });
  }

  PF_HD Real value(bool) const { return value_; }
  PF_HD Nobody step(int64_t, bool) {
    Real *x = rows_[kX], *score = rows_[kScore];
    Real *proposed = rows_[kProposed], *next_score = rows_[kNextScore];
    const auto propose = [&] {
      noise_.begin_step(dim_);
      dim_.each([&](int64_t i) {
        proposed[i] = langevin_move(x[i], score[i], step_size_, noise_scale_, noise_.at(i));
      });
    };
    const Real value =
        evaluations_.next(value_, propose, [&](bool of_state) { return evaluate(of_state); });
    const Real correction =
        langevin_asymmetry<Real>(dim_, x, proposed, score, next_score, step_size_, beta_);
    const auto refused = judge_.refused(fma(beta_, value - value_, correction));
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
  PF_HD Real evaluate(bool of_state) {
    return evaluate_at(target_, rows_[of_state ? kX : kProposed],
                       rows_[of_state ? kScore : kNextScore], rows_[kWork], dim_, true);
  }

  const Target& target_;
  D dim_;
  Chain& rows_;
  Real step_size_, beta_, noise_scale_, value_ = Real(T(0));
  Evaluations<D> evaluations_;
  typename Tile::Normals noise_;
  TileJudge<T, D> judge_;
};

}  // namespace

void mala_run(const RunParams& p) { run_chains<MalaMove, 8>(p, 2.0); }

}  // namespace pf::PF_BACKEND
