// SPDX-License-Identifier: Apache-2.0
// Ornstein-Uhlenbeck forward in one exact step, and one step of the reverse family.
#include "kernels/diffusion.hpp"

#include "backend/backend.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class S, class T>
struct Diffuse {
  S* out;
  const S* x;
  PerChain mean_scale, std;

  struct Coefficients {
    T mean_scale, std;
  };
  bool is_aligned(uintptr_t bytes) const { return are_aligned(bytes, out, x); }
  PF_HD bool uniform() const { return mean_scale.stride == 0 && std.stride == 0; }
  PF_HD Coefficients at_row(int64_t chain) const {
    return {value_of<T>(mean_scale, chain), value_of<T>(std, chain)};
  }
  template <class At, class Real>
  PF_HD void operator()(const Coefficients& c, const At& at, Real xi) const {
    at.store(out, PF_BACKEND::diffuse(at.load(x), Real(c.mean_scale), Real(c.std), xi));
  }
};

template <class S, class T>
struct ReverseStep {
  S* out;
  const S* x;
  const S* score;
  PerChain growth, drift_scale, noise_scale;

  struct Coefficients {
    T growth, drift_scale, noise_scale;
  };
  bool is_aligned(uintptr_t bytes) const { return are_aligned(bytes, out, x, score); }
  PF_HD bool uniform() const {
    return growth.stride == 0 && drift_scale.stride == 0 && noise_scale.stride == 0;
  }
  PF_HD Coefficients at_row(int64_t chain) const {
    return {value_of<T>(growth, chain), value_of<T>(drift_scale, chain),
            value_of<T>(noise_scale, chain)};
  }
  template <class At, class Real>
  PF_HD void operator()(const Coefficients& c, const At& at, Real xi) const {
    at.store(out, reverse_move(at.load(x), at.load(score), Real(c.growth), Real(c.drift_scale),
                               Real(c.noise_scale), xi));
  }
};

}  // namespace

void diffuse(const DiffuseParams& p) {
  with_storage(p.dtype, [&](auto stored, auto zero) {
    using S = decltype(stored);
    using T = decltype(zero);
    for_each_element<Normal, T>(
        p.n_chains, p.dim, p.noise, p.place,
        Diffuse<S, T>{static_cast<S*>(p.out), static_cast<const S*>(p.x), p.mean_scale, p.std});
  });
}

void reverse(const ReverseParams& p) {
  with_storage(p.dtype, [&](auto stored, auto zero) {
    using S = decltype(stored);
    using T = decltype(zero);
    for_each_element<Normal, T>(
        p.n_chains, p.dim, p.noise, p.place,
        ReverseStep<S, T>{static_cast<S*>(p.out), static_cast<const S*>(p.x),
                          static_cast<const S*>(p.score), p.growth, p.drift_scale, p.noise_scale});
  });
}

}  // namespace pf::PF_BACKEND
