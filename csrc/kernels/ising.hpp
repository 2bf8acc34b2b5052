// SPDX-License-Identifier: Apache-2.0
// One site of the Ising model, for as many spins at once as Bits has bits. Up is 1, down is 0.
//
//   p(s) ~ exp(-E / T),   E = -sum_<ij> s_i s_j - h sum_i s_i
//
// With k of the 2d neighbours up the local field is b = 2 k - 2 d + h. A site is up with
// probability 1 / (1 + exp(-2 b / T)) under the heat bath; under Metropolis a spin along b turns
// over with probability exp(-2 |b| / T), and one against b always. Both compare the site's word
// with a threshold of its class k.
// Reference: M. Creutz, L. Jacobs and C. Rebbi (1979), Phys. Rev. Lett. 42; the bitwise sums go
// back to G. Zorn, H. J. Herrmann and C. Rebbi (1981), Comput. Phys. Commun. 23.
#pragma once

#include "core/math.hpp"

namespace pf::PF_BACKEND {

constexpr int kMaxIsingClasses = 7;

// What a site of class k does: accept = (word < threshold) or always;
//   heat bath:  up = accept, or, where inverted, not accept
//   Metropolis: a spin along the field (up where inverted) turns over where accepted, any other
//               spin turns over
struct IsingClass {
  uint32_t threshold;
  bool always, inverted;
};

PF_HD IsingClass ising_class(int k, int n_dims, double temperature, double field, bool heat_bath) {
  const double local = static_cast<double>(2 * k - 2 * n_dims) + field;
  IsingClass c;
  double p;
  if (heat_bath) {
    c.inverted = k > n_dims;
    const double exponent = (local + local) / temperature;
    p = 1.0 / (1.0 + exp(c.inverted ? exponent : -exponent));
  } else {
    c.inverted = local >= 0.0;
    p = exp(-(absolute(local) + absolute(local)) / temperature);
  }
  const uint64_t threshold = static_cast<uint64_t>(fma(p, 0x1p32, 0.5));
  c.always = threshold >> 32 != 0;
  c.threshold = static_cast<uint32_t>(threshold);
  return c;
}

// Which comparisons a site needs: classes k and 2d - k share one where the field is zero, and
// Metropolis' class d then needs none.
struct IsingMasks {
  int count;
  int of_class[kMaxIsingClasses];
  int class_of[kMaxIsingClasses];
};
PF_HD IsingMasks ising_masks(int n_dims, bool symmetric, bool heat_bath) {
  IsingMasks m{};
  const int n_classes = 2 * n_dims + 1;
  for (int k = 0; k < n_classes; ++k) {
    const int mirrored = symmetric && k > n_dims ? 2 * n_dims - k : k;
    if (symmetric && !heat_bath && k == n_dims) {
      m.of_class[k] = 0;  // always accepted
    } else if (mirrored < k) {
      m.of_class[k] = m.of_class[mirrored];
    } else {
      m.class_of[m.count] = k;
      m.of_class[k] = m.count++;
    }
  }
  return m;
}

// The classes of one lattice, or of the lattices in the bits of a word.
template <class Bits>
struct IsingRule {
  Bits always[kMaxIsingClasses], inverted[kMaxIsingClasses];
  Bits heat_bath;
};

// Which classes a spin's neighbours make: binary digits of their number.
template <class Bits>
struct UpCount {
  Bits ones, twos, fours;
};
template <class Bits>
PF_HD void full_add(Bits a, Bits b, Bits c, Bits& sum, Bits& carry) {
  sum = a ^ b ^ c;
  carry = (a & b) | (c & (a ^ b));
}
template <int kDims, class Bits>
PF_HD UpCount<Bits> count_up(const Bits* n) {
  static_assert(kDims == 2 || kDims == 3, "four or six neighbours");
  UpCount<Bits> c;
  Bits sum, carry;
  full_add(n[0], n[1], n[2], sum, carry);
  if constexpr (kDims == 2) {
    const Bits last = n[3];
    c.ones = sum ^ last;
    const Bits carry2 = sum & last;
    c.twos = carry ^ carry2;
    c.fours = carry & carry2;
  } else {
    Bits sum2, carry2;
    full_add(n[3], n[4], n[5], sum2, carry2);
    c.ones = sum ^ sum2;
    full_add(carry, carry2, Bits(sum & sum2), c.twos, c.fours);
  }
  return c;
}

// A spin of a class: accepted holds its comparison or "always".
template <class Bits>
PF_HD Bits ising_next(Bits spin, Bits inverted, Bits heat_bath, Bits accepted) {
  return inverted ^ (accepted & (heat_bath | ~(spin ^ inverted)));
}

// The new spins, where accept(k) holds the comparisons of class k.
template <int kDims, class Bits, class Accept>
PF_HD Bits ising_update(Bits spin, const Bits* neighbours, const IsingRule<Bits>& rule,
                        const Accept& accept) {
  const UpCount<Bits> up = count_up<kDims>(neighbours);
  Bits next = spin ^ spin;
  PF_UNROLL
  for (int k = 0; k <= 2 * kDims; ++k) {
    const Bits is_class = (k & 1 ? up.ones : ~up.ones) & (k & 2 ? up.twos : ~up.twos) &
                          (k & 4 ? up.fours : ~up.fours);
    const Bits accepted = accept(k) | rule.always[k];
    next |= is_class & ising_next(spin, rule.inverted[k], rule.heat_bath, accepted);
  }
  return next;
}

}  // namespace pf::PF_BACKEND
