// SPDX-License-Identifier: Apache-2.0
// From the run-time description of a target to its type: body(target, dim), where dim is a
// compile-time constant for the dimensions worth a kernel of their own and else a number.
#pragma once

#include "backend/backend.hpp"
#include "kernels/target.hpp"

namespace pf::PF_BACKEND {

template <class T>
struct Decay {
  using type = T;
};
template <class T>
struct Decay<const T&> {
  using type = T;
};
template <class T>
using value_type = typename Decay<T>::type;

// The targets: each kind, and its type.
#define PF_EACH_TARGET(X)                                         \
  X(kGaussianDiagonal, GaussianDiagonal<T>)                       \
  X(kGaussianDense, GaussianDense<T>)                             \
  X(kMixtureIsotropic, GaussianMixture<T, Precision::kIsotropic>) \
  X(kMixtureDiagonal, GaussianMixture<T, Precision::kDiagonal>)   \
  X(kMixtureDense, GaussianMixture<T, Precision::kDense>)         \
  X(kDoubleWell, DoubleWell<T>)                                   \
  X(kBanana, Banana<T>)                                           \
  X(kFunnel, Funnel<T>)                                           \
  X(kRing, Ring<T>)
#define PF_CASE(kind, ...) \
  case TargetKind::kind: return of(__VA_ARGS__(p));

// Fewest coordinates that a target may have.
template <class Target>
constexpr int kLeastDim = 1;
template <class T>
constexpr int kLeastDim<Banana<T>> = 2;
template <class T>
constexpr int kLeastDim<Funnel<T>> = 2;
template <class T>
constexpr int kLeastDim<Ring<T>> = 2;

// Most that its own kernels have: all that the ring may have, and the unrolled code of dense
// matrices and of eight components at a time is long.
template <class Target>
constexpr int kMostDim = 32;
template <class T>
constexpr int kMostDim<GaussianDense<T>> = 8;
template <class T, Precision kPrecision>
constexpr int kMostDim<GaussianMixture<T, kPrecision>> = 8;
template <class T>
constexpr int kMostDim<Ring<T>> = 2;

// Whether a target has kernels for so many coordinates.
template <class Target, class D>
constexpr bool kMayHave =
    !D::kKnown || (kLeastDim<Target> <= D::kValue && D::kValue <= kMostDim<Target>);

template <class T, class Real, class D>
PF_SHARED_CODE Real evaluate_any(const TargetParams& p, const Real* x, Real* score, Real* work,
                                 D dim, bool wanted) {
  auto of = [&](const auto& target) {
    if constexpr (kMayHave<value_type<decltype(target)>, D>) {
      return target.evaluate(x, score, work, dim, wanted);
    } else {
      return Real(T(0));
    }
  };
  switch (p.kind) {
    PF_EACH_TARGET(PF_CASE)
    case TargetKind::kCount: break;
  }
  return Real(T(0));
}

// A target whose kind is found at each evaluation. Kernels for any number of coordinates have this
// one, and those of long code (`largest` of 4), so that they are compiled once and not once a
// target: there a jump is nothing beside the work.
template <class T>
struct AnyTarget {
  TargetParams params;
  template <class Real, class D>
  PF_HD Real evaluate(const Real* x, Real* score, Real* work, D dim, bool wanted) const {
    return evaluate_any<T>(params, x, score, work, dim, wanted);
  }
};

// body(dim), where kLargest is the most coordinates that the op keeps in a GPU thread's registers
// and only kLeast to kMost have kernels of their own.
template <class T, int kLargest, int kLeast, int kMost, int k, class Body>
static bool try_dim(int64_t dim, const Body& body) {
  if constexpr (kLeast <= k && k <= kMost && has_own_kernel<T>(k, kLargest)) {
    if (dim == k) return body(Dim<k>{dim}), true;
  }
  (void)dim, (void)body;
  return false;
}
template <class T, int kLargest, int kLeast = 1, int kMost = 32, class Body>
static void with_dim(int64_t dim, const Body& body) {
  if (try_dim<T, kLargest, kLeast, kMost, 1>(dim, body) ||
      try_dim<T, kLargest, kLeast, kMost, 2>(dim, body) ||
      try_dim<T, kLargest, kLeast, kMost, 3>(dim, body) ||
      try_dim<T, kLargest, kLeast, kMost, 4>(dim, body) ||
      try_dim<T, kLargest, kLeast, kMost, 8>(dim, body) ||
      try_dim<T, kLargest, kLeast, kMost, 16>(dim, body) ||
      try_dim<T, kLargest, kLeast, kMost, 32>(dim, body)) {
    return;
  }
  with_any_dim<T>(dim, body);
}

template <class T, int kLargest, class Body>
static void with_target(const TargetParams& p, const Body& body) {
  auto of = [&](const auto& target) {
    using Target = value_type<decltype(target)>;
    with_dim<T, kLargest, kLeastDim<Target>, kMostDim<Target>>(p.dim, [&](auto dim) {
      using D = decltype(dim);
      if constexpr (D::kKnown && kLargest > 4) {
        body(target, dim);
      } else {
        body(AnyTarget<T>{p}, dim);
      }
    });
  };
  switch (p.kind) {
    PF_EACH_TARGET(PF_CASE)
    case TargetKind::kCount: break;
  }
}
#undef PF_CASE
#undef PF_EACH_TARGET

// kCount rows of a chain's coordinates: registers where their number is a constant, else the tile's
// scratch. A warp has one more, for its noise. Row 0 is the state and row 1 what a step makes of
// it: in scratch their places change, so that a state is written once, where it is kept.
template <class Real, class D, int kCount, bool kKnown = D::kKnown>
class Rows {
 public:
  static constexpr int64_t kBytesPerDim = 0;
  PF_HD Rows(Real*, D) {}
  PF_HD Real* operator[](int row) { return rows_[row]; }
  PF_HD Real* noise() { return nullptr; }
  PF_HD void advance() {
    D{}.each([&](int64_t i) { rows_[0][i] = rows_[1][i]; });
  }
  PF_HD void go_home() {}

