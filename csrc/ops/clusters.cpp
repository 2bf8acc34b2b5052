// SPDX-License-Identifier: Apache-2.0
// Cluster moves of the Ising model, Wolff or Swendsen-Wang, many in one call.
#include "kernels/clusters.hpp"

#include "backend/clusters.hpp"
#include "ops/ops.hpp"

namespace pf::PF_BACKEND {

int64_t clusters_workspace(const ClusterParams& p) {
  return cluster_workspace(p.spins.shape, p.spins.n_lattices, p.place);
}

void clusters(const ClusterParams& p) {
  if (p.spins.n_lattices == 0 || p.n_steps == 0) return;
  const ClusterMoves moves{p.spins, p.seed, p.chain_offset, p.first_step, p.n_steps};
  with_spins(p.spins, [&](const auto& spins) PF_INLINE_LAMBDA {
    const SpinSums sums(p.moments, p.steps_done, p.n_steps, spins);
    if (p.wolff) {
      turn_clusters(spins, moves, sums, p.workspace, p.place);
    } else {
      redraw_clusters(spins, moves, sums, p.workspace, p.place);
    }
  });
}

}  // namespace pf::PF_BACKEND
