// SPDX-License-Identifier: Apache-2.0
// Native targets: log pi(x) and its score at one point. Each evaluate() writes the score and
// returns the log-density, or anything at all where the caller does not want it.
//
//   x, score   the point and the gradient, `dim` values each
//   work       room for 2 `dim` values
//   dim        who walks over the coordinates (core/dim.hpp)
//
// Energies of Gibbs type are the notes' section 3.1.1, equations 22 to 24.
#pragma once

#include "core/math.hpp"
#include "core/reduce.hpp"
#include "core/view.hpp"

namespace pf::PF_BACKEND {

// -1/2 (x - mean)' P (x - mean) + constant, P diagonal (eq 23).
template <class T>
struct GaussianDiagonal {
  const T* mean;
  const T* precision;
  T constant;
  explicit PF_HD GaussianDiagonal(const TargetParams& p)
      : mean(static_cast<const T*>(p.data[0])),
        precision(static_cast<const T*>(p.data[1])),
        constant(static_cast<T>(p.scalar[0])) {}
  template <class Real, class D>
  PF_HD Real evaluate(const Real* x, Real* score, Real*, D dim, bool wanted) const {
    dim.each([&](int64_t i) { score[i] = (Real(mean[i]) - x[i]) * Real(precision[i]); });
    if (!wanted) return Real(T(0));
    const Real quadratic = row_dot<Real>(
        dim, [&](int64_t i) { return score[i]; }, [&](int64_t i) { return x[i] - Real(mean[i]); });
    return fma(quadratic, Real(T(0.5)), Real(constant));
  }
};

// The same with a full precision matrix P (eq 23).
template <class T>
struct GaussianDense {
  const T* mean;
  const T* precision;
  T constant;
  explicit PF_HD GaussianDense(const TargetParams& p)
      : mean(static_cast<const T*>(p.data[0])),
        precision(static_cast<const T*>(p.data[1])),
        constant(static_cast<T>(p.scalar[0])) {}
  template <class Real, class D>
  PF_HD Real evaluate(const Real* x, Real* score, Real* work, D dim, bool wanted) const {
    dim.each([&](int64_t i) { work[i] = Real(mean[i]) - x[i]; });
    matvec(precision, work, score, dim);
    if (!wanted) return Real(T(0));
    const Real quadratic =
        row_dot<Real>(dim, [&](int64_t i) { return score[i]; }, [&](int64_t i) { return work[i]; });
    return fma(quadratic, Real(T(-0.5)), Real(constant));
  }
};

// log sum_k exp(l_k(x)), l_k Gaussian, in base 2: with P_k the precision of component k,
//   log2 of the k-th term = (mean_k - x)' H_k (mean_k - x) + log2_weight_k,  H_k = -P_k log2(e)
//   / 2.
// The sum runs in groups of eight components with a running maximum, so that nothing overflows and
// any number of components needs the same few registers.
//   H: kIsotropic (K,), kDiagonal (K, dim), kDense (K, dim, dim)
enum class Precision { kIsotropic, kDiagonal, kDense };

template <class T, Precision kPrecision>
struct GaussianMixture {
  const T* means;
  const T* curvatures;    // H
  const T* log2_weights;  // log2 of w_k and the component's normalisation
  int64_t n_components;
  explicit PF_HD GaussianMixture(const TargetParams& p)
      : means(static_cast<const T*>(p.data[0])),
        curvatures(static_cast<const T*>(p.data[1])),
        log2_weights(static_cast<const T*>(p.data[2])),
        n_components(p.n_components) {}

  template <class Real, class D>
  PF_HD Real evaluate(const Real* x, Real* score, Real* work, D dim, bool wanted) const {
    dim.each([&](int64_t i) { score[i] = Real(T(0)); });
    // From the lowest finite number, so that a point where every component is zero has a score.
    Real peak = Real(-Format<T>::kLargest), total = Real(T(0));
    int64_t k = 0;
    constexpr int kGroup = kPrecision == Precision::kDense ? 1 : 8;
    for (; k + kGroup <= n_components; k += kGroup) {
      add_group<kGroup>(k, x, score, work, dim, peak, total);
    }
    for (; k < n_components; ++k) add_group<1>(k, x, score, work, dim, peak, total);
    const Real scale = Real(T(-2) * Format<T>::kLn2) / total;  // from H back to P
    dim.each([&](int64_t i) { score[i] = score[i] * scale; });
    return wanted ? fma(peak, Real(Format<T>::kLn2), log(total)) : peak;
  }

