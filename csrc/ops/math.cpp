// SPDX-License-Identifier: Apache-2.0
// core/math.hpp element by element, so that its errors can be measured from Python.
#include "core/math.hpp"

#include "backend/backend.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class Real>
Real value(MathFunction function, Real x) {
  switch (function) {
    case MathFunction::kExp: return exp(x);
    case MathFunction::kLog: return log(x);
    case MathFunction::kLog1p: return log1p(x);
    case MathFunction::kTanh: return tanh(x);
    case MathFunction::kSinPi: return sincospi(x).sin;
    case MathFunction::kCosPi: return sincospi(x).cos;
    case MathFunction::kCount: break;
  }
  return x;
}

}  // namespace

void math(const MathParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_each_block(p.n, 4096, p.n_threads, 2.0 * static_cast<double>(p.n), 0,
                   [&](int64_t begin, int64_t end, void*) {
                     for_elements<T>(begin, end, [&](auto at, int64_t) {
                       at.store(static_cast<T*>(p.out),
                                value(p.function, at.load(static_cast<const T*>(p.in))));
                     });
                   });
  });
}

}  // namespace pf::PF_BACKEND
