// SPDX-License-Identifier: Apache-2.0
// Overdamped Langevin dynamics  dx = -grad U dt + sqrt(2 / beta) dW  (eq 119), discretised by
// Euler-Maruyama (eq 122):
//
//   x' = x + h s(x) + sqrt(2 h / beta) xi,     s = -grad U,  xi ~ N(0, 1)
//
// Reference: G. Parisi (1981), Correlation functions and computer simulations, Nucl. Phys. B 180.
#pragma once

#include "core/noise.hpp"

namespace pf::PF_BACKEND {

template <class Real>
PF_HD Real langevin_noise_scale(Real step_size, Real beta) {
  return sqrt((step_size + step_size) / beta);
}

template <class Real>
PF_HD Real langevin_move(Real x, Real score, Real step_size, Real noise_scale, Real xi) {
  return fma(noise_scale, xi, fma(step_size, score, x));
}

}  // namespace pf::PF_BACKEND
