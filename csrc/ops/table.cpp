// SPDX-License-Identifier: Apache-2.0
// One table of ops a CPU level, and the choice between them at run time.
#include <string.h>

#include "ops/ops.hpp"

// clang-format off
#define PF_LEVEL_TABLE(level, level_name)                                                      \
  namespace level {                                                                            \
  void fill(const FillParams&);                                                                \
  void langevin(const LangevinParams&);                                                        \
  void langevin_run(const RunParams&);                                                         \
  void random_walk_run(const RunParams&);                                                      \
  void mala_run(const RunParams&);                                                             \
  void underdamped_run(const RunParams&);                                                      \
  void hmc_run(const RunParams&);                                                              \
  void nuts_run(const RunParams&);                                                             \
  void accept(const AcceptParams&);                                                            \
  void evaluate(const EvaluateParams&);                                                        \
  void commit(const CommitParams&);                                                            \
  void diffuse(const DiffuseParams&);                                                          \
  void reverse(const ReverseParams&);                                                          \
  void pool(const PoolParams&);                                                                \
  void totals(const TotalsParams&);                                                            \
  void add_states(const AddStatesParams&);                                                     \
  void pooled(const PooledParams&);                                                            \
  void sketch(const SketchParams&);                                                            \
  void math(const MathParams&);                                                                \
  void ising(const IsingParams&);                                                              \
  void clusters(const ClusterParams&);                                                         \
  void phi4_run(const Phi4RunParams&);                                                         \
  void phi4_evaluate(const Phi4EvaluateParams&);                                               \
  int64_t ising_workspace(const IsingParams&);                                                 \
  int64_t clusters_workspace(const ClusterParams&);                                            \
  int64_t phi4_run_workspace(const Phi4RunParams&);                                            \
  int64_t phi4_evaluate_workspace(const Phi4EvaluateParams&);                                  \
  static const OpTable table = {level_name, fill, langevin, langevin_run, random_walk_run,     \
                                mala_run, underdamped_run, hmc_run, nuts_run, accept,          \
                                evaluate, commit, diffuse, reverse, pool, totals, add_states,  \
                                pooled, sketch, math, ising, clusters, phi4_run,               \
                                phi4_evaluate, ising_workspace, clusters_workspace,            \
                                phi4_run_workspace, phi4_evaluate_workspace};                  \
  }
// clang-format on

namespace pf {

// PF_HAS_<level>: those that CMake was told to build.
#if defined(PF_HAS_baseline)
PF_LEVEL_TABLE(cpu_baseline, "baseline")
#endif
#if defined(PF_HAS_v3)
PF_LEVEL_TABLE(cpu_v3, "v3")
#endif
#if defined(PF_HAS_v4)
PF_LEVEL_TABLE(cpu_v4, "v4")
#endif
#if defined(PF_WITH_EMULATOR)  // the CUDA backend run by the host, for the tests
PF_LEVEL_TABLE(emulated, "emulator")
#endif
#if defined(PF_WITH_CUDA)
PF_LEVEL_TABLE(cuda, "cuda")
const OpTable* cuda_table() { return &cuda::table; }
#else
const OpTable* cuda_table() { return nullptr; }
#endif

const OpTable* select_cpu_table(const char* forced) {
  const bool any_level = forced == nullptr || forced[0] == '\0';
  auto wanted = [&](const char* name) { return any_level || strcmp(forced, name) == 0; };
#if defined(PF_HAS_v3) || defined(PF_HAS_v4)
  __builtin_cpu_init();
  // What the psABI calls x86-64-v4 and v3, by the features the kernels are compiled for.
  const bool has_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi2");
#endif
#if defined(PF_HAS_v4)
  const bool has_v4 = has_v3 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
  if (wanted("v4") && has_v4) return &cpu_v4::table;
#endif
#if defined(PF_HAS_v3)
  if (wanted("v3") && has_v3) return &cpu_v3::table;
#endif
#if defined(PF_WITH_EMULATOR)
  if (!any_level && wanted("emulator")) return &emulated::table;
#endif
#if defined(PF_HAS_baseline)
  if (wanted("baseline")) return &cpu_baseline::table;
#endif
  return nullptr;
}

}  // namespace pf
