// SPDX-License-Identifier: Apache-2.0
// One table of ops a CPU level, and the choice between them at run time.
#include <string.h>

#include "ops/ops.hpp"

#define PF_LEVEL_TABLE(level, level_name)                                               \
  namespace level {                                                                     \
  void fill(const FillParams&);                                                         \
  void langevin(const LangevinParams&);                                                 \
  void langevin_run(const LangevinRunParams&);                                          \
  void evaluate(const EvaluateParams&);                                                 \
  void commit(const CommitParams&);                                                     \
  void diffuse(const DiffuseParams&);                                                   \
  void reverse(const ReverseParams&);                                                   \
  void pool(const PoolParams&);                                                         \
  void math(const MathParams&);                                                         \
  void ising(const IsingParams&);                                                       \
  void clusters(const ClusterParams&);                                                  \
  void phi4_run(const Phi4RunParams&);                                                  \
  void phi4_evaluate(const Phi4EvaluateParams&);                                        \
  static const OpTable table = {level_name, fill,     langevin, langevin_run, evaluate, \
                                commit,     diffuse,  reverse,  pool,         math,     \
                                ising,      clusters, phi4_run, phi4_evaluate};         \
  }

namespace pf {

PF_LEVEL_TABLE(cpu_baseline, "baseline")
#if defined(__x86_64__) && !defined(PF_ONLY_BASELINE)
PF_LEVEL_TABLE(cpu_v3, "v3")
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
#if defined(__x86_64__) && !defined(PF_ONLY_BASELINE)
  __builtin_cpu_init();
  // What the psABI calls x86-64-v4 and v3, by the features the kernels are compiled for.
  const bool has_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi2");
  const bool has_v4 = has_v3 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
  if (wanted("v4") && has_v4) return &cpu_v4::table;
  if (wanted("v3") && has_v3) return &cpu_v3::table;
#endif
#if defined(PF_WITH_EMULATOR)
  if (!any_level && wanted("emulator")) return &emulated::table;
#endif
  if (wanted("baseline")) return &cpu_baseline::table;
  return nullptr;
}

}  // namespace pf
