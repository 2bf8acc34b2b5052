// SPDX-License-Identifier: Apache-2.0
// Clusters of the Ising model: a bond between equal spins holds with probability 1 - exp(-2 / T).
// In a field h a cluster of n sites is up with probability 1 / (1 + exp(-2 h n / T)) (Swendsen and
// Wang), or turns over with probability min(1, exp(-2 s h n / T)), s its spin (Wolff).
// Reference: R. H. Swendsen and J.-S. Wang (1987), Phys. Rev. Lett. 58; U. Wolff (1989), Phys. Rev.
// Lett. 62.
#pragma once

#include "core/noise.hpp"
#include "core/per_chain.hpp"

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

// What the moves of one lattice of V sites in d dimensions read. Step k reads of these sequences
//   bonds     (k V + s) d + j: whether the bond of site s towards the next along dimension j holds
//   proposal  Swendsen-Wang, k V + r: the spin of the cluster whose smallest site is r
//             Wolff, the first two words of block k: the site where the cluster grows from
//   accept    Wolff in a field, k: whether the cluster turns over
struct ClusterLaw {
  LatticeShape shape;
  double temperature, field;
  uint64_t bond;  // a bond holds whose word is below it
  NoiseSource bonds, proposal, accept;

  PF_HD ClusterLaw(const SpinFields& spins, uint64_t seed, uint64_t chain_offset, int64_t lattice)
      : shape(spins.shape),
        temperature(value_of<double>(spins.temperature, lattice)),
        field(value_of<double>(spins.field, lattice)),
        bond(bond_threshold(temperature)),
        bonds{},
        proposal{},
        accept{} {
    bonds.seed = seed;
    bonds.chain_offset = chain_offset + static_cast<uint64_t>(lattice);
    bonds.purpose = purpose::kSite;
    proposal = accept = bonds;
    proposal.purpose = purpose::kProposal;
    accept.purpose = purpose::kAccept;
  }
  PF_HD uint64_t up(int64_t n) const {
    return field == 0.0 ? word_threshold(0.5) : up_threshold(temperature, field, n);
  }
  PF_HD uint64_t turn(int64_t n, int spin) const {
    return turn_threshold(temperature, field, n, spin);
  }
};

// The moves of all lattices in a call.
struct ClusterMoves {
  SpinFields spins;
  uint64_t seed, chain_offset, first_step;
  int64_t n_steps;
  PF_HD ClusterLaw law(int64_t lattice) const {
    return ClusterLaw(spins, seed, chain_offset, lattice);
  }
};

// floor(w V / 2^64) of the 64-bit word w with these halves.
PF_HD int64_t site_of_word(uint32_t high, uint32_t low, int64_t sites) {
  const uint64_t v = static_cast<uint64_t>(sites), carry = uint64_t{low} * v >> 32;
  return static_cast<int64_t>((uint64_t{high} * v + carry) >> 32);
}

// visit(j, next, last) for the neighbours of a site along each dimension j.
template <class Visit>
PF_HD void each_dimension(const LatticeShape& shape, int64_t site, const Visit& visit) {
  int64_t step = 1, rest = site;
  for (int j = shape.n_dims - 1; j >= 0; --j) {
    const int64_t n = shape.size[j], at = j > 0 ? rest % n : rest;
    if (j > 0) rest /= n;
    visit(j, at + 1 < n ? site + step : site - step * (n - 1),
          at > 0 ? site - step : site + step * (n - 1));
    step *= n;
  }
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
