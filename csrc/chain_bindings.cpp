// SPDX-License-Identifier: Apache-2.0
// The module's functions of Markov chains: runs of many steps, and accepting a proposal.
#include <pybind11/pybind11.h>
#include <stdlib.h>

#include <memory>
#include <new>
#include <string>
#include <utility>

#include "bindings.hpp"

namespace pf {
namespace {

// The numbers of the runs in python/pushforward/_ops/run.py.
struct RunKind {
  const char* name;
  void (*OpTable::*op)(const RunParams&);
  uint32_t purpose;
  bool accepts;
};
constexpr RunKind kRuns[] = {
    {"langevin", &OpTable::langevin_run, purpose::kProposal, false},
    {"random_walk", &OpTable::random_walk_run, purpose::kProposal, true},
    {"mala", &OpTable::mala_run, purpose::kProposal, true},
    {"underdamped", &OpTable::underdamped_run, purpose::kMomentum, false},
    {"hmc", &OpTable::hmc_run, purpose::kMomentum, true},
    {"nuts", &OpTable::nuts_run, purpose::kMomentum, true},
};

// A parameter's name, and the string that Python looks it up by.
struct Name {
  const char* text;
  PyObject* key;
  explicit Name(const char* name) : text(name), key(PyUnicode_InternFromString(name)) {
    if (key == nullptr) throw py::error_already_set();
  }
};
struct Names {
  const Name step_size{"step_size"}, beta{"beta"}, betas{"betas"}, friction{"friction"},
      velocity{"velocity"}, metric{"metric"}, metric_transposed{"metric_transposed"},
      proposal{"proposal"}, center{"center"}, persistence{"persistence"}, n_leapfrog{"n_leapfrog"},
      jitter{"jitter"}, max_depth{"max_depth"};
};

// What a call keeps alive while it runs, found by name in the kernel's parameters.
class Parameters {
 public:
  Parameters(const py::dict& given, const Shaped& s) : given_(given), s_(s) {}
  PerChain coefficient(const Name& name, double otherwise, Sign sign) {
    const py::handle value = find(name);
    if (!value) return {nullptr, 0, otherwise};
    return coefficients_.add(value, name.text, s_, sign).view;
  }
  double number(const Name& name, double otherwise) const {
    const py::handle value = find(name);
    return value ? py::cast<double>(value) : otherwise;
  }
  int64_t count(const Name& name, int64_t otherwise, int64_t least) const {
    const py::handle value = find(name);
    const int64_t n = value ? whole(value, name.text) : otherwise;
    if (n < least) bad_value(name.text, "at least " + std::to_string(least), std::to_string(n));
    return n;
  }
  // A dense tensor of `n` numbers of x's type or of `dtype`, or null.
  void* tensor(const Name& name, int64_t n, Dtype dtype) {
    const py::handle value = find(name);
    if (!value) return nullptr;
    const TensorView& t = tensors_.add(s_.other(value, name.text, n, "as the state needs"));
    t.must_be(dtype);
    return t.data;
  }
  MetricParams metric(const Names& names) {
    if (!find(names.metric)) return {MetricKind::kUnit, nullptr, nullptr};
    if (!find(names.metric_transposed)) {
      const void* diagonal = tensor(names.metric, s_.dim, s_.dtype);
      return {MetricKind::kDiagonal, diagonal, diagonal};
    }
    return {MetricKind::kDense, tensor(names.metric, s_.dim * s_.dim, s_.dtype),
            tensor(names.metric_transposed, s_.dim * s_.dim, s_.dtype)};
  }

