// SPDX-License-Identifier: Apache-2.0
// From Python arguments to the fields of the parameter structs: each check says which argument it
// was, what was expected and what came.
#pragma once

#include <pybind11/pybind11.h>
#include <string.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "core/view.hpp"
#include "tensor_view.hpp"

namespace pf {

constexpr uint64_t kChainLimit = uint64_t{1} << 56;

// A whole number in [0, limit] given as an int (or anything with __index__).
inline int64_t whole(py::handle value, const char* name, int64_t limit = INT64_MAX) {
  if (PyFloat_Check(value.ptr()) || PyBool_Check(value.ptr())) {
    bad_type(name, "an int", Py_TYPE(value.ptr())->tp_name);
  }
  const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!index) {
    PyErr_Clear();
    bad_type(name, "an int", Py_TYPE(value.ptr())->tp_name);
  }
  int overflow = 0;
  const int64_t n = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow != 0 || n < 0 || n > limit) {
    bad_value(name, "0 <= " + std::string(name) + " <= " + std::to_string(limit),
              py::str(index).cast<std::string>());
  }
  return n;
}

inline NoiseSource noise_source(py::handle seed, uint32_t purpose, py::handle chain_offset,
                                int64_t n_chains) {
  NoiseSource noise;
  noise.seed = static_cast<uint64_t>(whole(seed, "seed"));
  noise.purpose = purpose;
  noise.chain_offset = static_cast<uint64_t>(whole(chain_offset, "chain_offset"));
  noise.start = 0;
  if (noise.chain_offset + static_cast<uint64_t>(n_chains) > kChainLimit) {
    bad_value("chain_offset", "chain_offset + n_chains <= 2^56",
              std::to_string(noise.chain_offset) + " + " + std::to_string(n_chains));
  }
  return noise;
}

// The entry that step `step` reads first, after checking that n_steps of them fit the sequence.
inline uint64_t first_entry(int64_t step, int64_t n_steps, int64_t dim, const char* name) {
  const int64_t last = dim > 0 ? INT64_MAX / dim : INT64_MAX;
  if (step > last || n_steps > last - step) {
    bad_value(name, "a step whose noise entries stay below 2^63",
              std::to_string(step) + " with " + std::to_string(dim) + " coordinates");
  }
  return static_cast<uint64_t>(step) * static_cast<uint64_t>(dim);
}

enum class Sign { kPositive, kAny };

// A coefficient given as a number, a 0-d tensor or one value a chain.
class Coefficient {
 public:
  Coefficient(py::handle value, const char* name, Dtype dtype, int64_t n_chains, Sign sign) {
    if (PyBool_Check(value.ptr())) bad_type(name, "a number or a tensor", "bool");
    if (PyFloat_Check(value.ptr()) || (PyNumber_Check(value.ptr()) && !is_tensor(value))) {
      const double number = PyFloat_AsDouble(value.ptr());
      if (PyErr_Occurred() != nullptr) {
        const bool overflow = PyErr_ExceptionMatches(PyExc_OverflowError) != 0;
        PyErr_Clear();
        if (overflow) bad_value(name, "a finite number", "an int too large for a float");
        bad_type(name, "a number or a tensor", Py_TYPE(value.ptr())->tp_name);
      }
      if (dtype == Dtype::kFloat32) {
        const float single = static_cast<float>(number);
        check(single, name, sign);
        memcpy(storage_, &single, sizeof(single));
      } else {
        check(number, name, sign);
        memcpy(storage_, &number, sizeof(number));
      }
      view = {storage_, 0};
      return;
    }
    tensor_.emplace_back(value, name, true);
    const TensorView& t = tensor_.back();
    t.must_be(dtype);
    if (t.ndim > 1 || (t.ndim == 1 && t.shape[0] != n_chains)) {
      bad_value(name, "a number, a 0-d tensor or shape (" + std::to_string(n_chains) + ",)",
                "shape " + t.shape_text());
    }
    view = {t.data, t.ndim};
    const int64_t n = t.numel();
    for (int64_t i = 0; i < n; ++i) {
      check(dtype == Dtype::kFloat32 ? static_cast<const float*>(t.data)[i]
                                     : static_cast<const double*>(t.data)[i],
            name, sign);
    }
  }
  PerChain view;

 private:
  static void check(double value, const char* name, Sign sign) {
    const bool good = std::isfinite(value) && (sign == Sign::kAny || value > 0);
    if (!good) {
      bad_value(name, sign == Sign::kPositive ? "a positive finite number" : "a finite number",
                std::to_string(value));
    }
  }
  alignas(8) char storage_[8];
  std::vector<TensorView> tensor_;
};

