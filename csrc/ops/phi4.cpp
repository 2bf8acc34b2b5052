// SPDX-License-Identifier: Apache-2.0
// The phi^4 field: many steps of Langevin, MALA, HMC or Metropolis in one call, and the density.
#include "kernels/phi4.hpp"

#include "backend/fields.hpp"
#include "kernels/hamiltonian.hpp"
#include "ops/field_moments.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

// Estimates of what a site costs in a pass, with and without making its normal.
constexpr double kNoisy = 1.4, kQuiet = 0.3;

// States that wait for the streaming sums, of a move that does not change them in place.
PF_HD int most_waiting(const Phi4RunParams& p) {
  if (p.move == Phi4Move::kMetropolis) return 1;
  const int64_t bytes = p.fields.dtype == Dtype::kFloat32 ? 4 : 8;
  return most_fields_waiting(p.moments, p.fields.shape.n_sites * bytes);
}

// Arrays of a lattice: of states, and what a step needs beside them, which comes last.
PF_HD int n_arrays(const Phi4RunParams& p) {
  const int waiting = most_waiting(p) > 2 ? most_waiting(p) - 2 : 0;
  switch (p.move) {
    case Phi4Move::kHmc: return 4 + waiting;
    case Phi4Move::kMetropolis: return 3;
    default: return 2 + waiting;
  }
}

// What the steps of one lattice share.
template <class Lattice>
class Phi4Chain {
 public:
  using Real = typename Lattice::Real;
  using T = typename Traits<Real>::Scalar;
  using Sites = typename Lattice::Sites;
  using Array = Field<T>;

  PF_HD Phi4Chain(const Phi4RunParams& p, int64_t index, const Lattice& lattice)
      : p_(p),
        index_(index),
        lattice_(lattice),
        couplings_(value_of<double>(p.fields.kappa, index),
                   value_of<double>(p.fields.lambda, index),
                   value_of<double>(p.fields.field, index)),
        step_size_(static_cast<T>(value_of<double>(p.step_size, index))),
        normals_(noise(p.move == Phi4Move::kHmc ? purpose::kMomentum : purpose::kProposal),
                 last_entry()),
        moves_(noise(purpose::kProposal), last_entry()),
        words_(noise(purpose::kSite), last_entry()),
        moments_(p.moments, p.steps_done, index, lattice, most_waiting(p)) {}

  PF_HD void run() {
    T* x = static_cast<T*>(p_.fields.x) + index_ * lattice_.sites();
    at_ = lattice_.array(0);
    lattice_.load(at_, x);
    for (int64_t k = 0; k < p_.n_steps; ++k) {
      const uint64_t step = p_.first_step + static_cast<uint64_t>(k);
      bool counts = true;  // in the statistics
      switch (p_.move) {
        case Phi4Move::kLangevin: counts = langevin(step); break;
        case Phi4Move::kMala: mala(step); break;
        case Phi4Move::kHmc: hmc(step); break;
        default: metropolis(step); break;
      }
      if (moments_.wanted()) {
        moments_.add(at_, counts, p_.steps_done + k + 1, k + 1 == p_.n_steps);
      }
    }
    lattice_.store(at_, x);
  }

 private:
  static PF_HD Array nothing() { return Array{nullptr}; }

  PF_HD NoiseSource noise(uint32_t kind) const {
    NoiseSource n{};
    n.seed = p_.seed;
    n.chain_offset = p_.chain_offset + static_cast<uint64_t>(index_);
    n.purpose = kind;
    return n;
  }
  PF_HD uint64_t entry_of(uint64_t step) const {
    return step * static_cast<uint64_t>(lattice_.sites());
  }
  PF_HD uint64_t last_entry() const {
    return entry_of(p_.first_step + static_cast<uint64_t>(p_.n_steps));
  }
  // An array for a state to come: neither that of the present one, nor `other`, nor one whose state
  // waits.
  PF_HD Array unused(Array other = nothing()) const {
    for (int i = 0;; ++i) {
      const Array a = lattice_.array(i);
      const bool used = a.first == at_.first || a.first == other.first || moments_.waits(a);
      if (!used) return a;
    }
  }
  PF_HD void refuse() const {
    if (p_.tallies.n_nonfinite != nullptr && lattice_.speaks()) ++p_.tallies.n_nonfinite[index_];
  }

  PF_HD void tally(double probability) const {
    if (p_.tallies.accepted == nullptr || !lattice_.speaks()) return;
    p_.tallies.accepted[index_] += probability;
    p_.tallies.accepted_squares[index_] += probability * probability;
  }

  // x' = x + h s(x) + sqrt(2 h) xi  (eq 122); whether it was taken.
  PF_HD bool langevin(uint64_t step) {
    const Array next = unused();
    const Real h = Real(step_size_), scale = Real(langevin_noise_scale(step_size_, T(1)));
    const bool finite = lattice_.finite(
        entry_of(step), normals_, kNoisy, next, [&](const Sites& s) PF_INLINE_LAMBDA {
          const Real x = s.value(at_);
          const Real score = phi4_score(couplings_, x, s.neighbours(at_));
          const Real moved = langevin_move(x, score, h, scale, s.noise());
          s.put(next, moved);
          return moved;
        });
    if (finite) {
      at_ = next;
    } else {
      refuse();
    }
    return finite;
  }

