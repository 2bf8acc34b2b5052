// SPDX-License-Identifier: Apache-2.0
// Checkerboard sweeps of the Ising model, Metropolis or heat bath, many in one call.
#include "kernels/ising.hpp"
#include "backend/spins.hpp"
#include "ops/ops.hpp"

namespace pf::PF_BACKEND {
namespace {

// What a walk over spins asks of a model: how many comparisons a site needs, the thresholds of a
// lattice or of a group of them, and the new spins.
template <int kDimensions>
class IsingModel {
 public:
  static constexpr int kDims = kDimensions, kClasses = 2 * kDims + 1;
  static constexpr int kLatticesInGroup = 32;

  struct Lattice {
    uint32_t thresholds[kClasses];
    int mask_of_class[kClasses];
    uint64_t always[kClasses], inverted[kClasses], heat_bath;  // all bits or none
  };
  struct Group {
    uint32_t thresholds[kClasses][kLatticesInGroup];
    int mask_of_class[kClasses];
    uint32_t always[kClasses], inverted[kClasses];
  };

  explicit IsingModel(const IsingParams& p)
      : temperature_(p.spins.temperature),
        field_(p.spins.field),
        heat_bath_(p.heat_bath),
        masks_(ising_masks(kDims, p.no_field, p.heat_bath)) {}
  PF_HD int n_masks() const { return masks_.count; }

  Lattice lattice(int64_t index) const {
    Lattice l;
    for (int k = 0; k < kClasses; ++k) put_class(index, k, l);
    return l;
  }
  // What a lattice has of class k. No array is indexed by k, which a GPU would copy for it.
  PF_HD void put_class(int64_t index, int k, Lattice& l) const {
    const IsingClass c = ising_class(k, kDims, value_of<double>(temperature_, index),
                                     value_of<double>(field_, index), heat_bath_);
    l.always[k] = c.always ? ~uint64_t{0} : 0;
    l.inverted[k] = c.inverted ? ~uint64_t{0} : 0;
    if (k == 0) l.heat_bath = heat_bath_ ? ~uint64_t{0} : 0;
    PF_UNROLL
    for (int j = 0; j < kClasses; ++j) {
      if (j == k) l.mask_of_class[k] = masks_.of_class[j];
      if (j < masks_.count && masks_.class_of[j] == k) l.thresholds[j] = c.threshold;
    }
  }
  Group group(int64_t first, int count) const {
    Group g{};
    for (int i = 0; i < count; ++i) {
      const Lattice l = lattice(first + i);
      for (int m = 0; m < masks_.count; ++m) g.thresholds[m][i] = l.thresholds[m];
      for (int k = 0; k < kClasses; ++k) {
        g.mask_of_class[k] = l.mask_of_class[k];
        g.always[k] |= static_cast<uint32_t>(l.always[k] & 1) << i;
        g.inverted[k] |= static_cast<uint32_t>(l.inverted[k] & 1) << i;
      }
    }
    return g;
  }
  template <class Bits>
  PF_HD IsingRule<Bits> rule(const Lattice& l) const {
    const Bits none{};
    IsingRule<Bits> rule;
    PF_UNROLL
    for (int k = 0; k < kClasses; ++k) {
      rule.always[k] = static_cast<Bits>(none | l.always[k]);
      rule.inverted[k] = static_cast<Bits>(none | l.inverted[k]);
    }
    rule.heat_bath = static_cast<Bits>(none | l.heat_bath);
    return rule;
  }
  template <class Bits>
  PF_HD IsingRule<Bits> rule(const Group& g) const {
    IsingRule<Bits> rule;
    for (int k = 0; k < kClasses; ++k) {
      rule.always[k] = g.always[k];
      rule.inverted[k] = g.inverted[k];
    }
    rule.heat_bath = heat_bath_ ? ~Bits{} : Bits{};
    return rule;
  }
  template <class Bits, class Accept>
  PF_HD Bits update(Bits spin, const Bits* neighbours, const IsingRule<Bits>& rule,
                    const Accept& accept) const {
    return ising_update<kDims>(spin, neighbours, rule, accept);
  }

 private:
  PerChain temperature_, field_;
  bool heat_bath_;
  IsingMasks masks_;
};

}  // namespace

int64_t ising_workspace(const IsingParams& p) {
  const LatticeShape& shape = p.spins.shape;
  const bool sums = p.moments.sum != nullptr;
  if (shape.n_dims == 2) {
    return spin_workspace(shape, p.spins.n_lattices, IsingModel<2>(p), sums, p.place);
  }
  return spin_workspace(shape, p.spins.n_lattices, IsingModel<3>(p), sums, p.place);
}

void ising(const IsingParams& p) {
  if (p.spins.n_lattices == 0 || p.n_steps == 0) return;
  with_spins(p.spins, [&](const auto& spins) PF_INLINE_LAMBDA {
    const SpinSums sums(p.moments, p.steps_done, p.n_steps, spins);
    const TurnedShares turned(p.tallies, spins.shape);
    if (spins.shape.n_dims == 2) {
      sweep_spins(spins, IsingModel<2>(p), p.noise, p.n_steps, sums, turned, p.workspace, p.place);
    } else {
      sweep_spins(spins, IsingModel<3>(p), p.noise, p.n_steps, sums, turned, p.workspace, p.place);
    }
  });
}

}  // namespace pf::PF_BACKEND