// x, and what must look like it.
struct Shaped {
  TensorView x;
  Dtype dtype;
  int64_t n_chains, dim;
  Shaped(py::handle tensor, const char* name, bool densify)
      : x(tensor, name, densify), dtype(x.dtype()), n_chains(x.n_chains()), dim(x.dim()) {}
  TensorView like(py::handle tensor, const char* name, bool densify) const {
    TensorView t(tensor, name, densify);
    t.must_be(dtype);
    t.must_have_shape_of(x);
    return t;
  }
  // out: written, dense, x itself or apart from x
  TensorView output(py::handle tensor) const {
    TensorView out = like(tensor, "out", false);
    out.must_not_overlap(x, true);
    return out;
  }
};

// The streaming moments, all three or none.
struct MomentArgs {
  std::vector<TensorView> tensors;
  Moments view{nullptr, nullptr, nullptr};
  MomentArgs(py::handle moments, const Shaped& s) {
    if (moments.is_none()) return;
    const auto parts = py::cast<py::tuple>(moments);
    if (parts.size() != 3) bad_value("moments", "(shift, sum, sum_of_squares)", "another tuple");
    tensors.reserve(3);
    tensors.emplace_back(parts[0], "shift", false);
    tensors.emplace_back(parts[1], "sum", false);
    tensors.emplace_back(parts[2], "sum_of_squares", false);
    tensors[0].must_be(s.dtype);
    for (const TensorView& t : tensors) t.must_have_numel(s.n_chains * s.dim, "as many as x");
    for (int i = 1; i < 3; ++i) {
      if (tensors[i].dtype() != Dtype::kFloat64) bad_type(tensors[i].name, "float64", "float32");
    }
    view = {tensors[0].data, static_cast<double*>(tensors[1].data),
            static_cast<double*>(tensors[2].data)};
  }
};

inline int64_t* counts(const TensorView& t, int64_t n_chains) {
  t.must_be_int64();
  t.must_have_numel(n_chains, "one count a chain");
  return static_cast<int64_t*>(t.data);
}

// ---- targets
// -------------------------------------------------------------------------------------

// A native target's parameters, holding the tensors it points to.
class Target {
 public:
  TargetParams params;
  Dtype dtype = Dtype::kFloat32;

  Target(int kind, int64_t dim, int64_t n_components, const py::sequence& tensors,
         const std::array<double, 3>& scalars) {
    if (kind < 0 || kind >= static_cast<int>(TargetKind::kCount)) {
      bad_value("kind", "a native target", std::to_string(kind));
    }
    params = {static_cast<TargetKind>(kind),
              dim,
              n_components,
              {nullptr, nullptr, nullptr},
              {scalars[0], scalars[1], scalars[2]}};
    const int64_t k = n_components;
    std::array<int64_t, 3> sizes{0, 0, 0};
    int64_t least_dim = 1;
    switch (params.kind) {
      case TargetKind::kGaussianDiagonal: sizes = {dim, dim, 0}; break;
      case TargetKind::kGaussianDense: sizes = {dim, dim * dim, 0}; break;
      case TargetKind::kMixtureIsotropic: sizes = {k * dim, k, k}; break;
      case TargetKind::kMixtureDiagonal: sizes = {k * dim, k * dim, k}; break;
      case TargetKind::kMixtureDense: sizes = {k * dim, k * dim * dim, k}; break;
      case TargetKind::kBanana:
      case TargetKind::kFunnel:
      case TargetKind::kRing: least_dim = 2; break;
      default: break;
    }
    if (dim < least_dim) {
      bad_value("dim", "at least " + std::to_string(least_dim), std::to_string(dim));
    }
    size_t i = 0;
    for (; i < 3 && sizes[i] > 0; ++i) {
      if (i >= tensors.size()) bad_value("tensors", "more parameters", std::to_string(i));
      tensors_.emplace_back(tensors[i], "target parameter", true);
      tensors_.back().must_have_numel(sizes[i], "parameters of the target");
      if (i == 0) dtype = tensors_.back().dtype();
      tensors_.back().must_be(dtype);
      keep_.push_back(tensors[i]);
    }
    for (size_t j = 0; j < i; ++j) params.data[j] = tensors_[j].data;
    has_tensors_ = i > 0;
  }
  void must_fit(const Shaped& s) const {
    if (s.dim != params.dim) {
      bad_value(s.x.name, "shape (n_chains, " + std::to_string(params.dim) + ") for this target",
                s.x.shape_text());
    }
    if (has_tensors_ && s.dtype != dtype) bad_type(s.x.name, "the target's dtype", "another");
  }

 private:
  std::vector<TensorView> tensors_;
  std::vector<py::object> keep_;
  bool has_tensors_ = false;
};

}  // namespace pf
