// SPDX-License-Identifier: Apache-2.0
// The module's functions of Markov chains: runs of many steps, and accepting a proposal.
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

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

// What a call keeps alive while it runs, found by name in the kernel's parameters.
class Parameters {
 public:
  Parameters(const py::dict& given, const Shaped& s) : given_(given), s_(s) {
    tensors_.reserve(8);
    coefficients_.reserve(4);
  }
  bool has(const char* name) const { return given_.contains(name) && !given_[name].is_none(); }
  py::object at(const char* name) const { return given_[name]; }
  PerChain coefficient(const char* name, double otherwise, Sign sign) {
    if (!has(name)) return {nullptr, 0, otherwise};
    coefficients_.emplace_back(at(name), name, s_, sign);
    return coefficients_.back().view;
  }
  double number(const char* name, double otherwise) const {
    return has(name) ? py::cast<double>(at(name)) : otherwise;
  }
  int64_t count(const char* name, int64_t otherwise, int64_t least) const {
    const int64_t n = has(name) ? whole(at(name), name) : otherwise;
    if (n < least) bad_value(name, "at least " + std::to_string(least), std::to_string(n));
    return n;
  }
  // A dense tensor of `n` numbers of x's type or of `dtype`, or null.
  void* tensor(const char* name, int64_t n, Dtype dtype) {
    if (!has(name)) return nullptr;
    tensors_.push_back(s_.other(at(name), name, n, "as the state needs"));
    tensors_.back().must_be(dtype);
    return tensors_.back().data;
  }
  MetricParams metric() {
    if (!has("metric")) return {MetricKind::kUnit, nullptr, nullptr};
    if (!has("metric_transposed")) {
      const void* diagonal = tensor("metric", s_.dim, s_.dtype);
      return {MetricKind::kDiagonal, diagonal, diagonal};
    }
    return {MetricKind::kDense, tensor("metric", s_.dim * s_.dim, s_.dtype),
            tensor("metric_transposed", s_.dim * s_.dim, s_.dtype)};
  }

 private:
  const py::dict& given_;
  const Shaped& s_;
  std::vector<TensorView> tensors_;
  std::vector<Coefficient> coefficients_;
};

struct TallyArgs {
  std::vector<TensorView> tensors;
  Tallies view{};
  // (n_nonfinite, n_divergent, accepted, accepted_squares); the others may be None where nothing is
  // accepted or refused.
  TallyArgs(const py::tuple& parts, const Shaped& s, bool accepts) {
    if (parts.size() != 4) bad_value("tallies", "four tensors", std::to_string(parts.size()));
    tensors.reserve(4);
    tensors.emplace_back(parts[0], "n_nonfinite", false);
    view.n_nonfinite = counts(tensors.back(), s);
    if (!accepts) return;
    tensors.emplace_back(parts[1], "n_divergent", false);
    view.n_divergent = counts(tensors.back(), s);
    view.accepted = sums(parts[2], "accepted", s);
    view.accepted_squares = sums(parts[3], "accepted_squares", s);
  }

 private:
  double* sums(py::handle tensor, const char* name, const Shaped& s) {
    tensors.push_back(s.other(tensor, name, s.n_chains, "one value a chain"));
    tensors.back().must_be(Dtype::kFloat64);
    return static_cast<double*>(tensors.back().data);
  }
};

