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

template <class T, int k, class Target, class Body>
static bool try_dim(const Target& target, int64_t dim, const Body& body) {
  if constexpr (has_own_kernel<T>(k)) {
    if (dim == k) return body(target, Dim<k>{dim}), true;
  }
  (void)target, (void)dim, (void)body;
  return false;
}
template <class T, class Target, class Body>
static void with_dim(const Target& target, int64_t dim, const Body& body) {
  if (try_dim<T, 1>(target, dim, body) || try_dim<T, 2>(target, dim, body) ||
      try_dim<T, 3>(target, dim, body) || try_dim<T, 4>(target, dim, body) ||
      try_dim<T, 8>(target, dim, body) || try_dim<T, 16>(target, dim, body) ||
      try_dim<T, 32>(target, dim, body)) {
    return;
  }
  with_any_dim(target, dim, body);
}

template <class T, class Body>
static void with_target(const TargetParams& p, const Body& body) {
  switch (p.kind) {
    case TargetKind::kGaussianDiagonal: return with_dim<T>(GaussianDiagonal<T>(p), p.dim, body);
    case TargetKind::kGaussianDense: return with_dim<T>(GaussianDense<T>(p), p.dim, body);
    case TargetKind::kMixtureIsotropic:
      return with_dim<T>(GaussianMixture<T, Precision::kIsotropic>(p), p.dim, body);
    case TargetKind::kMixtureDiagonal:
      return with_dim<T>(GaussianMixture<T, Precision::kDiagonal>(p), p.dim, body);
    case TargetKind::kMixtureDense:
      return with_dim<T>(GaussianMixture<T, Precision::kDense>(p), p.dim, body);
    case TargetKind::kDoubleWell: return with_dim<T>(DoubleWell<T>(p), p.dim, body);
    case TargetKind::kBanana: return with_dim<T>(Banana<T>(p), p.dim, body);
    case TargetKind::kFunnel: return with_dim<T>(Funnel<T>(p), p.dim, body);
    case TargetKind::kRing: return body(Ring<T>(p), Dim<2>{2});
    case TargetKind::kCount: break;
  }
}

// A point's arrays: registers where the dimension is a constant, else the tile's scratch.
template <class Real, class D, bool kKnown = D::kKnown>
struct PointArrays {
  static constexpr int64_t kBytesPerDim = 0;
  Real x[D::kValue], score[D::kValue], proposed[D::kValue], work[2 * D::kValue];
  static constexpr Real* noise = nullptr;
  PF_HD PointArrays(Real*, D) {}
};
template <class Real, class D>
struct PointArrays<Real, D, false> {
  static constexpr int64_t kArrays = D::kWarp ? 6 : 5;  // work is two long; a warp stores its noise
  static constexpr int64_t kBytesPerDim = kArrays * sizeof(Real);
  Real *x, *score, *proposed, *work, *noise;
  PF_HD PointArrays(Real* scratch, D dim)
      : x(scratch),
        score(scratch + dim),
        proposed(scratch + 2 * dim),
        work(scratch + 3 * dim),
        noise(D::kWarp ? scratch + 5 * dim : nullptr) {}
};

// target.evaluate: in line where the dimension is known, else, on a CPU, one function for all its
// callers.
template <class Target, class Real, class D>
PF_SHARED_CODE Real evaluate_any_dim(const Target& target, const Real* x, Real* score, Real* work,
                                     D dim, bool wanted) {
  dim.sync();
  const Real value = target.evaluate(x, score, work, dim, wanted);
  dim.sync();
  return value;
}
template <class Target, class Real, class D>
PF_HD Real evaluate_at(const Target& target, PointArrays<Real, D>& point, D dim, bool wanted) {
  if constexpr (D::kKnown) {
    return target.evaluate(point.x, point.score, point.work, dim, wanted);
  } else {
    return evaluate_any_dim(target, point.x, point.score, point.work, dim, wanted);
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
