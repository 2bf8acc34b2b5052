// SPDX-License-Identifier: Apache-2.0
// From Python arguments to the fields of the parameter structs: each check says which argument it
// was, what was expected and what came.
#pragma once

#include <pybind11/pybind11.h>
#include <string.h>

#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/view.hpp"
#include "tensor_view.hpp"

namespace pf {

constexpr uint64_t kChainLimit = uint64_t{1} << 56;

// Up to N objects, made one after another where they stay: a call reaches for no memory.
template <class T, size_t N>
class Few {
 public:
  template <class... Args>
  T& add(Args&&... args) {
    return items_[n_++].emplace(std::forward<Args>(args)...);
  }
  size_t size() const { return n_; }
  const T& operator[](size_t i) const { return *items_[i]; }

 private:
  size_t n_ = 0;
  std::optional<T> items_[N];
};

// A whole number in [0, limit] given as an int (or anything with __index__). What lies on a GPU is
// refused: reading it would wait for the GPU, and a CUDA graph would keep the number it found.
inline int64_t whole(py::handle value, const char* name, int64_t limit = INT64_MAX) {
  if (!PyLong_CheckExact(value.ptr()) && is_tensor(value) &&
      TensorView(value, name, false).device() >= 0) {
    bad_type(name, "an int in the host's memory", "a tensor on a GPU");
  }
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

// x, and what must look like it.
struct Shaped {
  TensorView x;
  Dtype dtype;
  int64_t n_chains, dim;
  // Elementwise ops take the two-byte types too.
  enum Types { kComputed, kStored };
  Shaped(py::handle tensor, const char* name, bool densify, Types types = kComputed)
      : x(tensor, name, densify),
        dtype(types == kStored ? x.storage_dtype() : x.dtype()),
        n_chains(x.n_chains()),
        dim(x.dim()) {}
  // What the ops compute with.
  Dtype real() const { return dtype == Dtype::kFloat64 ? dtype : Dtype::kFloat32; }
  TensorView like(py::handle tensor, const char* name, bool densify) const {
    TensorView t(tensor, name, densify);
    t.must_be(dtype);
    t.must_be_with(x);
    t.must_have_shape_of(x);
    return t;
  }
  // Something else than x's like: dense, `n` numbers of a type that the caller looks at.
  TensorView other(py::handle tensor, const char* name, int64_t n, const char* meaning) const {
    TensorView t(tensor, name, false);
    t.must_be_with(x);
    t.must_have_numel(n, meaning);
    return t;
  }
  // out: written, dense, x itself or apart from x
  TensorView output(py::handle tensor) const {
    TensorView out = like(tensor, "out", false);
    out.must_not_overlap(x, true);
    return out;
  }
};

// x, and where the call writes: x itself, or an output beside it.
struct WithOutput : Shaped {
  bool in_place;
  TensorView out;
  WithOutput(py::handle tensor, py::handle output_tensor, Types types)
      : Shaped(tensor, "x", tensor.ptr() != output_tensor.ptr(), types),
        in_place(tensor.ptr() == output_tensor.ptr()),
        out(in_place ? x : output(output_tensor)) {}
};

// A seed or a step: a number, or where in the memory of x's GPU it stands, so that a CUDA graph
// can be replayed with another one.
struct Counter {
  int64_t value = 0;
  const int64_t* at = nullptr;
  Counter(py::handle number, const char* name, const Shaped& s) {
    if (!PyLong_CheckExact(number.ptr()) && is_tensor(number)) {
      const TensorView t(number, name, false);
      if (t.device() >= 0) {
        t.must_be_int64();
        t.must_be_with(s.x);
        t.must_have_numel(1, "a number");
        at = static_cast<const int64_t*>(t.data);
        return;
      }
    }
    value = whole(number, name);
  }
};

inline NoiseSource noise_source(py::handle seed, uint32_t purpose, py::handle chain_offset,
                                const Shaped& s) {
  const Counter key(seed, "seed", s);
  NoiseSource noise{};
  noise.seed = static_cast<uint64_t>(key.value);
  noise.seed_at = key.at;
  noise.purpose = purpose;
  noise.chain_offset = static_cast<uint64_t>(whole(chain_offset, "chain_offset"));
  if (noise.chain_offset + static_cast<uint64_t>(s.n_chains) > kChainLimit) {
    bad_value("chain_offset", "chain_offset + n_chains <= 2^56",
              std::to_string(noise.chain_offset) + " + " + std::to_string(s.n_chains));
  }
  return noise;
}

// The first noise entry of step `first`, after checking that those of `n_steps` steps exist.
inline uint64_t first_entry(int64_t first, int64_t n_steps, int64_t per_step, const char* name) {
  const int64_t last = per_step > 0 ? INT64_MAX / per_step : INT64_MAX;
  if (first > last || n_steps > last - first) {
    bad_value(name, "a step whose noise entries stay below 2^63",
              std::to_string(first) + " with " + std::to_string(per_step) + " entries a step");
  }
  return static_cast<uint64_t>(first) * static_cast<uint64_t>(per_step);
}

// Lets the noise begin at step `step` of `n_steps` that read `per_step` entries each.
inline void start_at_step(NoiseSource& noise, const Counter& first, int64_t n_steps,
                          int64_t per_step, const char* name) {
  noise.start = first_entry(first.value, n_steps, per_step, name);
  noise.step_at = first.at;
  noise.per_step = per_step;
}
inline void start_at_step(NoiseSource& noise, py::handle step, int64_t n_steps, int64_t per_step,
                          const char* name, const Shaped& s) {
  start_at_step(noise, Counter(step, name, s), n_steps, per_step, name);
}

enum class Sign { kPositive, kAny };

// A coefficient given as a number, a 0-d tensor or one value a chain. Values in a GPU's memory are
// not looked at: that would wait for the GPU.
class Coefficient {
 public:
  Coefficient(py::handle value, const char* name, const Shaped& s, Sign sign) {
    if (PyBool_Check(value.ptr())) bad_type(name, "a number or a tensor", "bool");
    if (PyFloat_Check(value.ptr()) || (PyNumber_Check(value.ptr()) && !is_tensor(value))) {
      const double number = PyFloat_AsDouble(value.ptr());
      if (PyErr_Occurred() != nullptr) {
        const bool overflow = PyErr_ExceptionMatches(PyExc_OverflowError) != 0;
        PyErr_Clear();
        if (overflow) bad_value(name, "a finite number", "an int too large for a float");
        bad_type(name, "a number or a tensor", Py_TYPE(value.ptr())->tp_name);
      }
      view = {nullptr, 0, rounded(number, s.real())};
      check(view.number, name, sign);
      return;
    }
    const TensorView& t = tensor_.emplace(value, name, true);
    if (t.dtype() != s.real()) {
      bad_type(name, s.real() == Dtype::kFloat32 ? "float32" : "float64, the type of x", "another");
    }
    if (t.ndim > 1 || (t.ndim == 1 && t.shape[0] != s.n_chains)) {
      bad_value(name, "a number, a 0-d tensor or shape (" + std::to_string(s.n_chains) + ",)",
                "shape " + t.shape_text());
    }
    if (t.device() >= 0 || t.ndim > 0) t.must_be_with(s.x);
    view = {t.data, t.ndim, 0};
    if (t.device() >= 0) return;
    const int64_t n = t.numel();
    for (int64_t i = 0; i < n; ++i) check(value_at(t, i), name, sign);
    if (t.ndim == 0) view = {nullptr, 0, value_at(t, 0)};
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
  static double value_at(const TensorView& t, int64_t i) {
    return t.dtype() == Dtype::kFloat32 ? static_cast<const float*>(t.data)[i]
                                        : static_cast<const double*>(t.data)[i];
  }
  static double rounded(double number, Dtype dtype) {
    return dtype == Dtype::kFloat32 ? static_cast<float>(number) : number;
  }
  std::optional<TensorView> tensor_;
};

// The streaming moments: none; shift and two sums; or these, the two tensors of batches, the open
// group or None, and the number of steps of a batch.
struct MomentArgs {
  Few<TensorView, 6> tensors;
  Moments view{};
  MomentArgs(py::handle moments, const Shaped& s) : MomentArgs(moments, s.x) {}
  // The shift has the type of x, which may be spins.
  MomentArgs(py::handle moments, const TensorView& x) {
    if (moments.is_none()) return;
    static constexpr const char* kNames[] = {"shift",        "sum",           "sum_of_squares",
                                             "sum_at_batch", "batch_squares", "open_group"};
    const auto parts = py::cast<py::tuple>(moments);
    if (parts.size() != 3 && parts.size() != 7) {
      bad_value("moments", "(shift, sum, sum_of_squares), or seven parts", "another tuple");
    }
    const bool has_open = parts.size() == 7 && !parts[5].is_none();
    const size_t n = parts.size() == 3 ? 3 : has_open ? 6 : 5;
    void* data[6] = {};
    for (size_t i = 0; i < n; ++i) {
      const TensorView& t = tensors.add(parts[i], kNames[i], false);
      const bool like_x = i == 0 || i == 5;
      t.must_be_with(x);
      if (i == 5) {
        t.must_have_numel(3 * x.numel() + x.n_chains(), "three numbers of x and one a chain");
      } else {
        t.must_have_numel(x.numel(), "as many as x");
      }
      if (!like_x) t.must_be(Dtype::kFloat64);
      if (like_x && (t.code != x.code || t.bits != x.bits)) {
        bad_type(kNames[i], "the type of x", "another");
      }
      t.must_not_overlap(x, false);
      data[i] = t.data;
    }
    const auto sums = [&](size_t i) { return static_cast<double*>(data[i]); };
    view = {data[0], sums(1), sums(2), sums(3), sums(4), 0, {}};
    if (n == 3) return;
    if (has_open) {
      char* first = static_cast<char*>(data[5]);
      const int64_t bytes = x.numel() * (x.bits / 8);
      view.group = {first, first + bytes, first + 2 * bytes, first + 3 * bytes};
    }
    view.batch = whole(parts[6], "batch");
    if (view.batch < 1) bad_value("batch", "at least 1", "0");
  }
};

inline uint8_t* bytes(const TensorView& t) {
  if (t.code != dlpack::kUint || t.bits != 8) bad_type(t.name, "uint8", "another type");
  return static_cast<uint8_t*>(t.data);
}

// Who takes a proposal, and a copy of what is taken; each may be None.
struct TakenArgs {
  Few<TensorView, 2> tensors;
  uint8_t* taken = nullptr;
  void* kept = nullptr;
  TakenArgs(py::handle who, py::handle what, const Shaped& s) {
    if (!who.is_none()) {
      taken = bytes(tensors.add(s.other(who, "taken", s.n_chains, "one a chain")));
    }
    if (!what.is_none()) kept = tensors.add(s.like(what, "kept", false)).data;
  }
};

// What a call is given, and which of it the call writes.
class Memory {
 public:
  void add(const TensorView& t, bool written) {
    given_[n_] = &t;
    written_[n_++] = written;
  }
  void add(const TakenArgs& t) {
    for (size_t i = 0; i < t.tensors.size(); ++i) add(t.tensors[i], true);
  }
  void add(const MomentArgs& m) {  // whose shift is read
    for (size_t i = 0; i < m.tensors.size(); ++i) add(m.tensors[i], i > 0);
  }
  // What is written must lie apart from all else; but a proposal's value or score may be the
  // state's own.
  void must_lie_apart() const {
    for (size_t i = 0; i < n_; ++i) {
      for (size_t j = 0; written_[i] && j < n_; ++j) {
        if (i == j || !given_[i]->overlaps(*given_[j])) continue;
        const bool twins = std::string("proposed_") + given_[i]->name == given_[j]->name;
        given_[i]->must_not_overlap(*given_[j], twins);
      }
    }
  }

 private:
  // As many as accept has: x, its value and score and those of the proposal, a correction, what is
  // taken; tallies, moments
  static constexpr size_t kMost = 7 + 2 + 4 + 5;
  size_t n_ = 0;
  const TensorView* given_[kMost];
  bool written_[kMost];
};

inline int64_t* counts(const TensorView& t, const Shaped& s) {
  t.must_be_int64();
  t.must_be_with(s.x);
  t.must_have_numel(s.n_chains, "one count a chain");
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
      tensors_.back().must_be_with(tensors_.front());
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
    if (!has_tensors_) return;
    if (s.dtype != dtype) bad_type(s.x.name, "the target's dtype", "another");
    s.x.must_be_with(tensors_.front());
  }

 private:
  std::vector<TensorView> tensors_;
  std::vector<py::object> keep_;
  bool has_tensors_ = false;
};

}  // namespace pf
