// SPDX-License-Identifier: Apache-2.0
// The noise itself: any stretch of any chains' sequences, as a matrix.
#include "backend/backend.hpp"
#include "ops/ops.hpp"
#include "ops/with_target.hpp"

namespace pf::PF_BACKEND {
namespace {

// From this size the numbers would push each other out of the caches before anybody reads them.
constexpr int64_t kStreamBytes = int64_t{8} << 20;

template <class S>
struct Store {
  S* out;
  bool streams;
  struct None {};
  bool is_aligned(uintptr_t bytes) const { return are_aligned(bytes, out); }
  PF_HD bool uniform() const { return true; }
  PF_HD None at_row(int64_t) const { return {}; }
  template <class At, class Real>
  PF_HD void operator()(None, const At& at, Real value) const {
    if (streams) {
      at.stream(out, value);
    } else {
      at.store(out, value);
    }
  }
};

}  // namespace

void fill(const FillParams& p) {
  with_storage(p.dtype, [&](auto stored, auto zero) {
    using S = decltype(stored);
    using T = decltype(zero);
    const bool streams = p.n_rows * p.n_per_row >= kStreamBytes / static_cast<int64_t>(sizeof(S));
    const Store<S> store{static_cast<S*>(p.out), streams};
    if (p.uniform) {
      for_each_element<Uniform, T>(p.n_rows, p.n_per_row, p.noise, p.place, store);
    } else {
      for_each_element<Normal, T>(p.n_rows, p.n_per_row, p.noise, p.place, store);
    }
  });
}

}  // namespace pf::PF_BACKEND