  // The same as a proposal, accepted with probability
  //   min(1, exp(S(x) - S(y) + |xi|^2 / 2 - |x - y - h s(y)|^2 / (4 h))).
  PF_HD void mala(uint64_t step) {
    const Array next = unused();
    const T h = step_size_, scale = langevin_noise_scale(h, T(1)), half_precision = T(0.25) / h;
    const double there =
        lattice_.sum(entry_of(step), normals_, kNoisy, next, [&](const Sites& s) PF_INLINE_LAMBDA {
          const Real x = s.value(at_), around = s.neighbours(at_), xi = s.noise();
          const Real score = phi4_score(couplings_, x, around);
          s.put(next, langevin_move(x, score, Real(h), Real(scale), xi));
          return fma(xi * xi, Real(T(0.5)), phi4_action(couplings_, x, around));
        });
    const double back =
        lattice_.sum(0, silence_, kQuiet, nothing(), [&](const Sites& s) PF_INLINE_LAMBDA {
          const Real x = s.value(at_), y = s.value(next), around = s.neighbours(next);
          const Real off = fma(-phi4_score(couplings_, y, around), Real(h), x - y);
          return fma(off * off, Real(half_precision), phi4_action(couplings_, y, around));
        });
    decide(step, there - back, next);
  }

  // n leapfrog steps of H = S + |p|^2 / 2, accepted with probability min(1, exp(H - H')). The state
  // stays in its array; positions go to and fro between two others.
  PF_HD void hmc(uint64_t step) {
    T eps = step_size_;
    if (p_.jitter > 0) {
      const T u = entry<Uniform, T>(noise(purpose::kAdaptation), step);
      eps = jittered(eps, static_cast<T>(p_.jitter), u);
    }
    const T half = T(0.5) * eps;
    const Array momentum = lattice_.array(n_arrays(p_) - 1);
    Array from = unused(), to = unused(from);
    const double before =
        lattice_.sum(entry_of(step), normals_, kNoisy, from, [&](const Sites& s) PF_INLINE_LAMBDA {
          const Real x = s.value(at_), around = s.neighbours(at_), p = s.noise();
          const Real kicked = fma(phi4_score(couplings_, x, around), Real(half), p);
          s.put(momentum, kicked);
          s.put(from, fma(kicked, Real(eps), x));
          return fma(p * p, Real(T(0.5)), phi4_action(couplings_, x, around));
        });
    for (int64_t i = 1; i < p_.n_leapfrog; ++i) {
      lattice_.pass(0, silence_, kQuiet, to, [&](const Sites& s) PF_INLINE_LAMBDA {
        const Real x = s.value(from);
        const Real kicked =
            fma(phi4_score(couplings_, x, s.neighbours(from)), Real(eps), s.value(momentum));
        s.put(momentum, kicked);
        s.put(to, fma(kicked, Real(eps), x));
      });
      const Array other = from;
      from = to;
      to = other;
    }
    const double after =
        lattice_.sum(0, silence_, kQuiet, nothing(), [&](const Sites& s) PF_INLINE_LAMBDA {
          const Real x = s.value(from), around = s.neighbours(from);
          const Real p = fma(phi4_score(couplings_, x, around), Real(half), s.value(momentum));
          return fma(p * p, Real(T(0.5)), phi4_action(couplings_, x, around));
        });
    const bool diverged = !(before - after >= -kDivergence);
    if (diverged && p_.tallies.n_divergent != nullptr && lattice_.speaks()) {
      ++p_.tallies.n_divergent[index_];
    }
    decide(step, before - after, from);
  }

  // A checkerboard of site moves x + w (2 u - 1), each accepted where log u' <= -(S' - S).
  PF_HD void metropolis(uint64_t step) {
    const T width = step_size_;
    const Array move = lattice_.array(1), log_u = lattice_.array(2);
    lattice_.pass(entry_of(step), moves_, kNoisy, nothing(), [&](const Sites& s) PF_INLINE_LAMBDA {
      s.put(move, fma(s.noise(), Real(width + width), Real(-width)));
    });
    lattice_.pass(entry_of(step), words_, kNoisy, nothing(),
                  [&](const Sites& s) PF_INLINE_LAMBDA { s.put(log_u, log(s.noise())); });
    double n_accepted = 0;
    for (int colour = 0; colour < 2; ++colour) {
      n_accepted += lattice_.sum(0, silence_, kQuiet, at_, [&](const Sites& s) PF_INLINE_LAMBDA {
        const auto chosen = s.of_colour(colour);
        // Threads of the other colour leave alone what changes.
        if (!any(chosen)) return Real(T(0));
        const Real x = s.value(at_), y = x + s.value(move);
        const Real change = phi4_change(couplings_, x, y, s.neighbours(at_));
        const auto accepted = chosen & (s.value(log_u) <= -change);
        s.put(at_, select(accepted, y, x));
        return select(accepted, Real(T(1)), Real(T(0)));
      });
    }
    tally(n_accepted / static_cast<double>(lattice_.sites()));
  }

