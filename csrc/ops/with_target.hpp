// SPDX-License-Identifier: Apache-2.0
// From the run-time description of a target to its type: body(target, dim), where dim is a
// compile-time constant for the dimensions worth a kernel of their own and else a number.
#pragma once

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

// Two dimensions in float32 are the plane that everybody starts with; other shapes share a kernel.
template <class T, class Target, class Body>
static void with_dim(const Target& target, int64_t dim, const Body& body) {
  if constexpr (sizeof(T) == 4) {
    if (dim == 2) return body(target, Dim<2>{dim});
  }
  body(target, Dim<0>{dim});
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
template <class Real, int kDim>
struct PointArrays {
  static constexpr int64_t kArrays = 5;  // work is two long
  static constexpr int64_t kBytesPerDim = kDim > 0 ? 0 : kArrays * sizeof(Real);
  Real local[kArrays * (kDim > 0 ? kDim : 1)];
  Real *x, *score, *proposed, *work;
  PF_HD PointArrays(char* scratch, int64_t dim) {
    Real* base = kDim > 0 ? local : reinterpret_cast<Real*>(scratch);
    x = base;
    score = base + dim;
    proposed = base + 2 * dim;
    work = base + 3 * dim;
  }
};

// target.evaluate: in line where the dimension is known, else one function for all its callers.
template <class Target, class Real>
static PF_NOINLINE Real evaluate_any_dim(const Target& target, const Real* x, Real* score,
                                         Real* work, Dim<0> dim, bool wanted) {
  return target.evaluate(x, score, work, dim, wanted);
}
template <class Target, class Real, int kDim>
PF_HD Real evaluate_at(const Target& target, PointArrays<Real, kDim>& point, Dim<kDim> dim,
                       bool wanted) {
  if constexpr (kDim > 0) {
    return target.evaluate(point.x, point.score, point.work, dim, wanted);
  } else {
    return evaluate_any_dim(target, point.x, point.score, point.work, dim, wanted);
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
