// SPDX-License-Identifier: Apache-2.0
// The no-U-turn criterion and the weights of a trajectory's points.
//
// Two stretches of a trajectory, with momenta p (of unit mass) and their sums P, go on as one where
//
//   (P1 + P2) . p > 0           for the first p of one and the last of two
//   (P1 + first of two) . p > 0 for the first of one and the first of two
//   (P2 + last of one) . p > 0  for the last of one and the last of two
//
// References: M. D. Hoffman and A. Gelman (2014), The No-U-Turn sampler, JMLR 15; M. Betancourt
// (2017), A conceptual introduction to Hamiltonian Monte Carlo, appendix A.
#pragma once

#include "core/math.hpp"
#include "core/reduce.hpp"

namespace pf::PF_BACKEND {

// log(e^a + e^b)
template <class Real>
PF_HD Real add_logs(Real a, Real b) {
  const Real difference = absolute(a - b);
  return select(a > b, a, b) + log1p(exp(-difference));
}

// Whether the dot products of `sum` with both p and q are positive.
template <class Real, class D, class Sum, class P, class Q>
PF_HD typename Traits<Real>::Mask both_along(D dim, const Sum& sum, const P& p, const Q& q) {
  using T = typename Traits<Real>::Scalar;
  const Real along_p = row_dot<Real>(dim, sum, p);
  const Real along_q = row_dot<Real>(dim, sum, q);
  return (along_p > Real(T(0))) & (along_q > Real(T(0)));
}

// A stretch: functions of the coordinate that give the sum of its momenta, the first, the last.
template <class Total, class First, class Last>
struct Stretch {
  Total total;
  First first;
  Last last;
};
template <class Total, class First, class Last>
PF_HD Stretch<Total, First, Last> stretch(Total total, First first, Last last) {
  return {total, first, last};
}

// single: of one point each, where the conditions across say the same again.
template <class Real, class D, class One, class Two>
PF_HD typename Traits<Real>::Mask goes_on(D dim, const One& one, const Two& two, bool single) {
  using Mask = typename Traits<Real>::Mask;
  const Mask whole = both_along<Real>(
      dim, [&](int64_t i) { return one.total(i) + two.total(i); }, one.first, two.last);
  if (single) return whole;
  const Mask first = both_along<Real>(
      dim, [&](int64_t i) { return one.total(i) + two.first(i); }, one.first, two.first);
  const Mask last = both_along<Real>(
      dim, [&](int64_t i) { return two.total(i) + one.last(i); }, one.last, two.last);
  return whole & first & last;
}

}  // namespace pf::PF_BACKEND
