// SPDX-License-Identifier: Apache-2.0
// core/math.hpp element by element, so that its errors can be measured from Python.
#include "core/math.hpp"

#include "backend/backend.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

template <class T>
struct Apply {
  MathParams p;

  template <class At>
  PF_HD void operator()(const At& at) const {
    const auto x = at.load(static_cast<const T*>(p.in));
    T* out = static_cast<T*>(p.out);
    switch (p.function) {
      case MathFunction::kExp: return at.store(out, exp(x));
      case MathFunction::kLog: return at.store(out, log(x));
      case MathFunction::kLog1p: return at.store(out, log1p(x));
      case MathFunction::kTanh: return at.store(out, tanh(x));
      case MathFunction::kSinPi: return at.store(out, sincospi(x).sin);
      case MathFunction::kCosPi: return at.store(out, sincospi(x).cos);
      case MathFunction::kCount: return;
    }
  }
};

}  // namespace

void math(const MathParams& p) {
  with_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_each_value<T>(p.n, p.place, Apply<T>{p});
  });
}

}  // namespace pf::PF_BACKEND
