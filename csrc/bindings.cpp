// SPDX-License-Identifier: Apache-2.0
// The native module: Python arguments become parameter structs, are checked, and go to the ops
// of the CPU level chosen at import. No mathematics here.
#include <pybind11/pybind11.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "backend/threads.hpp"
#include "bindings.hpp"
#include "ops/ops.hpp"
#include "tensor_view.hpp"

namespace pf {

const OpTable* cpu_ops = nullptr;

namespace {

// ---- the module's functions
// ------------------------------------------------------------------------

void fill(py::handle out, bool uniform, py::handle seed, py::handle purpose,
          py::handle chain_offset, py::handle start, int n_threads) {
  const Shaped s(out, "out", false, Shaped::kStored);
  if (s.x.ndim != 2) bad_value("out", "shape (n_chains, n)", s.x.shape_text());
  FillParams p{
      s.dtype,
      place_of(s.x, n_threads),
      s.x.data,
      s.n_chains,
      s.dim,
      noise_source(seed, static_cast<uint32_t>(whole(purpose, "purpose", 255)), chain_offset, s),
      uniform};
  const Counter first(start, "start", s);  // in a GPU's memory: how many times n
  if (first.value > INT64_MAX - p.n_per_row)
    bad_value("start", "start + n < 2^63", std::to_string(first.value));
  p.noise.start = static_cast<uint64_t>(first.value);
  p.noise.step_at = first.at;
  p.noise.per_step = p.n_per_row;
  launch(&OpTable::fill, p);
}

void langevin(py::handle out, py::handle x, py::handle score, py::handle step_size, py::handle beta,
              py::handle seed, py::handle step, py::handle chain_offset, int n_threads) {
  const WithOutput s(x, out, Shaped::kStored);
  const TensorView given = s.like(score, "score", true);
  s.out.must_not_overlap(given, true);
  const Coefficient h(step_size, "step_size", s, Sign::kPositive);
  const Coefficient b(beta, "beta", s, Sign::kPositive);
  LangevinParams p{s.dtype,    place_of(s.x, n_threads),
                   s.out.data, s.x.data,
                   given.data, s.n_chains,
                   s.dim,      h.view,
                   b.view,     noise_source(seed, purpose::kProposal, chain_offset, s)};
  start_at_step(p.noise, step, 1, s.dim, "step", s);
  launch(&OpTable::langevin, p);
}

void evaluate(const Target& target, py::handle x, py::handle log_density, py::handle score,
              int n_threads) {
  const Shaped s(x, "x", true);
  target.must_fit(s);
  EvaluateParams p{s.dtype, place_of(s.x, n_threads), s.x.data, s.n_chains, target.params, nullptr,
                   nullptr};
  Few<TensorView, 2> outputs;
  if (!log_density.is_none()) {
    const TensorView& t =
        outputs.add(s.other(log_density, "log_density", s.n_chains, "one value a chain"));
    t.must_be(s.dtype);
    p.log_density = t.data;
  }
  if (!score.is_none()) p.score = outputs.add(s.like(score, "score", false)).data;
  launch(&OpTable::evaluate, p);
}

void commit(py::handle x, py::handle proposed, py::handle n_nonfinite, py::handle taken,
            py::handle kept, py::handle moments, int n_threads) {
  const Shaped s(x, "x", false);
  const TensorView next = s.like(proposed, "proposed", true);
  const TensorView refused(n_nonfinite, "n_nonfinite", false);
  const TakenArgs t(taken, kept, s);
  const MomentArgs m(moments, s);
  Memory memory;
  memory.add(s.x, true);
  memory.add(next, false);
  memory.add(refused, true);
  memory.add(t);
  memory.add(m);
  memory.must_lie_apart();
  launch(&OpTable::commit,
         CommitParams{s.dtype, place_of(s.x, n_threads), s.x.data, next.data, s.n_chains, s.dim,
                      counts(refused, s), t.taken, t.kept, m.view});
}

void diffuse(py::handle out, py::handle x, py::handle mean_scale, py::handle std, py::handle seed,
             py::handle purpose, py::handle step, py::handle chain_offset, int n_threads) {
  const Shaped s(x, "x", true, Shaped::kStored);
  const TensorView target = s.output(out);
  const Coefficient a(mean_scale, "mean_scale", s, Sign::kAny);
  const Coefficient b(std, "std", s, Sign::kAny);
  const auto kind = static_cast<uint32_t>(whole(purpose, "purpose", 255));
  DiffuseParams p{s.dtype,
                  place_of(s.x, n_threads),
                  target.data,
                  s.x.data,
                  s.n_chains,
                  s.dim,
                  a.view,
                  b.view,
                  noise_source(seed, kind, chain_offset, s)};
  start_at_step(p.noise, step, 1, s.dim, "step", s);
  launch(&OpTable::diffuse, p);
}

void reverse(py::handle out, py::handle x, py::handle score, py::handle growth,
             py::handle drift_scale, py::handle noise_scale, py::handle seed, py::handle step,
             py::handle chain_offset, int n_threads) {
  const WithOutput s(x, out, Shaped::kStored);
  const TensorView given = s.like(score, "score", true);
  s.out.must_not_overlap(given, true);
  const Coefficient g(growth, "growth", s, Sign::kAny);
  const Coefficient d(drift_scale, "drift_scale", s, Sign::kAny);
  const Coefficient n(noise_scale, "noise_scale", s, Sign::kAny);
  ReverseParams p{s.dtype,
                  place_of(s.x, n_threads),
                  s.out.data,
                  s.x.data,
                  given.data,
                  s.n_chains,
                  s.dim,
                  g.view,
                  d.view,
                  n.view,
                  noise_source(seed, purpose::kReverse, chain_offset, s)};
  start_at_step(p.noise, step, 1, s.dim, "step", s);
  launch(&OpTable::reverse, p);
}

void pool(py::handle x, py::handle n_steps, py::handle n_left_out, py::handle moments,
          py::handle mean, py::handle var, int n_threads) {
  const Shaped s(x, "x", true);
  const MomentArgs m(moments, s);
  const TensorView left_out(n_left_out, "n_left_out", false);
  const TensorView mean_out = s.other(mean, "mean", s.dim, "one value a coordinate");
  const TensorView var_out = s.other(var, "var", s.dim, "one value a coordinate");
  for (const TensorView* t : {&mean_out, &var_out}) {
    if (t->dtype() != Dtype::kFloat64) bad_type(t->name, "float64", "float32");
  }
  if (m.tensors.size() == 0) bad_value("moments", "the three tensors", "None");
  launch(&OpTable::pool,
         PoolParams{s.dtype, place_of(s.x, n_threads), s.n_chains, s.dim, whole(n_steps, "n_steps"),
                    counts(left_out, s), m.view, static_cast<double*>(mean_out.data),
                    static_cast<double*>(var_out.data)});
}

// What is written may be sum, sum_of_squares and sum_at_batch; `open_batch` may be None.
void totals(py::handle x, py::handle moments, py::handle sum, py::handle squares,
            py::handle open_batch, int n_threads) {
  const Shaped s(x, "x", true);
  const MomentArgs m(moments, s);
  if (m.tensors.size() < 5) bad_value("moments", "seven parts", "fewer");
  Few<TensorView, 3> outputs;
  const auto output = [&](py::handle tensor, const char* name) {
    const TensorView& t = outputs.add(s.other(tensor, name, s.x.numel(), "as many as x"));
    t.must_be(Dtype::kFloat64);
    return static_cast<double*>(t.data);
  };
  double* const open = open_batch.is_none() ? nullptr : output(open_batch, "open_batch");
  launch(&OpTable::totals,
         TotalsParams{s.dtype, place_of(s.x, n_threads), s.n_chains, s.dim, m.view,
                      output(sum, "sum"), output(squares, "squares"), open});
}

// The states of some steps, or what these took where `marks` (n_states, n_chains), uint8, say of
// which chains, and `before` has the states before them; both may be None.
void add_states(py::handle x, const py::sequence& states, py::handle before, py::handle marks,
                py::handle moments, py::handle steps_done, int n_threads) {
  const Shaped s(x, "x", true);
  const MomentArgs m(moments, s);
  if (m.view.group.first == nullptr) bad_value("moments", "an open group", "none");
  const int64_t done = whole(steps_done, "steps_done");
  const auto n = static_cast<int64_t>(states.size());
  if (n < 1 || n > kStepGroup - done % kStepGroup) {
    bad_value("states", "as many as the open group has room for", std::to_string(n));
  }
  AddStatesParams p{
      s.dtype, place_of(s.x, n_threads), {}, nullptr, nullptr, n, s.n_chains, s.dim, done, m.view};
  std::vector<TensorView> held;
  for (int64_t k = 0; k < n; ++k) {
    p.states[k] = held.emplace_back(s.like(states[k], "states", true)).data;
  }
  if (before.is_none() != marks.is_none()) {
    bad_value("before", "given together with marks", "one of them");
  }
  if (!before.is_none()) {
    p.before = held.emplace_back(s.like(before, "before", true)).data;
    const int64_t n_marks = n * s.n_chains;
    p.marks = bytes(held.emplace_back(s.other(marks, "marks", n_marks, "(n_states, n_chains)")));
  }
  launch(&OpTable::add_states, p);
}

// x (n_states, n_chains, *event); `of_states` is memory for the sums of each state, and on a CPU
// may be None, as the shift may, which then is 0.
void pooled(py::handle x, py::handle shift, int products, py::handle chain_offset,
            py::handle of_states, py::handle total, int n_threads) {
  if (products < 0 || products >= static_cast<int>(Products::kCount)) {
    bad_value("products", "a kind of products", std::to_string(products));
  }
  const TensorView states(x, "x", true);
  if (states.ndim < 2) bad_value("x", "shape (n_states, n_chains, *event)", states.shape_text());
  PooledStates p{};
  p.x = states.data;
  p.n_states = states.shape[0];
  p.n_chains = states.shape[1];
  p.dim = 1;
  for (int i = 2; i < states.ndim; ++i) p.dim *= states.shape[i];
  p.chain_offset = static_cast<uint64_t>(whole(chain_offset, "chain_offset"));
  p.products = static_cast<Products>(products);
  p.width = p.products == Products::kNone      ? p.dim
            : p.products == Products::kSquares ? 2 * p.dim
                                               : p.dim * (p.dim + 1);
  const auto doubles = [&](py::handle tensor, const char* name, int64_t n, const char* meaning) {
    const TensorView t(tensor, name, false);
    t.must_be(Dtype::kFloat64);
    t.must_be_with(states);
    t.must_have_numel(n, meaning);
    t.must_not_overlap(states, false);
    return static_cast<double*>(t.data);
  };
  std::vector<double> zeros;
  if (!shift.is_none() || states.device() >= 0) {
    p.shift = doubles(shift, "shift", p.dim, "one value a coordinate");
  } else {
    zeros.resize(static_cast<size_t>(p.dim));
    p.shift = zeros.data();
  }
  std::unique_ptr<double[]> made;
  if (!of_states.is_none() || states.device() >= 0) {
    p.sums = doubles(of_states, "of_states", p.n_states * p.width, "the sums of each state");
  } else {
    made.reset(new double[static_cast<size_t>(p.n_states * p.width)]);
    p.sums = made.get();
  }
  double* const sums = doubles(total, "total", p.width, "the sums");
  launch(&OpTable::pooled, PooledParams{states.dtype(), place_of(states, n_threads), p, sums});
}

// x (n, dim)
void sketch(py::handle x, py::handle centre, py::handle inverse_scale, py::handle counts,
            py::handle extremes, int n_threads) {
  const Shaped s(x, "x", true);
  if (s.x.ndim != 2) bad_value("x", "shape (n, dim)", s.x.shape_text());
  const TensorView middle = s.other(centre, "centre", s.dim, "one value a coordinate");
  const TensorView scale = s.other(inverse_scale, "inverse_scale", s.dim, "one value a coordinate");
  const TensorView counted(counts, "counts", false), ends(extremes, "extremes", false);
  for (const TensorView* t : {&middle, &scale}) t->must_be(Dtype::kFloat64);
  for (const TensorView* t : {&counted, &ends}) {
    t->must_be_int64();
    t->must_be_with(s.x);
  }
  const int64_t n_parts = counted.n_chains();
  counted.must_have_numel(n_parts * s.dim * kSketchBins, "the bins of each coordinate");
  ends.must_have_numel(n_parts * s.dim * 2, "two values a coordinate");
  launch(
      &OpTable::sketch,
      SketchParams{s.dtype, place_of(s.x, n_threads),
                   Sketch{s.x.data, s.n_chains, s.dim, static_cast<const double*>(middle.data),
                          static_cast<const double*>(scale.data), n_parts,
                          static_cast<int64_t*>(counted.data), static_cast<int64_t*>(ends.data)}});
}

void math(int function, py::handle in, py::handle out, int n_threads) {
  if (function < 0 || function >= static_cast<int>(MathFunction::kCount)) {
    bad_value("function", "a known function", std::to_string(function));
  }
  const Shaped s(in, "in", false);
  const TensorView target = s.output(out);
  launch(&OpTable::math,
         MathParams{s.dtype, place_of(s.x, n_threads), static_cast<MathFunction>(function),
                    s.x.data, target.data, s.x.numel()});
}

void advise(py::handle tensor) {
  const TensorView t(tensor, "tensor", false);
  advise_huge_pages(t.data, t.bytes());
}

// Copies a dense tensor of a CPU to another one of as many bytes, apart from it.
void copy(py::handle to, py::handle from, int n_threads) {
  const TensorView source(from, "from", false), target(to, "to", false);
  for (const TensorView* t : {&source, &target}) {
    if (t->device() >= 0) bad_value(t->name, "a tensor of the CPU", "one of a GPU");
  }
  if (source.bytes() != target.bytes()) {
    bad_value("to", "as many bytes as in from", target.shape_text());
  }
  target.must_not_overlap(source, false);
  const std::pair memory(static_cast<char*>(target.data), static_cast<const char*>(source.data));
  const py::gil_scoped_release unlocked;
  parallel_for(
      source.bytes(), 1 << 16, n_threads, 0.1 * static_cast<double>(source.bytes()), 0,
      [](void* context, int64_t begin, int64_t end, void*) {
        const auto& [out, in] = *static_cast<const decltype(memory)*>(context);
        memcpy(out + begin, in + begin, static_cast<size_t>(end - begin));
      },
      const_cast<void*>(static_cast<const void*>(&memory)));
}

}  // namespace

// The architectures that the CUDA backend was built for, such as "90"; empty without it.
#if !defined(PF_CUDA_ARCHITECTURES)
#define PF_CUDA_ARCHITECTURES ""
#endif

PYBIND11_MODULE(_native, m) {
  find_exchange_api();
  const char* forced = getenv("PUSHFORWARD_CPU_LEVEL");
  cpu_ops = select_cpu_table(forced);
  if (cpu_ops == nullptr) {
    throw py::import_error("PUSHFORWARD_CPU_LEVEL=" + std::string(forced) +
                           " is not a level of this processor; known: baseline, v3, v4");
  }
  m.attr("cpu_level") = cpu_ops->name;
  m.attr("cuda_architectures") = PF_CUDA_ARCHITECTURES;
  py::class_<Target>(m, "Target")
      .def(py::init([](int kind, int64_t dim, int64_t n_components, const py::sequence& tensors,
                       double a, double b,
                       double c) { return Target(kind, dim, n_components, tensors, {a, b, c}); }));
  m.def("are_plain", &are_plain);
  m.def("fill", &fill);
  m.def("langevin", &langevin);
  m.def("evaluate", &evaluate);
  m.def("commit", &commit);
  m.def("diffuse", &diffuse);
  m.def("reverse", &reverse);
  m.def("pool", &pool);
  m.def("totals", &totals);
  m.def("add_states", &add_states);
  m.def("pooled", &pooled);
  m.def("sketch", &sketch);
  m.attr("sketch_bins") = kSketchBins;
  m.def("math", &math);
  m.def("advise_huge_pages", &advise);
  m.def("copy", &copy);
  bind_chains(m);
  bind_lattices(m);
}

}  // namespace pf
