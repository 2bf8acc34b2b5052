// SPDX-License-Identifier: Apache-2.0
// Accepting or refusing proposals on a target that torch has evaluated.
#include "backend/backend.hpp"
#include "kernels/metropolis.hpp"
#include "ops/ops.hpp"
#include "ops/row_moments.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T>
struct AcceptChain {
  AcceptParams p;

  PF_HD void operator()(int64_t chain) const {
    const int64_t first = chain * p.dim;
    T* x = static_cast<T*>(p.x) + first;
    const T* proposed = static_cast<const T*>(p.proposed) + first;
    T* value = static_cast<T*>(p.log_density) + chain;
    const T next_value = static_cast<const T*>(p.proposed_log_density)[chain];
    T* score = p.score != nullptr ? static_cast<T*>(p.score) + first : nullptr;
    const T* next_score =
        p.score != nullptr ? static_cast<const T*>(p.proposed_score) + first : nullptr;

    const T beta = value_of<T>(p.beta, chain);
    T correction = T(0);
    if (p.langevin) {
      correction = langevin_asymmetry<T>(Dim<0>{p.dim}, static_cast<const T*>(x), proposed,
                                         static_cast<const T*>(score), next_score,
                                         value_of<T>(p.step_size, chain), beta);
    } else if (p.correction != nullptr) {
      correction = static_cast<const T*>(p.correction)[chain];
    }
    const auto verdict = judge(fma(beta, next_value - *value, correction), uniform(chain));
    if (verdict.nonfinite) ++p.tallies.n_nonfinite[chain];
    const double probability = to_wide(verdict.probability);
    p.tallies.accepted[chain] += probability;
    p.tallies.accepted_squares[chain] =
        fma(probability, probability, p.tallies.accepted_squares[chain]);
    if (!verdict.refused) {
      for (int64_t i = 0; i < p.dim; ++i) x[i] = proposed[i];
      if (score != nullptr) {
        for (int64_t i = 0; i < p.dim; ++i) score[i] = next_score[i];
      }
      *value = next_value;
    }
    add_row(p.moments, x, chain, p.dim);
  }

 private:
  // Entry `start` of the chain's sequence.
  PF_HD T uniform(int64_t chain) const {
    const NoiseSource noise = resolved(p.accept);
    const ChainCounter<uint32_t> id(noise.chain_offset + static_cast<uint64_t>(chain), 0u,
                                    noise.purpose);
    constexpr int kPerBlock = Draw<T>::kPerBlock;
    const uint64_t block = noise.start / kPerBlock;
    T u[kPerBlock];
    Uniform::values<T>(
        philox4x32_10<uint32_t>(static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                                id.c2, id.c3, PhiloxKey(noise.seed)),
        0, kPerBlock, u);
    T wanted = u[0];
    PF_UNROLL
    for (int j = 1; j < kPerBlock; ++j) {
      wanted = noise.start % kPerBlock == static_cast<uint64_t>(j) ? u[j] : wanted;
    }
    return wanted;
  }
};

}  // namespace

void accept(const AcceptParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    const double cost = static_cast<double>(p.n_chains) * (60 + 2.0 * static_cast<double>(p.dim));
    for_each_row(p.n_chains, p.place, cost, AcceptChain<decltype(zero)>{p});
  });
}

}  // namespace pf::PF_BACKEND
