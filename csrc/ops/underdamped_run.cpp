// SPDX-License-Identifier: Apache-2.0
// Underdamped Langevin steps (B A O A B) of a native target: position and velocity in registers.
#include "kernels/hamiltonian.hpp"
#include "ops/run_chains.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T, class Target, class D>
class UnderdampedMove {
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  using Mask = typename Traits<Real>::Mask;
  enum { kX, kNextX, kVelocity, kScore, kNextVelocity, kNextScore, kWork };

 public:
  static constexpr int kRows = kWork + 2;
  using Chain = Rows<Real, D, kRows>;

  PF_HD UnderdampedMove(const RunParams& p, const Target& target, const Tile& tile, D dim,
                        Chain& rows)
      : p_(p),
        target_(target),
        tile_(tile),
        dim_(dim),
        rows_(rows),
        step_size_(tile.load(p.step_size)),
        friction_(tile.load(p.friction), step_size_, tile.load(p.beta)),
        noise_(tile.normals(p.noise, dim, p.n_steps, rows.noise())) {
    tile.load_rows(static_cast<const T*>(p.velocity), dim, rows[kVelocity]);
    evaluations_.start(value_, [&](bool) {
      return evaluate_at(target, rows[kX], rows[kScore], rows[kWork], dim,
                         p.log_density != nullptr);
    });
  }

  PF_HD Real value(bool) const { return value_; }
  PF_HD Mask step(int64_t, bool wanted) {
    Real *x = rows_[kX], *v = rows_[kVelocity], *score = rows_[kScore];
    Real *next_x = rows_[kNextX], *next_v = rows_[kNextVelocity], *next_score = rows_[kNextScore];
    const Real half_step = step_size_ * Real(T(0.5));
    const auto propose = [&] {
      noise_.begin_step(dim_);
      dim_.each([&](int64_t i) {
        const Real kicked = kick(v[i], score[i], half_step);
        const Real halfway = drift(x[i], kicked, half_step);
        next_v[i] = friction_(kicked, noise_.at(i));
        next_x[i] = drift(halfway, next_v[i], half_step);
      });
    };
    // Kernels with one evaluation in their code cannot go back for the value at x: they keep it.
    constexpr bool kAgain = D::kKnown;
    const bool value_wanted = kAgain ? wanted : p_.log_density != nullptr;
    const Real value = evaluations_.next(value_, propose, [&](bool of_state) {
      return evaluate_at(target_, of_state ? x : next_x, of_state ? score : next_score,
                         rows_[kWork], dim_, value_wanted);
    });
    Real finite = Real(T(0));
    dim_.each([&](int64_t i) {
      next_v[i] = kick(next_v[i], next_score[i], half_step);
      finite = fma(next_v[i], Real(T(0)), fma(next_x[i], Real(T(0)), finite));
    });
    const auto refused = dim_.of_chain(finite != finite);
    if (any(refused)) tile_.count_where(refused, p_.tallies.n_nonfinite);
    dim_.each([&](int64_t i) {
      next_x[i] = select(refused, x[i], next_x[i]);
      v[i] = select(refused, v[i], next_v[i]);
      score[i] = select(refused, score[i], next_score[i]);
    });
    rows_.advance();
    if constexpr (kAgain) {
      const Real old = wanted && any(refused)
                           ? evaluate_at(target_, x, next_score, rows_[kWork], dim_, true)
                           : value_;
      value_ = select(refused, old, value);
    } else {
      value_ = select(refused, value_, value);
    }
    return refused;
  }
  PF_HD void finish() { tile_.store_rows(static_cast<T*>(p_.velocity), dim_, rows_[kVelocity]); }

 private:
  const RunParams& p_;
  const Target& target_;
  const Tile& tile_;
  D dim_;
  Chain& rows_;
  Real step_size_, value_ = Real(T(0));
  Friction<Real> friction_;
  Evaluations<D> evaluations_;
  typename Tile::Normals noise_;
};

}  // namespace

void underdamped_run(const RunParams& p) { run_chains<UnderdampedMove, 4>(p, 1.5); }

}  // namespace pf::PF_BACKEND
