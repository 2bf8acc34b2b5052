// SPDX-License-Identifier: Apache-2.0
// Lattices at the border to Python: shapes and parameters of every lattice are checked here.
#include <cmath>
#include <optional>
#include <string>

#include "arguments.hpp"
#include "bindings.hpp"

namespace pf {
namespace {

// x (n_lattices, *shape): dense, of 1 to 4 dimensions, every size positive.
LatticeShape shape_of(const TensorView& x, int least_dims, int most_dims) {
  const int n_dims = x.ndim - 1;
  if (n_dims < least_dims || n_dims > most_dims) {
    bad_value(x.name,
              "shape (n_lattices, *shape) with " + std::to_string(least_dims) + " to " +
                  std::to_string(most_dims) + " dimensions of a lattice",
              x.shape_text());
  }
  LatticeShape shape{n_dims, {1, 1, 1, 1}, 1};
  for (int i = 0; i < n_dims; ++i) {
    shape.size[i] = x.shape[i + 1];
    if (shape.size[i] < 1) bad_value(x.name, "a lattice with sites", x.shape_text());
    shape.n_sites *= shape.size[i];
  }
  return shape;
}

void must_be_even(const LatticeShape& shape, const TensorView& x) {
  for (int i = 0; i < shape.n_dims; ++i) {
    if (shape.size[i] % 2 != 0) bad_value("x", "even sizes for a checkerboard", x.shape_text());
  }
}

// A float, or float64, one value or one a lattice, on x's device.
class LatticeParameter {
 public:
  LatticeParameter(py::handle value, const char* name, const TensorView& x) {
    if (PyFloat_CheckExact(value.ptr())) {
      view = {nullptr, 0, PyFloat_AS_DOUBLE(value.ptr())};
      return;
    }
    const TensorView& t = tensor_.emplace(value, name, false);
    if (t.dtype() != Dtype::kFloat64) bad_type(name, "float64", "float32");
    t.must_be_with(x);
    const int64_t n = t.numel();
    if (n != 1 && n != x.n_chains()) {
      bad_value(name, "one value or one a lattice", t.shape_text());
    }
    view = {t.data, n == 1 ? 0 : 1, 0};
  }
  // What is on a GPU is not looked at: that would wait for it.
  void must_be_positive(py::handle value, const char* name) const {
    bool good = std::isfinite(view.number) && view.number > 0;
    if (view.data != nullptr) {
      if (tensor_->device() >= 0) return;
      const auto* numbers = static_cast<const double*>(view.data);
      good = true;
      for (int64_t i = 0; i < tensor_->numel(); ++i) {
        good = good && std::isfinite(numbers[i]) && numbers[i] > 0;
      }
    }
    if (good || (tensor_ && tensor_->numel() == 0)) return;
    const auto text = py::reinterpret_steal<py::str>(PyObject_Format(value.ptr(), nullptr));
    if (!text) throw py::error_already_set();
    bad_value(name, "positive finite values", text.cast<std::string>());
  }
  PerChain view;

 private:
  std::optional<TensorView> tensor_;
};

// Noise that starts at sweep first_step of `per_step` entries each.
NoiseSource lattice_noise(py::handle seed, uint32_t purpose, py::handle chain_offset,
                          py::handle first_step, int64_t n_steps, int64_t n_lattices,
                          int64_t per_step) {
  NoiseSource noise{};
  noise.seed = static_cast<uint64_t>(whole(seed, "seed"));
  noise.purpose = purpose;
  noise.chain_offset = static_cast<uint64_t>(whole(chain_offset, "chain_offset"));
  if (noise.chain_offset + static_cast<uint64_t>(n_lattices) > kChainLimit) {
    bad_value("chain_offset", "chain_offset + n_lattices <= 2^56",
              std::to_string(noise.chain_offset) + " + " + std::to_string(n_lattices));
  }
  noise.start = first_entry(whole(first_step, "first_step"), n_steps, per_step, "first_step");
  noise.per_step = per_step;
  return noise;
}

// A state of spins, and the parameters of their law.
struct SpinArguments {
  TensorView state;
  LatticeParameter temperature, field;
  SpinFields view{};
  SpinArguments(py::handle x, py::handle t, py::handle h)
      : state(x, "x", false), temperature(t, "temperature", state), field(h, "field", state) {
    describe_words();
    view.x = state.data;
    view.n_lattices = state.n_chains();
    view.shape = shape_of(state, 2, 3);
    view.temperature = temperature.view;
    view.field = field.view;
  }

