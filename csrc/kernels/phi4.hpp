// SPDX-License-Identifier: Apache-2.0
// The phi^4 field on a periodic lattice, in the hopping form:
//
//   S = sum_s [ (1 - 2 lambda) phi_s^2 + lambda phi_s^4 - 2 kappa sum_mu phi_s phi_{s + mu}
//               - h phi_s ],      p ~ exp(-S)
//
// With n_s the sum of all 2 d neighbours of a site, the bonds are kappa sum_s phi_s n_s.
// Reference: I. Montvay and G. Muenster (1994), Quantum Fields on a Lattice, section 2.1.
#pragma once

#include "core/noise.hpp"
#include "kernels/langevin.hpp"

namespace pf::PF_BACKEND {

template <class T>
struct Phi4Couplings {
  T quadratic, quartic, hopping, field;  // 1 - 2 lambda, lambda, kappa, h
  PF_HD Phi4Couplings(double kappa, double lambda, double external)
      : quadratic(static_cast<T>(1.0 - 2.0 * lambda)),
        quartic(static_cast<T>(lambda)),
        hopping(static_cast<T>(kappa)),
        field(static_cast<T>(external)) {}
};

// A site's share of the action.
template <class Real, class T>
PF_HD Real phi4_action(const Phi4Couplings<T>& c, Real phi, Real neighbours) {
  const Real square = phi * phi;
  const Real potential = square * fma(square, Real(c.quartic), Real(c.quadratic));
  return fma(-phi, fma(neighbours, Real(c.hopping), Real(c.field)), potential);
}

// -dS / dphi
template <class Real, class T>
PF_HD Real phi4_score(const Phi4Couplings<T>& c, Real phi, Real neighbours) {
  const Real pull = fma(phi * phi, Real(T(4) * c.quartic), Real(T(2) * c.quadratic));
  return fma(neighbours, Real(T(2) * c.hopping), fma(-phi, pull, Real(c.field)));
}

// What a new value at one site adds to the action.
template <class Real, class T>
PF_HD Real phi4_change(const Phi4Couplings<T>& c, Real phi, Real next, Real neighbours) {
  const Real a = phi * phi, b = next * next;
  const Real potential =
      (b - a) * fma(a + b, Real(c.quartic), Real(c.quadratic));  // of the sum of even powers
  return fma(phi - next, fma(neighbours, Real(T(2) * c.hopping), Real(c.field)), potential);
}

}  // namespace pf::PF_BACKEND
