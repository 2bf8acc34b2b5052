// SPDX-License-Identifier: Apache-2.0
// Moves with a velocity v and the score s of the target.
//
// Underdamped Langevin dynamics  dx = v dt,  dv = s(x) dt - gamma v dt + sqrt(2 gamma / beta) dW,
// split as B A O A B (kick, drift, Ornstein-Uhlenbeck, drift, kick).
// Hamiltonian dynamics by the leapfrog: kick, drift, kick.
//
// References: B. Leimkuhler and C. Matthews (2013), Rational construction of stochastic numerical
// methods for molecular sampling, AMRX; R. M. Neal (2011), MCMC using Hamiltonian dynamics.
#pragma once

#include "core/math.hpp"
#include "core/reduce.hpp"

namespace pf::PF_BACKEND {

// A trajectory whose energy has grown by more than this has diverged.
constexpr double kDivergence = 1000;

// The kinetic energy of momenta that are standard normal.
template <class Real, class D>
PF_HD Real half_square(D dim, const Real* r) {
  using T = typename Traits<Real>::Scalar;
  const auto momentum = [&](int64_t i) { return r[i]; };
  return row_dot<Real>(dim, momentum, momentum) * Real(T(0.5));
}

template <class Real>
PF_HD Real kick(Real v, Real score, Real step_size) {
  return fma(step_size, score, v);
}
template <class Real>
PF_HD Real drift(Real x, Real v, Real step_size) {
  return fma(step_size, v, x);
}
// A step size between (1 - jitter) h and (1 + jitter) h, uniformly: trajectories of one length
// return to where they began when that is a period of the motion.
template <class Real>
PF_HD Real jittered(Real step_size, Real jitter, Real u) {
  using T = typename Traits<Real>::Scalar;
  return fma(jitter * fma(u, Real(T(2)), Real(T(-1))), step_size, step_size);
}
// The exact transition of dv = -gamma v dt + sqrt(2 gamma / beta) dW over a time h.
template <class Real>
struct Friction {
  Real keep, noise;
  PF_HD Friction(Real friction, Real step_size, Real beta) {
    using T = typename Traits<Real>::Scalar;
    keep = exp(-(friction * step_size));
    // (1 - e^-2a) = -expm1(-2a) = tanh(a) (1 + e^-2a): no cancellation at small a
    const Real twice = keep * keep;
    noise = sqrt(tanh(friction * step_size) * (Real(T(1)) + twice) / beta);
  }
  PF_HD Real operator()(Real v, Real xi) const { return fma(noise, xi, keep * v); }
};

}  // namespace pf::PF_BACKEND