 private:
  // int8 or floating point words, and which of them are up and down.
  void describe_words() {
    if (state.code == dlpack::kInt && state.bits == 8) {
      view.bytes = 1, view.up = 0x01, view.down = 0xff;
      return;
    }
    switch (state.storage_dtype()) {
      case Dtype::kBFloat16: view.bytes = 2, view.up = 0x3f80; break;
      case Dtype::kFloat16: view.bytes = 2, view.up = 0x3c00; break;
      case Dtype::kFloat32: view.bytes = 4, view.up = 0x3f800000; break;
      case Dtype::kFloat64: view.bytes = 8, view.up = 0x3ff0000000000000; break;
    }
    view.down = view.up | uint64_t{1} << (8 * view.bytes - 1);
  }
};

// What a call works in: of an op that needs any, allocate(x, bytes).
struct Workspace {
  py::object memory;
  std::optional<TensorView> tensor;
  template <class Params>
  Workspace(py::handle allocate, py::handle x, const TensorView& state,
            int64_t (*OpTable::*needed)(const Params&), Params& p) {
    const int64_t bytes = (ops_of(p.place).*needed)(p);
    if (bytes == 0) return;
    memory = allocate(x, bytes);
    const TensorView& t = tensor.emplace(memory, "workspace", false);
    t.must_be_with(state);
    t.must_have_numel(bytes, "bytes");
    t.must_not_overlap(state, false);
    p.workspace = t.data;
    if (reinterpret_cast<uintptr_t>(p.workspace) % 16 != 0) {
      bad_value("workspace", "memory that begins at a multiple of 16 bytes", "another address");
    }
  }
};

// What a run writes of each lattice.
class LatticeOutputs {
 public:
  explicit LatticeOutputs(const TensorView& state) : state_(state) {}
  int64_t* count(py::handle tensor, const char* name) {
    if (tensor.is_none()) return nullptr;
    const TensorView& t = one_a_lattice(tensor, name);
    t.must_be_int64();
    return static_cast<int64_t*>(t.data);
  }
  void acceptances(py::handle accepted, py::handle squares, Tallies& tallies) {
    if (accepted.is_none() != squares.is_none()) {
      bad_value("accepted_squares", "given together with accepted", "one of them");
    }
    if (accepted.is_none()) return;
    tallies.accepted = sum(accepted, "accepted");
    tallies.accepted_squares = sum(squares, "accepted_squares");
  }

