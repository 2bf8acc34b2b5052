// SPDX-License-Identifier: Apache-2.0
// One Langevin step whose score was just evaluated: noise and move in one pass over memory.
#include "kernels/langevin.hpp"

#include "backend/backend.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class S, class T>
struct LangevinStep {
  S* out;
  const S* x;
  const S* score;
  PerChain step_size, beta;

  struct Coefficients {
    T step_size, noise_scale;
  };
  bool is_aligned(uintptr_t bytes) const { return are_aligned(bytes, out, x, score); }
  PF_HD bool uniform() const { return step_size.stride == 0 && beta.stride == 0; }
  PF_HD Coefficients at_row(int64_t chain) const {
    const T h = value_of<T>(step_size, chain);
    return {h, langevin_noise_scale(h, value_of<T>(beta, chain))};
  }
  template <class At, class Real>
  PF_HD void operator()(const Coefficients& c, const At& at, Real xi) const {
    at.store(out,
             langevin_move(at.load(x), at.load(score), Real(c.step_size), Real(c.noise_scale), xi));
  }
};

}  // namespace

void langevin(const LangevinParams& p) {
  with_storage(p.dtype, [&](auto stored, auto zero) {
    using S = decltype(stored);
    using T = decltype(zero);
    for_each_element<Normal, T>(
        p.n_chains, p.dim, p.noise, p.place,
        LangevinStep<S, T>{static_cast<S*>(p.out), static_cast<const S*>(p.x),
                           static_cast<const S*>(p.score), p.step_size, p.beta});
  });
}

}  // namespace pf::PF_BACKEND
