// SPDX-License-Identifier: Apache-2.0
// Langevin steps of a native target, at one temperature or along a schedule of them.
#include "kernels/langevin.hpp"

#include "ops/run_chains.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T, class Target, class D>
class LangevinMove {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  using Mask = typename Traits<Real>::Mask;
  enum { kX, kProposed, kScore, kWork };

 public:
  static constexpr int kRows = kWork + 2;
  using Chain = Rows<Real, D, kRows>;

  PF_HD LangevinMove(const RunParams& p, const Target& target, const Tile& tile, D dim, Chain& rows)
      : p_(p),
        target_(target),
        tile_(tile),
        dim_(dim),
        rows_(rows),
        step_size_(tile.load(p.step_size)),
        noise_scale_(langevin_noise_scale(step_size_, tile.load(p.beta))),
        noise_(tile.normals(p.noise, dim, p.n_steps, rows.noise())) {}

  PF_HD Real value(bool wanted) {
    return evaluate_at(target_, rows_[kX], rows_[kScore], rows_[kWork], dim_, wanted);
  }
  PF_HD Mask step(int64_t k, bool) {
    Real *x = rows_[kX], *score = rows_[kScore], *proposed = rows_[kProposed];
    if (p_.betas != nullptr) {
      noise_scale_ = langevin_noise_scale(step_size_, Real(static_cast<T>(p_.betas[k])));
    }
    Real finite = Real(T(0));  // turns NaN with the first coordinate that is not finite
    noise_.begin_step(dim_);
    dim_.each([&](int64_t i) {
      proposed[i] = langevin_move(x[i], score[i], step_size_, noise_scale_, noise_.at(i));
      finite = fma(proposed[i], Real(T(0)), finite);
    });
    const auto refused = dim_.of_chain(finite != finite);
    if (any(refused)) {
      tile_.count_where(refused, p_.tallies.n_nonfinite);
      dim_.each([&](int64_t i) { proposed[i] = select(refused, x[i], proposed[i]); });
    }
    rows_.advance();
    return refused;
  }
  PF_HD void finish() const {}

 private:
  const RunParams& p_;
  const Target& target_;
  const Tile& tile_;
  D dim_;
  Chain& rows_;
  Real step_size_, noise_scale_;
  typename Tile::Normals noise_;
};

}  // namespace

void langevin_run(const RunParams& p) { run_chains<LangevinMove, 32>(p, 1.0); }

}  // namespace pf::PF_BACKEND