 private:
  const TensorView& one_a_lattice(py::handle tensor, const char* name) {
    const TensorView& t = tensors_.add(tensor, name, false);
    t.must_be_with(state_);
    t.must_have_numel(state_.n_chains(), "one value a lattice");
    t.must_not_overlap(state_, false);
    for (size_t i = 0; i + 1 < tensors_.size(); ++i) t.must_not_overlap(tensors_[i], false);
    return t;
  }
  double* sum(py::handle tensor, const char* name) {
    const TensorView& t = one_a_lattice(tensor, name);
    if (t.dtype() != Dtype::kFloat64) bad_type(name, "float64", "float32");
    return static_cast<double*>(t.data);
  }
  const TensorView& state_;
  Few<TensorView, 4> tensors_;
};

// Steps recorded before a call of n_steps.
int64_t recorded(py::handle steps_done, int64_t n_steps) {
  const int64_t done = whole(steps_done, "steps_done");
  if (n_steps > INT64_MAX - done) bad_value("n_steps", "fewer steps", "too many");
  return done;
}

void ising(py::handle x, py::handle temperature, py::handle field, bool no_field, bool heat_bath,
           py::handle seed, py::handle first_step, py::handle n_steps, py::handle chain_offset,
           py::handle accepted, py::handle accepted_squares, py::handle moments,
           py::handle steps_done, py::handle workspace, int n_threads) {
  const SpinArguments a(x, temperature, field);
  must_be_even(a.view.shape, a.state);
  IsingParams p{};
  p.place = place_of(a.state, n_threads);
  p.spins = a.view;
  p.no_field = no_field;
  p.heat_bath = heat_bath;
  p.n_steps = whole(n_steps, "n_steps");
  p.noise = lattice_noise(seed, purpose::kSite, chain_offset, first_step, p.n_steps,
                          a.view.n_lattices, a.view.shape.n_sites);
  if (!accepted.is_none() && heat_bath) {
    bad_value("accepted", "None for a heat bath, which refuses nothing", "a tensor");
  }
  LatticeOutputs outputs(a.state);
  outputs.acceptances(accepted, accepted_squares, p.tallies);
  const MomentArgs sums(moments, a.state);
  p.moments = sums.view;
  p.steps_done = recorded(steps_done, p.n_steps);
  const Workspace memory(workspace, x, a.state, &OpTable::ising_workspace, p);
  launch(&OpTable::ising, p);
}

void clusters(py::handle x, py::handle temperature, py::handle field, bool wolff, py::handle seed,
              py::handle first_step, py::handle n_steps, py::handle chain_offset,
              py::handle moments, py::handle steps_done, py::handle workspace, int n_threads) {
  const SpinArguments a(x, temperature, field);
  const int64_t sites = a.view.shape.n_sites;
  if (sites > INT32_MAX) bad_value("x", "fewer than 2^31 sites a lattice", a.state.shape_text());
  ClusterParams p{};
  p.place = place_of(a.state, n_threads);
  p.spins = a.view;
  p.wolff = wolff;
  p.n_steps = whole(n_steps, "n_steps");
  const NoiseSource noise =
      lattice_noise(seed, 0, chain_offset, first_step, p.n_steps, a.view.n_lattices, 4 * sites);
  p.seed = noise.seed;
  p.chain_offset = noise.chain_offset;
  p.first_step = static_cast<uint64_t>(whole(first_step, "first_step"));
  const MomentArgs sums(moments, a.state);
  p.moments = sums.view;
  p.steps_done = recorded(steps_done, p.n_steps);
  const Workspace memory(workspace, x, a.state, &OpTable::clusters_workspace, p);
  launch(&OpTable::clusters, p);
}

struct Phi4Arguments {
  TensorView state;
  LatticeParameter kappa, lambda, field;
  Phi4Fields view{};
  Place place{};
  Phi4Arguments(py::handle x, bool read_only, py::handle k, py::handle l, py::handle h,
                int n_threads)
      : state(x, "x", read_only),
        kappa(k, "kappa", state),
        lambda(l, "lam", state),
        field(h, "field", state) {
    view.dtype = state.dtype();
    view.shape = shape_of(state, 1, 4);
    place = place_of(state, n_threads);
    if (place.device >= 0 && view.shape.n_sites > kMostOnGpu) {
      bad_value("x", "at most 2e9 sites a lattice on a GPU", state.shape_text());
    }
    view.x = state.data;
    view.n_lattices = state.n_chains();
    view.kappa = kappa.view;
    view.lambda = lambda.view;
    view.field = field.view;
  }

