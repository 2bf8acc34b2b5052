// SPDX-License-Identifier: Apache-2.0
// From a call's tensors to a backend: where it runs, and running it without the interpreter's lock.
#pragma once

#include <pybind11/pybind11.h>

#include "ops/ops.hpp"
#include "tensor_view.hpp"

namespace pf {

namespace py = pybind11;

// The ops of the CPU level chosen at import.
extern const OpTable* cpu_ops;

// Where the tensors of a call are.
Place place_of(const TensorView& x, int n_threads);

template <class Params>
void launch(void (*OpTable::*op)(const Params&), const Params& params) {
  const OpTable& ops = params.place.device < 0 ? *cpu_ops : *cuda_table();
  const py::gil_scoped_release unlocked;
  (ops.*op)(params);
}

// The functions of csrc/lattice_bindings.cpp.
void bind_lattices(py::module_& m);

}  // namespace pf
