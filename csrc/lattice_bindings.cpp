// SPDX-License-Identifier: Apache-2.0
// Lattices at the border to Python: shapes and parameters of every lattice are checked here.
#include <string>
#include <vector>

#include "arguments.hpp"
#include "bindings.hpp"

namespace pf {
namespace {

constexpr uint32_t kSite = 10;

// x (n_lattices, *shape): dense, of 1 to 4 dimensions, every size positive.
LatticeShape shape_of(const TensorView& x, int least_dims, int most_dims) {
  const int n_dims = x.ndim - 1;
  if (n_dims < least_dims || n_dims > most_dims) {
    bad_value(x.name,
              "shape (n_lattices, *shape) with " + std::to_string(least_dims) + " to " +
                  std::to_string(most_dims) + " dimensions of a lattice",
              x.shape_text());
  }
  LatticeShape shape{n_dims, {1, 1, 1, 1}};
  for (int i = 0; i < n_dims; ++i) {
    shape.size[i] = x.shape[i + 1];
    if (shape.size[i] < 1) bad_value(x.name, "a lattice with sites", x.shape_text());
  }
  return shape;
}

// float64, one value or one a lattice, on x's device.
class LatticeParameter {
 public:
  LatticeParameter(py::handle value, const char* name, const TensorView& x)
      : tensor_(value, name, false) {
    if (tensor_.dtype() != Dtype::kFloat64) bad_type(name, "float64", "float32");
    tensor_.must_be_with(x);
    const int64_t n = tensor_.numel();
    if (n != 1 && n != x.n_chains()) {
      bad_value(name, "one value or one a lattice", tensor_.shape_text());
    }
    view = {tensor_.data, n == 1 ? 0 : 1, 0};
  }
  PerChain view;