 private:
  // Null where there is none.
  py::handle find(const Name& name) const {
    PyObject* const value = PyDict_GetItemWithError(given_.ptr(), name.key);
    if (value == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
    return value == Py_None ? nullptr : value;
  }

  const py::dict& given_;
  const Shaped& s_;
  Few<TensorView, 5> tensors_;        // betas, metric and its transpose, center, velocity
  Few<Coefficient, 3> coefficients_;  // step_size, beta, friction
};

struct TallyArgs {
  Few<TensorView, 4> tensors;
  Tallies view{};
  // (n_nonfinite, n_divergent, accepted, accepted_squares); the others may be None where nothing is
  // accepted or refused.
  TallyArgs(const py::tuple& parts, const Shaped& s, bool accepts) {
    if (parts.size() != 4) bad_value("tallies", "four tensors", std::to_string(parts.size()));
    view.n_nonfinite = counts(tensors.add(part(parts, 0), "n_nonfinite", false), s);
    if (!accepts) return;
    view.n_divergent = counts(tensors.add(part(parts, 1), "n_divergent", false), s);
    view.accepted = sums(part(parts, 2), "accepted", s);
    view.accepted_squares = sums(part(parts, 3), "accepted_squares", s);
  }
  // Nobody wants to know: on a CPU what is counted goes to memory of the call.
  explicit TallyArgs(const Shaped& s) {
    if (s.x.device() >= 0) bad_value("tallies", "four tensors on a GPU", "None");
    const auto n = static_cast<size_t>(s.n_chains);
    nowhere_.reset(static_cast<char*>(calloc(n + 1, 4 * sizeof(int64_t))));
    if (nowhere_ == nullptr) throw std::bad_alloc();
    auto* const integers = reinterpret_cast<int64_t*>(nowhere_.get());
    auto* const doubles = reinterpret_cast<double*>(integers + 2 * n);
    view = {integers, integers + n, doubles, doubles + n};
  }
  static TallyArgs of(py::handle parts, const Shaped& s, bool accepts) {
    if (parts.is_none()) return TallyArgs(s);
    return TallyArgs(py::cast<py::tuple>(parts), s, accepts);
  }