 private:
  Real rows_[kCount][D::kValue];
};
template <class Real, class D, int kCount>
class Rows<Real, D, kCount, false> {
 public:
  static constexpr int64_t kBytesPerDim = (kCount + (D::kWarp ? 1 : 0)) * sizeof(Real);
  PF_HD Rows(Real* scratch, D dim) : first_(scratch), dim_(dim) { stay_here(); }
  PF_HD Real* operator[](int row) const {
    return row == 0 ? state_ : row == 1 ? next_ : first_ + row * dim_;
  }
  PF_HD Real* noise() const { return D::kWarp ? (*this)[kCount] : nullptr; }
  // Where the next step's state is wanted.
  PF_HD void lead_to(Real* next) {
    if (next == state_) go_home();
    next_ = next;
  }
  // Ends a step: row 1 is the state.
  PF_HD void advance() {
    Real* const before = state_;
    state_ = next_;
    next_ = before;
  }
  // Brings the state back to this memory.
  PF_HD void go_home() {
    if (state_ == first_) return;
    dim_.each([&](int64_t i) { first_[i] = state_[i]; });
    stay_here();
  }

 private:
  PF_HD void stay_here() {
    state_ = first_;
    next_ = first_ + dim_;
  }

  Real *first_, *state_, *next_;
  D dim_;
};

// target.evaluate, whose rows all lanes of a warp share.
template <class Target, class Real, class D>
PF_HD Real evaluate_at(const Target& target, const Real* x, Real* score, Real* work, D dim,
                       bool wanted) {
  if constexpr (D::kKnown) {
    return target.evaluate(x, score, work, dim, wanted);
  } else {
    dim.sync();
    const Real value = target.evaluate(x, score, work, dim, wanted);
    dim.sync();
    return value;
  }
}

// Whether all these addresses are multiples of `bytes`.
template <class... Pointers>
static bool are_aligned(uintptr_t bytes, const Pointers*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % bytes == 0) && ...);
}

// body(storage, computed with): zeros of the type in memory and of the one for arithmetic.
template <class Body>
static void with_storage(Dtype dtype, const Body& body) {
  switch (dtype) {
    case Dtype::kFloat32: return body(float(), float());
    case Dtype::kFloat64: return body(double(), double());
    case Dtype::kBFloat16: return body(BFloat16{}, float());
    case Dtype::kFloat16: return body(Float16{}, float());
  }
}

template <class Body>
static void with_dtype(Dtype dtype, const Body& body) {
  if (dtype == Dtype::kFloat32) {
    body(float());
  } else {
    body(double());
  }
}

}  // namespace pf::PF_BACKEND
