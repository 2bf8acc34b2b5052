// SPDX-License-Identifier: Apache-2.0
// The Ornstein-Uhlenbeck process  dx = -kappa x dt + sigma dW  (eq 123): its exact transition and
// one Euler-Maruyama step of its reversal, B. D. O. Anderson (1982), Reverse-time diffusion
// equation models, Stochastic Processes and their Applications 12.
#pragma once

#include "core/pack.hpp"

namespace pf::PF_BACKEND {

// x_t = e^(-kappa t) x_0 + std(t) xi (eq 124), given the two coefficients
template <class Real>
PF_HD Real diffuse(Real x0, Real mean_scale, Real std, Real xi) {
  return fma(std, xi, mean_scale * x0);
}

// dy = [kappa y + (1 + alpha)(sigma^2 / 2) score] ds + sigma sqrt(alpha) dW (eq 135 for general
// coefficients), over ds:  y' = (1 + kappa ds) y + drift_scale score + noise_scale xi
template <class Real>
PF_HD Real reverse_move(Real y, Real score, Real growth, Real drift_scale, Real noise_scale,
                        Real xi) {
  return fma(noise_scale, xi, fma(drift_scale, score, growth * y));
}

}  // namespace pf::PF_BACKEND