 private:
  struct Free {
    void operator()(char* memory) const { free(memory); }
  };
  static py::handle part(const py::tuple& parts, Py_ssize_t i) {
    return PyTuple_GET_ITEM(parts.ptr(), i);
  }
  double* sums(py::handle tensor, const char* name, const Shaped& s) {
    const TensorView& t = tensors.add(s.other(tensor, name, s.n_chains, "one value a chain"));
    t.must_be(Dtype::kFloat64);
    return static_cast<double*>(t.data);
  }
  std::unique_ptr<char, Free> nowhere_;
};

void run(int kind, py::handle x, const Target& target, const py::dict& parameters, py::handle seed,
         py::handle first_step, py::handle n_steps, py::handle chain_offset, py::handle steps_done,
         py::handle thin, py::handle draws, py::handle log_density, py::handle tallies,
         py::handle moments, int n_threads) {
  static const Names names;
  constexpr int kKinds = sizeof(kRuns) / sizeof(kRuns[0]);
  if (kind < 0 || kind >= kKinds) bad_value("kind", "a known run", std::to_string(kind));
  const RunKind& chosen = kRuns[kind];
  const Shaped s(x, "x", false);
  target.must_fit(s);
  Parameters given(parameters, s);
  const TallyArgs counted = TallyArgs::of(tallies, s, chosen.accepts);
  const MomentArgs m(moments, s);
  RunParams p{};
  p.dtype = s.dtype;
  p.place = place_of(s.x, n_threads);
  p.x = s.x.data;
  p.n_chains = s.n_chains;
  p.target = target.params;
  p.n_steps = whole(n_steps, "n_steps");
  p.step_size = given.coefficient(names.step_size, 1, Sign::kPositive);
  p.beta = given.coefficient(names.beta, 1, Sign::kPositive);
  p.friction = given.coefficient(names.friction, 1, Sign::kPositive);
  p.betas = static_cast<const double*>(given.tensor(names.betas, p.n_steps, Dtype::kFloat64));
  p.metric = given.metric(names);
  p.proposal = static_cast<ProposalKind>(given.count(names.proposal, 0, 0));
  p.center = given.tensor(names.center, s.dim, s.dtype);
  p.persistence = given.number(names.persistence, 0);
  p.velocity = given.tensor(names.velocity, s.n_chains * s.dim, s.dtype);
  p.n_leapfrog = given.count(names.n_leapfrog, 1, 1);
  const NoiseSource source = noise_source(seed, chosen.purpose, chain_offset, s);
  const Counter first(first_step, "first_step", s);
  auto noise = [&](uint32_t purpose, int64_t per_step) {
    NoiseSource begun = source;
    begun.purpose = purpose;
    start_at_step(begun, first, p.n_steps, per_step, "first_step");
    return begun;
  };
  p.noise = noise(chosen.purpose, s.dim);
  p.accept = noise(purpose::kAccept, 1);
  p.jitter = given.number(names.jitter, 0);
  p.jitter_noise = noise(purpose::kAdaptation, 1);
  if (chosen.op == &OpTable::nuts_run) {
    p.max_depth = given.count(names.max_depth, 10, 1);
    if (p.max_depth > 20) bad_value("max_depth", "at most 20", std::to_string(p.max_depth));
    p.tree = noise(purpose::kTree, INT64_C(1) << p.max_depth);
  }
  if (p.proposal > ProposalKind::kAutoregressive) bad_value("proposal", "a known one", "another");
  if (p.proposal == ProposalKind::kAutoregressive &&
      (p.center == nullptr || p.metric.kind != MetricKind::kDiagonal)) {
    bad_value("proposal", "a center and a diagonal metric", "none");
  }
  if (chosen.op == &OpTable::underdamped_run && p.velocity == nullptr && s.x.numel() > 0) {
    bad_value("velocity", "a tensor like x", "None");
  }
  p.steps_done = whole(steps_done, "steps_done");
  p.thin = whole(thin, "thin");
  if (p.thin < 1) bad_value("thin", "at least 1", std::to_string(p.thin));
  if (p.n_steps > INT64_MAX - p.steps_done) bad_value("n_steps", "fewer steps", "too many");
  p.tallies = counted.view;
  p.moments = m.view;
  const int64_t kept = (p.steps_done + p.n_steps) / p.thin - p.steps_done / p.thin;
  Few<TensorView, 2> outputs;
  if (!draws.is_none()) {
    const TensorView& t =
        outputs.add(s.other(draws, "draws", kept * s.n_chains * s.dim, "n_kept states"));
    t.must_be(s.dtype);
    t.must_not_overlap(s.x, false);
    p.draws = t.data;
    if (!log_density.is_none()) {
      const TensorView& values = outputs.add(
          s.other(log_density, "log_density", kept * s.n_chains, "n_kept values a chain"));
      values.must_be(s.dtype);
      p.log_density = values.data;
    }
  }
  launch(chosen.op, p);
}

void accept(py::handle x, py::handle proposed, py::handle log_density,
            py::handle proposed_log_density, py::handle score, py::handle proposed_score,
            py::handle correction, py::handle step_size, py::handle beta, py::handle seed,
            py::handle step, py::handle chain_offset, const py::tuple& tallies, py::handle taken,
            py::handle kept, py::handle moments, int n_threads) {
  const Shaped s(x, "x", false);
  const TensorView next = s.like(proposed, "proposed", true);
  Few<TensorView, 5> held;
  Memory memory;
  memory.add(s.x, true);
  memory.add(next, false);
  auto hold = [&](TensorView&& t, bool written) {
    const TensorView& view = held.add(std::move(t));
    memory.add(view, written);
    return view.data;
  };
  auto values = [&](py::handle tensor, const char* name, bool written) {
    TensorView t = s.other(tensor, name, s.n_chains, "one value a chain");
    t.must_be(s.dtype);
    return hold(std::move(t), written);
  };
  AcceptParams p{};
  p.dtype = s.dtype;
  p.place = place_of(s.x, n_threads);
  p.x = s.x.data;
  p.proposed = next.data;
  p.log_density = values(log_density, "log_density", true);
  p.proposed_log_density = values(proposed_log_density, "proposed_log_density", false);
  if (!score.is_none()) {
    p.score = hold(s.like(score, "score", false), true);
    p.proposed_score = hold(s.like(proposed_score, "proposed_score", false), false);
  } else if (!proposed_score.is_none()) {
    bad_value("proposed_score", "None where score is None", "a tensor");
  }
  p.langevin = !step_size.is_none();
  if (p.langevin && score.is_none()) bad_value("score", "the score at x", "None");
  if (!correction.is_none()) {
    if (p.langevin) bad_value("correction", "None where step_size is given", "a tensor");
    p.correction = values(correction, "correction", false);
  }
  const Coefficient h(p.langevin ? step_size : py::float_(1.0), "step_size", s, Sign::kPositive);
  const Coefficient b(beta, "beta", s, Sign::kPositive);
  const TallyArgs counted(tallies, s, true);
  const TakenArgs t(taken, kept, s);
  memory.add(t);
  const MomentArgs m(moments, s);
  for (size_t i = 0; i < counted.tensors.size(); ++i) memory.add(counted.tensors[i], true);
  memory.add(m);
  memory.must_lie_apart();
  p.n_chains = s.n_chains;
  p.dim = s.dim;
  p.step_size = h.view;
  p.beta = b.view;
  p.accept = noise_source(seed, purpose::kAccept, chain_offset, s);
  start_at_step(p.accept, step, 1, 1, "step", s);
  p.tallies = counted.view;
  p.taken = t.taken;
  p.kept = t.kept;
  p.moments = m.view;
  launch(&OpTable::accept, p);
}

}  // namespace

void bind_chains(py::module_& m) {
  py::list names;
  for (const RunKind& kind : kRuns) names.append(kind.name);
  m.attr("run_kinds") = py::tuple(names);
  m.def("run", &run);
  m.def("accept", &accept);
}

}  // namespace pf
