// SPDX-License-Identifier: Apache-2.0
// A metric: what a move does in coordinates z with x = L z, where L L' is near the covariance of
// the target. Noise and momenta are pushed by L, scores are pulled by L'.
#pragma once

#include "core/reduce.hpp"
#include "core/view.hpp"

namespace pf::PF_BACKEND {

template <class T>
class Metric {
 public:
  explicit PF_HD Metric(const MetricParams& p)
      : kind_(p.kind),
        factor_(static_cast<const T*>(p.factor)),
        transposed_(static_cast<const T*>(p.transposed)) {}
  // out = L z
  template <class Real, class D>
  PF_HD void push(const Real* z, Real* out, D dim) const {
    apply(factor_, z, out, dim);
  }
  // out = L' s
  template <class Real, class D>
  PF_HD void pull(const Real* s, Real* out, D dim) const {
    apply(transposed_, s, out, dim);
  }
  // visit(i, (L z)[i]) for all i that the worker owns; `room` is for L z, where it must be kept.
  template <class Real, class D, class Visit>
  PF_HD void each_pushed(const Real* z, Real* room, D dim, const Visit& visit) const {
    each(factor_, z, room, dim, visit);
  }
  // visit(i, (L' s)[i]), likewise.
  template <class Real, class D, class Visit>
  PF_HD void each_pulled(const Real* s, Real* room, D dim, const Visit& visit) const {
    each(transposed_, s, room, dim, visit);
  }

 private:
  template <class Real, class D, class Visit>
  PF_HD void each(const T* matrix, const Real* in, Real* room, D dim, const Visit& visit) const {
    if (kind_ == MetricKind::kDense) {
      matvec(matrix, in, room, dim);
      dim.each([&](int64_t i) { visit(i, room[i]); });
    } else {
      each_scaled(matrix, in, dim, visit);
    }
  }
  template <class Real, class D>
  PF_HD void apply(const T* matrix, const Real* in, Real* out, D dim) const {
    if (kind_ == MetricKind::kDense) {
      matvec(matrix, in, out, dim);
    } else {
      each_scaled(matrix, in, dim, [&](int64_t i, const Real& scaled) { out[i] = scaled; });
    }
  }
  // Where the metric is not dense.
  template <class Real, class D, class Visit>
  PF_HD void each_scaled(const T* matrix, const Real* in, D dim, const Visit& visit) const {
    if (kind_ == MetricKind::kDiagonal) {
      dim.each([&](int64_t i) { visit(i, in[i] * Real(matrix[i])); });
    } else {
      dim.each([&](int64_t i) { visit(i, in[i]); });
    }
  }
  MetricKind kind_;
  const T* factor_;
  const T* transposed_;  // the same array for a diagonal
};

}  // namespace pf::PF_BACKEND