  // Takes the proposal, in the array `next`, where log u <= log_ratio; NaN and infinity refuse.
  PF_HD void decide(uint64_t step, double log_ratio, Array next) {
    const bool known = log_ratio <= Format<double>::kLargest;
    if (!known) refuse();
    tally(!known ? 0.0 : log_ratio < 0.0 ? exp(log_ratio) : 1.0);
    const T u = entry<Uniform, T>(noise(purpose::kAccept), step);
    if (known && log(u) <= static_cast<T>(log_ratio)) at_ = next;
  }

  const Phi4RunParams& p_;
  int64_t index_;
  const Lattice& lattice_;
  Phi4Couplings<T> couplings_;
  T step_size_;
  typename Lattice::template Source<Normal> normals_;
  typename Lattice::template Source<Uniform> moves_, words_;
  NoEntries<T> silence_;
  Array at_;
  FieldMoments<Lattice> moments_;
};

struct RunField {
  Phi4RunParams p;
  template <class Lattice>
  PF_HD void operator()(int64_t index, const Lattice& lattice) const {
    Phi4Chain<Lattice>(p, index, lattice).run();
  }
};

struct EvaluateField {
  Phi4EvaluateParams p;
  template <class Lattice>
  PF_HD void operator()(int64_t index, const Lattice& lattice) const {
    using Real = typename Lattice::Real;
    using T = typename Traits<Real>::Scalar;
    const Phi4Couplings<T> couplings(value_of<double>(p.fields.kappa, index),
                                     value_of<double>(p.fields.lambda, index),
                                     value_of<double>(p.fields.field, index));
    const Field<T> x = lattice.array(0), score = lattice.array(1);
    NoEntries<T> silence;
    lattice.load(x, static_cast<const T*>(p.fields.x) + index * lattice.sites());
    const double action = lattice.sum(0, silence, kQuiet, Field<T>{nullptr},
                                      [&](const typename Lattice::Sites& s) PF_INLINE_LAMBDA {
                                        const Real phi = s.value(x), around = s.neighbours(x);
                                        s.put(score, phi4_score(couplings, phi, around));
                                        return phi4_action(couplings, phi, around);
                                      });
    if (p.log_density != nullptr && lattice.speaks()) {
      static_cast<T*>(p.log_density)[index] = static_cast<T>(-action);
    }
    if (p.score != nullptr) {
      lattice.store(score, static_cast<T*>(p.score) + index * lattice.sites());
    }
  }
};

// body(zero of the fields' type, their number of dimensions).
template <class Body>
void with_kind(const Phi4Fields& f, const Body& body) {
  with_dtype(f.dtype, [&](auto zero) {
    switch (f.shape.n_dims) {
      case 1: return body(zero, Dim<1>{});
      case 2: return body(zero, Dim<2>{});
      case 3: return body(zero, Dim<3>{});
      default: return body(zero, Dim<4>{});
    }
  });
}

int64_t workspace_of(const Phi4Fields& f, int n_arrays, const Place& place) {
  int64_t bytes = 0;
  with_kind(f, [&](auto zero, auto dims) {
    bytes = field_workspace<decltype(zero), decltype(dims)::kValue>(f.n_lattices, f.shape, n_arrays,
                                                                    place);
  });
  return bytes;
}

template <class Body, class Params>
void for_each_phi4(const Params& p, int n_arrays, double nanoseconds, int64_t n_passes) {
  const Phi4Fields& f = p.fields;
  if (f.n_lattices == 0) return;
  const double sites = static_cast<double>(f.shape.n_sites);
  with_kind(f, [&](auto zero, auto dims) {
    for_each_field<decltype(zero), decltype(dims)::kValue>(f.n_lattices, f.shape, n_arrays,
                                                           nanoseconds * sites, n_passes,
                                                           p.workspace, p.place, Body{p});
  });
}

constexpr int kEvaluated = 2;  // arrays

}  // namespace

int64_t phi4_run_workspace(const Phi4RunParams& p) {
  return workspace_of(p.fields, n_arrays(p), p.place);
}
int64_t phi4_evaluate_workspace(const Phi4EvaluateParams& p) {
  return workspace_of(p.fields, kEvaluated, p.place);
}

void phi4_run(const Phi4RunParams& p) {
  const int arrays = n_arrays(p);
  switch (p.move) {
    case Phi4Move::kHmc:
      return for_each_phi4<RunField>(p, arrays, kQuiet, p.n_steps * (p.n_leapfrog + 4));
    case Phi4Move::kMetropolis: return for_each_phi4<RunField>(p, arrays, kNoisy, 2 * p.n_steps);
    default: return for_each_phi4<RunField>(p, arrays, kNoisy, p.n_steps);
  }
}

void phi4_evaluate(const Phi4EvaluateParams& p) {
  for_each_phi4<EvaluateField>(p, kEvaluated, kQuiet, 1);
}

}  // namespace pf::PF_BACKEND
