// SPDX-License-Identifier: Apache-2.0
// Metropolis-Hastings (algorithm 1, eq 42): y ~ q(. | x) is taken with probability
//
//   min(1, r),   log r = log pi(y) - log pi(x) + log q(x | y) - log q(y | x)
//
// References: N. Metropolis et al. (1953), Equation of state calculations by fast computing
// machines, J. Chem. Phys. 21; W. K. Hastings (1970), Biometrika 57; G. O. Roberts and
// R. L. Tweedie (1996), Exponential convergence of Langevin distributions, Bernoulli 2.
#pragma once

#include "core/math.hpp"
#include "core/reduce.hpp"

namespace pf::PF_BACKEND {

// What becomes of a proposal: u is uniform in (0, 1]. A ratio that is NaN or +infinity says that
// something is wrong with the target, and refuses.
template <class Real>
struct Verdict {
  using Mask = typename Traits<Real>::Mask;
  Mask refused, nonfinite;
  Real probability;  // min(1, r), 0 where the ratio is not a number
};

template <class Real>
PF_HD Verdict<Real> judge(Real log_ratio, Real u) {
  using T = typename Traits<Real>::Scalar;
  const Real zero = Real(T(0));
  Verdict<Real> v;
  v.nonfinite = !(log_ratio < infinity<Real>());
  v.refused = !(log(u) <= select(v.nonfinite, -infinity<Real>(), log_ratio));
  v.probability = select(v.nonfinite, zero, exp(select(log_ratio < zero, log_ratio, zero)));
  return v;
}

// log q(x | y) - log q(y | x) for Langevin proposals y = x + h s(x) + sqrt(2 h / beta) xi of
// pi^beta, from both points and both scores:
//   -beta / 2 (s(x) + s(y)) . (y - x + h / 2 (s(y) - s(x)))
template <class Real, class D, class Row>
PF_HD Real langevin_asymmetry(D dim, const Row& x, const Row& y, const Row& score,
                              const Row& next_score, Real step_size, Real beta) {
  using T = typename Traits<Real>::Scalar;
  const Real half_step = step_size * Real(T(0.5));
  const Real sum = row_dot<Real>(
      dim, [&](int64_t i) { return score[i] + next_score[i]; },
      [&](int64_t i) { return fma(half_step, next_score[i] - score[i], y[i] - x[i]); });
  return sum * (beta * Real(T(-0.5)));
}

}  // namespace pf::PF_BACKEND