void run(int kind, py::handle x, const Target& target, const py::dict& parameters, py::handle seed,
         py::handle first_step, py::handle n_steps, py::handle chain_offset, py::handle steps_done,
         py::handle thin, py::handle draws, py::handle log_density, const py::tuple& tallies,
         py::handle moments, int n_threads) {
  constexpr int kKinds = sizeof(kRuns) / sizeof(kRuns[0]);
  if (kind < 0 || kind >= kKinds) bad_value("kind", "a known run", std::to_string(kind));
  const RunKind& chosen = kRuns[kind];
  const Shaped s(x, "x", false);
  target.must_fit(s);
  Parameters given(parameters, s);
  const TallyArgs counted(tallies, s, chosen.accepts);
  const MomentArgs m(moments, s);
  RunParams p{};
  p.dtype = s.dtype;
  p.place = place_of(s.x, n_threads);
  p.x = s.x.data;
  p.n_chains = s.n_chains;
  p.target = target.params;
  p.n_steps = whole(n_steps, "n_steps");
  p.step_size = given.coefficient("step_size", 1, Sign::kPositive);
  p.beta = given.coefficient("beta", 1, Sign::kPositive);
  p.friction = given.coefficient("friction", 1, Sign::kPositive);
  p.betas = static_cast<const double*>(given.tensor("betas", p.n_steps, Dtype::kFloat64));
  p.metric = given.metric();
  p.proposal = static_cast<ProposalKind>(given.count("proposal", 0, 0));
  p.center = given.tensor("center", s.dim, s.dtype);
  p.persistence = given.number("persistence", 0);
  p.velocity = given.tensor("velocity", s.n_chains * s.dim, s.dtype);
  p.n_leapfrog = given.count("n_leapfrog", 1, 1);
  auto noise = [&](uint32_t purpose, int64_t per_step) {
    NoiseSource source = noise_source(seed, purpose, chain_offset, s);
    start_at_step(source, first_step, p.n_steps, per_step, "first_step", s);
    return source;
  };
  p.noise = noise(chosen.purpose, s.dim);
  p.accept = noise(purpose::kAccept, 1);
  p.jitter = given.number("jitter", 0);
  p.jitter_noise = noise(purpose::kAdaptation, 1);
  if (chosen.op == &OpTable::nuts_run) {
    p.max_depth = given.count("max_depth", 10, 1);
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
  std::vector<TensorView> outputs;
  outputs.reserve(2);
  if (!draws.is_none()) {
    outputs.push_back(s.other(draws, "draws", kept * s.n_chains * s.dim, "n_kept states"));
    outputs.back().must_be(s.dtype);
    outputs.back().must_not_overlap(s.x, false);
    p.draws = outputs.back().data;
    if (!log_density.is_none()) {
      outputs.push_back(
          s.other(log_density, "log_density", kept * s.n_chains, "n_kept values a chain"));
      outputs.back().must_be(s.dtype);
      p.log_density = outputs.back().data;
    }
  }
  launch(chosen.op, p);
}

bool is_named(const TensorView& t, const std::string& name) { return t.name == name; }

void accept(py::handle x, py::handle proposed, py::handle log_density,
            py::handle proposed_log_density, py::handle score, py::handle proposed_score,
            py::handle correction, py::handle step_size, py::handle beta, py::handle seed,
            py::handle step, py::handle chain_offset, const py::tuple& tallies, py::handle moments,
            int n_threads) {
  const Shaped s(x, "x", false);
  const TensorView next = s.like(proposed, "proposed", true);
  next.must_not_overlap(s.x, false);
  std::vector<TensorView> held;
  held.reserve(5);
  auto values = [&](py::handle tensor, const char* name) {
    held.push_back(s.other(tensor, name, s.n_chains, "one value a chain"));
    held.back().must_be(s.dtype);
    return held.back().data;
  };
  AcceptParams p{};
  p.dtype = s.dtype;
  p.place = place_of(s.x, n_threads);
  p.x = s.x.data;
  p.proposed = next.data;
  p.log_density = values(log_density, "log_density");
  p.proposed_log_density = values(proposed_log_density, "proposed_log_density");
  if (!score.is_none()) {
    held.push_back(s.like(score, "score", false));
    p.score = held.back().data;
    held.push_back(s.like(proposed_score, "proposed_score", false));
    p.proposed_score = held.back().data;
  } else if (!proposed_score.is_none()) {
    bad_value("proposed_score", "None where score is None", "a tensor");
  }
  p.langevin = !step_size.is_none();
  if (p.langevin && score.is_none()) bad_value("score", "the score at x", "None");
  if (!correction.is_none()) {
    if (p.langevin) bad_value("correction", "None where step_size is given", "a tensor");
    p.correction = values(correction, "correction");
  }
  const Coefficient h(p.langevin ? step_size : py::float_(1.0), "step_size", s, Sign::kPositive);
  const Coefficient b(beta, "beta", s, Sign::kPositive);
  const TallyArgs counted(tallies, s, true);
  const MomentArgs m(moments, s);
  std::vector<const TensorView*> given{&s.x, &next}, written{&s.x};
  for (const TensorView& t : held) {
    given.push_back(&t);
    if (is_named(t, "log_density") || is_named(t, "score")) written.push_back(&t);
  }
  for (const TensorView& t : counted.tensors) {
    given.push_back(&t);
    written.push_back(&t);
  }
  for (const TensorView& t : m.tensors) {
    given.push_back(&t);
    if (!is_named(t, "shift")) written.push_back(&t);
  }
  for (const TensorView* out : written) {
    for (const TensorView* other : given) {
      if (other == out) continue;
      // A proposal's value or score may be the state's own.
      const bool may_be_same = is_named(*other, std::string("proposed_") + out->name);
      out->must_not_overlap(*other, may_be_same);
    }
  }
  p.n_chains = s.n_chains;
  p.dim = s.dim;
  p.step_size = h.view;
  p.beta = b.view;
  p.accept = noise_source(seed, purpose::kAccept, chain_offset, s);
  start_at_step(p.accept, step, 1, 1, "step", s);
  p.tallies = counted.view;
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