 private:
  static constexpr int64_t kMostOnGpu = 2000000000;  // whose kernels count them in 32 bits
};

void phi4_run(py::handle x, int move, py::handle kappa, py::handle lambda, py::handle field,
              py::handle step_size, py::handle n_leapfrog, double jitter, py::handle seed,
              py::handle first_step, py::handle n_steps, py::handle chain_offset,
              py::handle accepted, py::handle accepted_squares, py::handle n_nonfinite,
              py::handle n_divergent, py::handle moments, py::handle steps_done,
              py::handle workspace, int n_threads) {
  if (move < 0 || move >= static_cast<int>(Phi4Move::kCount)) {
    bad_value("move", "a known move", std::to_string(move));
  }
  const Phi4Arguments a(x, false, kappa, lambda, field, n_threads);
  const LatticeParameter h(step_size, "step_size", a.state);
  Phi4RunParams p{};
  p.place = a.place;
  p.fields = a.view;
  p.move = static_cast<Phi4Move>(move);
  h.must_be_positive(step_size, p.move == Phi4Move::kMetropolis ? "width" : "step_size");
  if (p.move == Phi4Move::kMetropolis) must_be_even(a.view.shape, a.state);
  p.step_size = h.view;
  p.n_leapfrog = whole(n_leapfrog, "n_leapfrog");
  if (p.n_leapfrog < 1) bad_value("n_leapfrog", "at least 1", std::to_string(p.n_leapfrog));
  if (!(jitter >= 0 && jitter < 1)) bad_value("jitter", "0 <= jitter < 1", std::to_string(jitter));
  p.jitter = jitter;
  p.n_steps = whole(n_steps, "n_steps");
  const NoiseSource noise = lattice_noise(seed, 0, chain_offset, first_step, p.n_steps,
                                          a.view.n_lattices, a.view.shape.n_sites);
  p.seed = noise.seed;
  p.chain_offset = noise.chain_offset;
  p.first_step = static_cast<uint64_t>(whole(first_step, "first_step"));
  LatticeOutputs outputs(a.state);
  if (!accepted.is_none() && p.move == Phi4Move::kLangevin) {
    bad_value("accepted", "None for a move that is always taken", "a tensor");
  }
  outputs.acceptances(accepted, accepted_squares, p.tallies);
  p.tallies.n_nonfinite = outputs.count(n_nonfinite, "n_nonfinite");
  p.tallies.n_divergent = outputs.count(n_divergent, "n_divergent");
  const MomentArgs streamed(moments, a.state);
  p.moments = streamed.view;
  p.steps_done = recorded(steps_done, p.n_steps);
  const Workspace memory(workspace, x, a.state, &OpTable::phi4_run_workspace, p);
  launch(&OpTable::phi4_run, p);
}

void phi4_evaluate(py::handle x, py::handle kappa, py::handle lambda, py::handle field,
                   py::handle log_density, py::handle score, py::handle workspace, int n_threads) {
  const Phi4Arguments a(x, true, kappa, lambda, field, n_threads);
  Phi4EvaluateParams p{a.place, a.view, nullptr, nullptr, nullptr};
  Few<TensorView, 2> outputs;
  const auto output = [&](py::handle tensor, const char* name, int64_t n, const char* meaning) {
    const TensorView& t = outputs.add(tensor, name, false);
    t.must_be(a.view.dtype);
    t.must_be_with(a.state);
    t.must_have_numel(n, meaning);
    t.must_not_overlap(a.state, false);
    return t.data;
  };
  if (!log_density.is_none()) {
    p.log_density = output(log_density, "log_density", a.view.n_lattices, "one value a lattice");
  }
  if (!score.is_none()) p.score = output(score, "score", a.state.numel(), "as many as x");
  const Workspace memory(workspace, x, a.state, &OpTable::phi4_evaluate_workspace, p);
  launch(&OpTable::phi4_evaluate, p);
}

}  // namespace

void bind_lattices(py::module_& m) {
  m.def("ising", &ising);
  m.def("clusters", &clusters);
  m.def("phi4_run", &phi4_run);
  m.def("phi4_evaluate", &phi4_evaluate);
}

}  // namespace pf
