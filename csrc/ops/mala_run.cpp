// SPDX-License-Identifier: Apache-2.0
// Metropolis-adjusted Langevin steps of a native target: a Langevin step as the proposal.
#include "kernels/langevin.hpp"
#include "kernels/metropolis.hpp"
#include "ops/run_chains.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T, class Target, class D>
class MalaMove {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  using Wide = typename Traits<Real>::Wide;
  enum { kX, kScore, kProposed, kNextScore, kWork };

 public:
  static constexpr int kRows = kWork + 2;
  using Chain = Rows<Real, D, kRows>;

  PF_HD MalaMove(const RunParams& p, const Target& target, const Tile& tile, D dim, Chain& rows)
      : p_(p),
        target_(target),
        tile_(tile),
        dim_(dim),
        rows_(rows),
        step_size_(tile.load(p.step_size)),
        beta_(tile.load(p.beta)),
        noise_scale_(langevin_noise_scale(step_size_, beta_)),
        noise_(tile.normals(p.noise, dim, p.n_steps, rows.noise())),
        accept_(tile.uniforms(p.accept, p.n_steps)) {
    acceptance_.load(p.tallies, tile);
    value_ = evaluate_at(target, rows[kX], rows[kScore], rows[kWork], dim, true);
  }

  PF_HD Real value(bool) const { return value_; }
  PF_HD Wide step(int64_t, bool) {
    Real *x = rows_[kX], *score = rows_[kScore];
    Real *proposed = rows_[kProposed], *next_score = rows_[kNextScore];
    noise_.begin_step(dim_);
    accept_.begin_step(Dim<1>{1});
    dim_.each([&](int64_t i) {
      proposed[i] = langevin_move(x[i], score[i], step_size_, noise_scale_, noise_.at(i));
    });
    const Real value = evaluate_at(target_, proposed, next_score, rows_[kWork], dim_, true);
    const Real correction =
        langevin_asymmetry<Real>(dim_, x, proposed, score, next_score, step_size_, beta_);
    const auto verdict = judge(fma(beta_, value - value_, correction), accept_.at(0));
    const auto nonfinite = dim_.of_chain(verdict.nonfinite);
    if (any(nonfinite)) tile_.count_where(nonfinite, p_.tallies.n_nonfinite);
    acceptance_.add(verdict.probability);
    dim_.each([&](int64_t i) {
      x[i] = select(verdict.refused, x[i], proposed[i]);
      score[i] = select(verdict.refused, score[i], next_score[i]);
    });
    value_ = select(verdict.refused, value_, value);
    return Wide(1.0);
  }
  PF_HD void finish() const { acceptance_.store(p_.tallies, tile_); }

 private:
  const RunParams& p_;
  const Target& target_;
  const Tile& tile_;
  D dim_;
  Chain& rows_;
  Real step_size_, beta_, noise_scale_, value_;
  typename Tile::Normals noise_;
  typename Tile::Uniforms accept_;
  TileAcceptance<T, D> acceptance_;
};

}  // namespace

void mala_run(const RunParams& p) { run_chains<MalaMove, 8>(p, 2.0); }

}  // namespace pf::PF_BACKEND
