// SPDX-License-Identifier: Apache-2.0
// What the files with the module's functions share: where a call runs, and how it gets there.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "arguments.hpp"
#include "ops/ops.hpp"
#include "tensor_view.hpp"

namespace pf {

// The ops of the CPU level that was chosen at import.
extern const OpTable* cpu_ops;

// Where the tensors of a call are.
inline Place place_of(const TensorView& x, int n_threads) {
  if (x.device() < 0) return {n_threads, -1, nullptr};
  if (cuda_table() == nullptr) {
    throw std::runtime_error(std::string(x.name) + ": expected a tensor on the CPU, because this " +
                             "build of pushforward has no CUDA backend (PF_CUDA=OFF or no nvcc " +
                             "when it was built); got one on cuda:" + std::to_string(x.device()));
  }
  return {n_threads, x.device(), current_stream(x.device())};
}

inline const OpTable& ops_of(const Place& place) {
  return place.device < 0 ? *cpu_ops : *cuda_table();
}

template <class Params>
void launch(void (*OpTable::*op)(const Params&), const Params& params) {
  const OpTable& ops = ops_of(params.place);
  const py::gil_scoped_release unlocked;
  (ops.*op)(params);
}

// The functions of csrc/chain_bindings.cpp and csrc/lattice_bindings.cpp.
void bind_chains(py::module_& m);
void bind_lattices(py::module_& m);

}  // namespace pf