 private:
  template <int kGroup, class Real, class D>
  PF_HD void add_group(int64_t first, const Real* x, Real* score, Real* work, D dim, Real& peak,
                       Real& total) const {
    Real weight[kGroup];
    if constexpr (D::kKnown || D::kWarp) {
      PF_UNROLL
      for (int c = 0; c < kGroup; ++c) weight[c] = log2_term(first + c, x, work, dim);
    } else {
      for (int c = 0; c < kGroup; ++c) weight[c] = log2_term(first + c, x, work, dim);
    }
    auto larger = [](Real a, Real b) { return maximum(a, b); };
    const Real top = larger(pairwise<kGroup>(weight, larger), peak);
    if (first > 0) {
      const Real fade = exp2_weight(peak - top);
      total = total * fade;
      dim.each([&](int64_t i) { score[i] = score[i] * fade; });
    }
    PF_UNROLL
    for (int c = 0; c < kGroup; ++c) weight[c] = exp2_weight(weight[c] - top);
    total = total + pairwise<kGroup>(weight, [](Real a, Real b) { return a + b; });
    peak = top;
    if constexpr (kPrecision == Precision::kIsotropic) {
      PF_UNROLL
      for (int c = 0; c < kGroup; ++c) weight[c] = weight[c] * Real(curvatures[first + c]);
    }
    dim.each([&](int64_t i) {
      Real sum = score[i];
      PF_UNROLL
      for (int c = 0; c < kGroup; ++c) {
        const Real away = Real(means[(first + c) * dim + i]) - x[i];
        if constexpr (kPrecision == Precision::kIsotropic) {
          sum = fma(weight[c], away, sum);
        } else if constexpr (kPrecision == Precision::kDiagonal) {
          sum = fma(weight[c], away * Real(curvatures[(first + c) * dim + i]), sum);
        } else {
          sum = fma(weight[c], work[dim + i], sum);
        }
      }
      score[i] = sum;
    });
  }

