// SPDX-License-Identifier: Apache-2.0
// Clusters of the Ising model: a bond between equal spins holds with probability 1 - exp(-2 / T).
// In a field h a cluster of n sites is up with probability 1 / (1 + exp(-2 h n / T)) (Swendsen and
// Wang), or turns over with probability min(1, exp(-2 s h n / T)), s its spin (Wolff).
// Reference: R. H. Swendsen and J.-S. Wang (1987), Phys. Rev. Lett. 58; U. Wolff (1989), Phys. Rev.
// Lett. 62.
#pragma once

#include "core/noise.hpp"

namespace pf::PF_BACKEND {

// A word is below it with probability p.
PF_HD uint64_t word_threshold(double p) { return static_cast<uint64_t>(fma(p, 0x1p32, 0.5)); }

PF_HD uint64_t bond_threshold(double temperature) {
  return word_threshold(1.0 - exp(-2.0 / temperature));
}
PF_HD uint64_t up_threshold(double temperature, double field, int64_t n) {
  return word_threshold(1.0 / (1.0 + exp(-2.0 * field * static_cast<double>(n) / temperature)));
}
PF_HD uint64_t turn_threshold(double temperature, double field, int64_t n, int spin) {
  const double loss = 2.0 * static_cast<double>(spin) * field * static_cast<double>(n);
  return word_threshold(loss > 0.0 ? exp(-loss / temperature) : 1.0);
}

// The raw words of a sequence, as the bits of floats.
struct Words {
  template <class T, class Real, class Word>
  static PF_HD void values(const Block<Word>& b, int, int, Real* z) {
    static_assert(sizeof(T) == 4, "words are as wide as floats");
    PF_UNROLL
    for (int i = 0; i < 4; ++i) z[i] = bit_cast<Real>(b.w[i]);
  }
};

}  // namespace pf::PF_BACKEND