 private:
  TensorView tensor_;
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

int64_t sites_of(const LatticeShape& s) { return s.size[0] * s.size[1] * s.size[2] * s.size[3]; }

// A state of spins: int8 or floating point words, and which of them are up and down.
void describe_spins(const TensorView& x, int* bytes, uint64_t* up, uint64_t* down) {
  if (x.code == dlpack::kInt && x.bits == 8) {
    *bytes = 1, *up = 0x01, *down = 0xff;
    return;
  }
  switch (x.storage_dtype()) {
    case Dtype::kBFloat16: *bytes = 2, *up = 0x3f80; break;
    case Dtype::kFloat16: *bytes = 2, *up = 0x3c00; break;
    case Dtype::kFloat32: *bytes = 4, *up = 0x3f800000; break;
    case Dtype::kFloat64: *bytes = 8, *up = 0x3ff0000000000000; break;
  }
  *down = *up | uint64_t{1} << (8 * *bytes - 1);
}

void ising(py::handle x, py::handle temperature, py::handle field, bool no_field, bool heat_bath,
           py::handle seed, py::handle first_step, py::handle n_steps, py::handle chain_offset,
           int n_threads) {
  const TensorView state(x, "x", false);
  IsingParams p{};
  describe_spins(state, &p.bytes, &p.up, &p.down);
  p.shape = shape_of(state, 2, 3);
  for (int i = 0; i < p.shape.n_dims; ++i) {
    if (p.shape.size[i] % 2 != 0)
      bad_value("x", "even sizes for a checkerboard", state.shape_text());
  }
  const LatticeParameter t(temperature, "temperature", state), h(field, "field", state);
  p.place = place_of(state, n_threads);
  p.x = state.data;
  p.n_lattices = state.n_chains();
  p.temperature = t.view;
  p.field = h.view;
  p.no_field = no_field;
  p.heat_bath = heat_bath;
  p.n_steps = whole(n_steps, "n_steps");
  p.noise = lattice_noise(seed, kSite, chain_offset, first_step, p.n_steps, p.n_lattices,
                          sites_of(p.shape));
  launch(&OpTable::ising, p);
}

void clusters(py::handle x, py::handle temperature, py::handle field, bool wolff, py::handle seed,
              py::handle first_step, py::handle n_steps, py::handle chain_offset, int n_threads) {
  const TensorView state(x, "x", false);
  ClusterParams p{};
  describe_spins(state, &p.bytes, &p.up, &p.down);
  p.shape = shape_of(state, 2, 3);
  const int64_t sites = sites_of(p.shape);
  if (sites > INT32_MAX) bad_value("x", "fewer than 2^31 sites a lattice", state.shape_text());
  const LatticeParameter t(temperature, "temperature", state), h(field, "field", state);
  p.place = place_of(state, n_threads);
  p.x = state.data;
  p.n_lattices = state.n_chains();
  p.temperature = t.view;
  p.field = h.view;
  p.wolff = wolff;
  p.n_steps = whole(n_steps, "n_steps");
  const NoiseSource noise =
      lattice_noise(seed, 0, chain_offset, first_step, p.n_steps, p.n_lattices, 4 * sites);
  p.seed = noise.seed;
  p.chain_offset = noise.chain_offset;
  p.first_step = static_cast<uint64_t>(whole(first_step, "first_step"));
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
    view.x = state.data;
    view.n_lattices = state.n_chains();
    view.kappa = kappa.view;
    view.lambda = lambda.view;
    view.field = field.view;
  }
};

// A GPU's: see Phi4RunParams.
struct Workspace {
  std::vector<TensorView> tensor;
  void* data = nullptr;
  Workspace(py::handle given, const Phi4Arguments& a) {
    if (given.is_none()) {
      if (a.state.device() >= 0) bad_value("workspace", "a tensor on x's device", "None");
      return;
    }
    const TensorView& t = tensor.emplace_back(given, "workspace", false);
    t.must_be_with(a.state);
    const int64_t sites = sites_of(a.view.shape);
    const int64_t row = a.view.shape.size[a.view.shape.n_dims - 1];
    const int64_t needed = 5 * sites * (a.state.bits / 8) + sites / row * 8 + 32;
    t.must_have_numel(needed * a.view.n_lattices, "bytes");
    data = t.data;
  }
};

void phi4_run(py::handle x, int move, py::handle kappa, py::handle lambda, py::handle field,
              py::handle step_size, py::handle n_leapfrog, py::handle seed, py::handle first_step,
              py::handle n_steps, py::handle chain_offset, py::handle accept,
              py::handle n_nonfinite, py::handle workspace, int n_threads) {
  if (move < 0 || move >= static_cast<int>(Phi4Move::kCount)) {
    bad_value("move", "a known move", std::to_string(move));
  }
  const Phi4Arguments a(x, false, kappa, lambda, field, n_threads);
  const LatticeParameter h(step_size, "step_size", a.state);
  Phi4RunParams p{};
  p.place = a.place;
  p.fields = a.view;
  p.move = static_cast<Phi4Move>(move);
  if (p.move == Phi4Move::kMetropolis) {
    for (int i = 0; i < a.view.shape.n_dims; ++i) {
      if (a.view.shape.size[i] % 2 != 0) {
        bad_value("x", "even sizes for a checkerboard", a.state.shape_text());
      }
    }
  }
  p.step_size = h.view;
  p.n_leapfrog = whole(n_leapfrog, "n_leapfrog");
  if (p.n_leapfrog < 1) bad_value("n_leapfrog", "at least 1", std::to_string(p.n_leapfrog));
  p.n_steps = whole(n_steps, "n_steps");
  const NoiseSource noise = lattice_noise(seed, 0, chain_offset, first_step, p.n_steps,
                                          a.view.n_lattices, sites_of(a.view.shape));
  p.seed = noise.seed;
  p.chain_offset = noise.chain_offset;
  p.first_step = static_cast<uint64_t>(whole(first_step, "first_step"));
  std::vector<TensorView> outputs;
  outputs.reserve(2);
  if (!accept.is_none()) {
    const TensorView& t = outputs.emplace_back(accept, "accept", false);
    if (t.dtype() != Dtype::kFloat64) bad_type("accept", "float64", "float32");
    t.must_be_with(a.state);
    t.must_have_numel(2 * a.view.n_lattices, "two values a lattice");
    p.accept = static_cast<double*>(t.data);
  }
  if (!n_nonfinite.is_none()) {
    const TensorView& t = outputs.emplace_back(n_nonfinite, "n_nonfinite", false);
    t.must_be_int64();
    t.must_be_with(a.state);
    t.must_have_numel(a.view.n_lattices, "one count a lattice");
    p.n_nonfinite = static_cast<int64_t*>(t.data);
  }
  const Workspace memory(workspace, a);
  p.workspace = memory.data;
  launch(&OpTable::phi4_run, p);
}

void phi4_evaluate(py::handle x, py::handle kappa, py::handle lambda, py::handle field,
                   py::handle log_density, py::handle score, py::handle workspace, int n_threads) {
  const Phi4Arguments a(x, true, kappa, lambda, field, n_threads);
  const Workspace memory(workspace, a);
  Phi4EvaluateParams p{a.place, a.view, nullptr, nullptr, memory.data};
  std::vector<TensorView> outputs;
  outputs.reserve(2);
  const auto output = [&](py::handle tensor, const char* name, int64_t n, const char* meaning) {
    const TensorView& t = outputs.emplace_back(tensor, name, false);
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
