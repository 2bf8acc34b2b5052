// SPDX-License-Identifier: Apache-2.0
// Neighbouring items of arrays: one, as many as a pack has lanes, or the few that are left.
#pragma once

#include "core/pack.hpp"

namespace pf::PF_BACKEND {

// Item i of arrays.
template <class Index = int64_t>
struct OneItem {
  Index i;
  template <class U>
  PF_HD U load(const U* x) const {
    return x[i];
  }
  template <class U>
  PF_HD void store(U* x, U value) const {
    x[i] = value;
  }
};

#if !defined(PF_CUDA)

// kLanes items, from item i on.
struct SeveralItems {
  int64_t i;
  template <class U>
  PF_HD Pack<U> load(const U* x) const {
    return Pack<U>::load(x + i);
  }
  template <class U>
  PF_HD void store(U* x, Pack<U> value) const {
    value.store(x + i);
  }
};

// The first n numbers of a register; those not read are 0, and their memory is not touched.
#if defined(__AVX512F__)
PF_HD FloatRegister load_first(const float* p, int n) {
  return (FloatRegister)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
}
PF_HD DoubleRegister load_first(const double* p, int n) {
  return (DoubleRegister)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p);
}
PF_HD void store_first(float* p, int n, FloatRegister a) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)a);
}
PF_HD void store_first(double* p, int n, DoubleRegister a) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), (__m512d)a);
}
#elif defined(__AVX2__)
PF_HD __m256i first_floats(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
PF_HD __m256i first_doubles(int n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
PF_HD FloatRegister load_first(const float* p, int n) {
  return (FloatRegister)_mm256_maskload_ps(p, first_floats(n));
}
PF_HD DoubleRegister load_first(const double* p, int n) {
  return (DoubleRegister)_mm256_maskload_pd(p, first_doubles(n));
}
PF_HD void store_first(float* p, int n, FloatRegister a) {
  _mm256_maskstore_ps(p, first_floats(n), (__m256)a);
}
PF_HD void store_first(double* p, int n, DoubleRegister a) {
  _mm256_maskstore_pd(p, first_doubles(n), (__m256d)a);
}
#else
template <class U>
PF_HD typename RegisterOf<U>::type load_first(const U* p, int n) {
  typename RegisterOf<U>::type a{};
  for (int l = 0; l < n; ++l) a[l] = p[l];
  return a;
}
template <class U>
PF_HD void store_first(U* p, int n, typename RegisterOf<U>::type a) {
  for (int l = 0; l < n; ++l) p[l] = a[l];
}
#endif

// The n items that are left, fewer than kLanes, from item i on; those past them are read as 0.
struct FewerItems {
  int64_t i;
  int64_t n;
  template <class U>
  PF_HD Pack<U> load(const U* x) const {
    Pack<U> a;
    PF_UNROLL
    for (int k = 0; k < Pack<U>::kRegisters; ++k) {
      a.r[k] = load_first(x + i + k * Pack<U>::kLanesPerRegister, of_register<U>(k));
    }
    return a;
  }
  template <class U>
  PF_HD void store(U* x, const Pack<U>& a) const {
    PF_UNROLL
    for (int k = 0; k < Pack<U>::kRegisters; ++k) {
      store_first(x + i + k * Pack<U>::kLanesPerRegister, of_register<U>(k), a.r[k]);
    }
  }

 private:
  // How many of them are in register k.
  template <class U>
  PF_HD int of_register(int k) const {
    constexpr int kMost = Pack<U>::kLanesPerRegister;
    const int left = static_cast<int>(n) - k * kMost;
    return left < 0 ? 0 : left > kMost ? kMost : left;
  }
};

#endif  // !PF_CUDA

}  // namespace pf::PF_BACKEND