  // log2 of the k-th term; a dense component leaves H_k (mean_k - x) in work[dim ..]
  template <class Real, class D>
  PF_HD Real log2_term(int64_t k, const Real* x, Real* work, D dim) const {
    const T* mean = means + k * dim;
    auto away = [&](int64_t i) { return Real(mean[i]) - x[i]; };
    const Real weight = Real(log2_weights[k]);
    if constexpr (kPrecision == Precision::kIsotropic) {
      return fma(row_dot<Real>(dim, away, away), Real(curvatures[k]), weight);
    } else if constexpr (kPrecision == Precision::kDiagonal) {
      const T* curvature = curvatures + k * dim;
      auto pulled = [&](int64_t i) { return away(i) * Real(curvature[i]); };
      return row_dot<Real>(dim, pulled, away) + weight;
    } else {
      dim.each([&](int64_t i) { work[i] = away(i); });
      matvec(curvatures + k * dim * dim, work, work + dim, dim);
      auto raw = [&](int64_t i) { return work[i]; };
      auto pulled = [&](int64_t i) { return work[dim + i]; };
      return row_dot<Real>(dim, raw, pulled) + weight;
    }
  }
};

// U = mu x^2 / 2 + b x^4 / 4 for each coordinate: a scalar potential on a Gaussian energy (eq 24).
template <class T>
struct DoubleWell {
  T mu, b;
  explicit PF_HD DoubleWell(const TargetParams& p)
      : mu(static_cast<T>(p.scalar[0])), b(static_cast<T>(p.scalar[1])) {}
  template <class Real, class D>
  PF_HD Real evaluate(const Real* x, Real* score, Real*, D dim, bool wanted) const {
    dim.each([&](int64_t i) { score[i] = -(x[i] * fma(x[i] * x[i], Real(b), Real(mu))); });
    if (!wanted) return Real(T(0));
    const Real energy = row_dot<Real>(
        dim, [&](int64_t i) { return x[i] * x[i]; },
        [&](int64_t i) { return fma(x[i] * x[i], Real(b * T(0.25)), Real(mu * T(0.5))); });
    return -energy;
  }
};

// x0 ~ N(0, s^2), x1 | x0 ~ N(c (x0^2 - s^2), 1), further coordinates standard normal: the bent
// Gaussian of H. Haario et al. (1999), Adaptive proposal distribution for random walk Metropolis.
template <class T>
struct Banana {
  T scale, curvature, constant;
  explicit PF_HD Banana(const TargetParams& p)
      : scale(static_cast<T>(p.scalar[0])),
        curvature(static_cast<T>(p.scalar[1])),
        constant(static_cast<T>(p.scalar[2])) {}
  template <class Real, class D>
  PF_HD Real evaluate(const Real* x, Real* score, Real*, D dim, bool wanted) const {
    const T precision = T(1) / (scale * scale);
    const Real bend = fma(x[0], x[0], Real(-(scale * scale))) * Real(curvature);
    const Real across = x[1] - bend;
    if (dim.owns(0)) score[0] = x[0] * fma(across, Real(T(2) * curvature), Real(-precision));
    if (dim.owns(1)) score[1] = -across;
    dim.each_from(2, [&](int64_t i) { score[i] = -x[i]; });
    if (!wanted) return Real(T(0));
    auto rest = [&](int64_t i) { return x[i + 2]; };
    const Real square = fma(x[0] * x[0], Real(precision),
                            fma(across, across, row_dot<Real>(dim, dim - 2, rest, rest)));
    return fma(square, Real(T(-0.5)), Real(constant));
  }
};

// v = x0 ~ N(0, s^2), the others ~ N(0, e^v): R. M. Neal (2003), Slice sampling, section 8.
template <class T>
struct Funnel {
  T scale, constant;
  explicit PF_HD Funnel(const TargetParams& p)
      : scale(static_cast<T>(p.scalar[0])), constant(static_cast<T>(p.scalar[1])) {}
  template <class Real, class D>
  PF_HD Real evaluate(const Real* x, Real* score, Real*, D dim, bool) const {
    const T precision = T(1) / (scale * scale);
    const T half_width = T(0.5) * static_cast<T>(dim - 1);
    const Real neck = exp(-x[0]);
    auto rest = [&](int64_t i) { return x[i + 1]; };
    const Real half_square = row_dot<Real>(dim, dim - 1, rest, rest) * neck * Real(T(0.5));
    if (dim.owns(0)) score[0] = fma(x[0], Real(-precision), half_square - Real(half_width));
    dim.each_from(1, [&](int64_t i) { score[i] = -(x[i] * neck); });
    const Real prior = x[0] * fma(x[0], Real(T(-0.5) * precision), Real(-half_width));
    return prior - half_square + Real(constant);
  }
};

// -(|x| - R)^2 / (2 s^2) in the plane.
template <class T>
struct Ring {
  T radius, precision;
  explicit PF_HD Ring(const TargetParams& p)
      : radius(static_cast<T>(p.scalar[0])), precision(static_cast<T>(p.scalar[1])) {}
  template <class Real, class D>
  PF_HD Real evaluate(const Real* x, Real* score, Real*, D dim, bool) const {
    const Real r = sqrt(fma(x[1], x[1], x[0] * x[0]));
    const Real off = r - Real(radius);
    const Real pull = select(r > Real(T(0)), -(off * Real(precision)) / r, Real(T(0)));
    if (dim.owns(0)) score[0] = pull * x[0];
    if (dim.owns(1)) score[1] = pull * x[1];
    return off * off * Real(T(-0.5) * precision);
  }
};

}  // namespace pf::PF_BACKEND
