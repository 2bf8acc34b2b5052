// SPDX-License-Identifier: Apache-2.0
// The few instructions a compiler does not find by itself, for one register of each CPU level:
// fma, sqrt, the 32x32 -> 64 multiply of Philox, conversions, whether any bit of a mask is set, and
// the interleaving stores.
#pragma once

#include <string.h>

#include "core/config.hpp"

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pf::PF_BACKEND {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
// Chains per pack, whatever the precision: two registers of float, because the operations of one
// step depend on each other and two independent streams of them fill the pipeline.
constexpr int kLanes = 2 * kVectorBytes / 4;

typedef float FloatRegister __attribute__((vector_size(kVectorBytes)));
typedef double DoubleRegister __attribute__((vector_size(kVectorBytes)));
typedef uint32_t Uint32Register __attribute__((vector_size(kVectorBytes)));
typedef int32_t Int32Register __attribute__((vector_size(kVectorBytes)));
typedef uint64_t Uint64Register __attribute__((vector_size(kVectorBytes)));
typedef int64_t Int64Register __attribute__((vector_size(kVectorBytes)));
// The same anywhere in memory: copies of memory may go by 16 bytes, whose stores a load of a whole
// register must wait for.
#define PF_ANYWHERE __attribute__((aligned(4), may_alias))
typedef FloatRegister FloatInMemory PF_ANYWHERE;
typedef DoubleRegister DoubleInMemory PF_ANYWHERE;
typedef Uint32Register Uint32InMemory PF_ANYWHERE;
typedef Uint64Register Uint64InMemory PF_ANYWHERE;
#undef PF_ANYWHERE

template <class T>
struct RegisterOf;
template <>
struct RegisterOf<float> {
  using type = FloatRegister;
  using in_memory = FloatInMemory;
  using mask = Int32Register;
};
template <>
struct RegisterOf<double> {
  using type = DoubleRegister;
  using in_memory = DoubleInMemory;
  using mask = Int64Register;
};
template <>
struct RegisterOf<uint32_t> {
  using type = Uint32Register;
  using in_memory = Uint32InMemory;
  using mask = Int32Register;
};
template <>
struct RegisterOf<uint64_t> {
  using type = Uint64Register;
  using in_memory = Uint64InMemory;
  using mask = Int64Register;
};

template <int kBytes>
struct MaskElement;
template <>
struct MaskElement<4> {
  using type = uint32_t;
};
template <>
struct MaskElement<8> {
  using type = uint64_t;
};

#if defined(__AVX512F__)

// Past the caches; `to` is aligned to a register. The lock that ends a call orders it.
template <class Register>
PF_HD void stream_register(void* to, Register a) {
  _mm512_stream_si512((__m512i*)to, (__m512i)a);
}
// The instruction takes its second operand where either is NaN, as a > b ? a : b does.
PF_HD FloatRegister maximum_register(FloatRegister a, FloatRegister b) {
  return (FloatRegister)_mm512_max_ps((__m512)a, (__m512)b);
}
PF_HD DoubleRegister maximum_register(DoubleRegister a, DoubleRegister b) {
  return (DoubleRegister)_mm512_max_pd((__m512d)a, (__m512d)b);
}
PF_HD FloatRegister fma_register(FloatRegister a, FloatRegister b, FloatRegister c) {
  return (FloatRegister)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
PF_HD DoubleRegister fma_register(DoubleRegister a, DoubleRegister b, DoubleRegister c) {
  return (DoubleRegister)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
PF_HD FloatRegister sqrt_register(FloatRegister a) {
  return (FloatRegister)_mm512_sqrt_ps((__m512)a);
}
PF_HD DoubleRegister sqrt_register(DoubleRegister a) {
  return (DoubleRegister)_mm512_sqrt_pd((__m512d)a);
}
// The first half of a register or the second.
PF_HD DoubleRegister to_wide_register(FloatRegister a, bool second) {
  const __m256 half =
      second ? _mm512_extractf32x8_ps((__m512)a, 1) : _mm512_castps512_ps256((__m512)a);
  return (DoubleRegister)_mm512_cvtps_pd(half);
}
template <class MaskRegister>
PF_HD bool any_register(MaskRegister m) {
  return _mm512_test_epi64_mask((__m512i)m, (__m512i)m) != 0;
}
PF_HD FloatRegister to_float_register(Uint32Register a) {
  return (FloatRegister)_mm512_cvtepu32_ps((__m512i)a);
}
PF_HD void mul_hi_lo_register(Uint32Register a, uint32_t m, Uint32Register& hi,
                              Uint32Register& lo) {
  const __m512i factor = _mm512_set1_epi64(m);
  const __m512i even = _mm512_mul_epu32((__m512i)a, factor);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), factor);
  hi = (Uint32Register)_mm512_mask_shuffle_epi32(odd, 0x5555, even, (_MM_PERM_ENUM)0xF5);
  lo = (Uint32Register)_mm512_mask_shuffle_epi32(even, 0xAAAA, odd, (_MM_PERM_ENUM)0xA0);
}
// Bit l is set where lane l of a is below that of b.
PF_HD uint32_t below_bits_register(Uint32Register a, Uint32Register b) {
  return _mm512_cmplt_epu32_mask((__m512i)a, (__m512i)b);
}
// Transposes 4x4 blocks inside each 128-bit lane: r[i] holds, lane by lane, element i of a..d.
PF_HD void transpose4_register(FloatRegister a, FloatRegister b, FloatRegister c, FloatRegister d,
                               FloatRegister r[4]) {
  const __m512d ab_lo = _mm512_castps_pd(_mm512_unpacklo_ps((__m512)a, (__m512)b));
  const __m512d ab_hi = _mm512_castps_pd(_mm512_unpackhi_ps((__m512)a, (__m512)b));
  const __m512d cd_lo = _mm512_castps_pd(_mm512_unpacklo_ps((__m512)c, (__m512)d));
  const __m512d cd_hi = _mm512_castps_pd(_mm512_unpackhi_ps((__m512)c, (__m512)d));
  r[0] = (FloatRegister)_mm512_unpacklo_pd(ab_lo, cd_lo);
  r[1] = (FloatRegister)_mm512_unpackhi_pd(ab_lo, cd_lo);
  r[2] = (FloatRegister)_mm512_unpacklo_pd(ab_hi, cd_hi);
  r[3] = (FloatRegister)_mm512_unpackhi_pd(ab_hi, cd_hi);
}
PF_HD void interleave2_register(DoubleRegister a, DoubleRegister b, DoubleRegister r[2]) {
  r[0] = (DoubleRegister)_mm512_unpacklo_pd((__m512d)a, (__m512d)b);
  r[1] = (DoubleRegister)_mm512_unpackhi_pd((__m512d)a, (__m512d)b);
}

#elif defined(__AVX2__)

template <class Register>
PF_HD void stream_register(void* to, Register a) {
  _mm256_stream_si256((__m256i*)to, (__m256i)a);
}
// The instruction takes its second operand where either is NaN, as a > b ? a : b does.
PF_HD FloatRegister maximum_register(FloatRegister a, FloatRegister b) {
  return (FloatRegister)_mm256_max_ps((__m256)a, (__m256)b);
}
PF_HD DoubleRegister maximum_register(DoubleRegister a, DoubleRegister b) {
  return (DoubleRegister)_mm256_max_pd((__m256d)a, (__m256d)b);
}
PF_HD FloatRegister fma_register(FloatRegister a, FloatRegister b, FloatRegister c) {
  return (FloatRegister)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
PF_HD DoubleRegister fma_register(DoubleRegister a, DoubleRegister b, DoubleRegister c) {
  return (DoubleRegister)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
PF_HD FloatRegister sqrt_register(FloatRegister a) {
  return (FloatRegister)_mm256_sqrt_ps((__m256)a);
}
PF_HD DoubleRegister sqrt_register(DoubleRegister a) {
  return (DoubleRegister)_mm256_sqrt_pd((__m256d)a);
}
PF_HD DoubleRegister to_wide_register(FloatRegister a, bool second) {
  const __m128 half =
      second ? _mm256_extractf128_ps((__m256)a, 1) : _mm256_castps256_ps128((__m256)a);
  return (DoubleRegister)_mm256_cvtps_pd(half);
}
template <class MaskRegister>
PF_HD bool any_register(MaskRegister m) {
  return _mm256_testz_si256((__m256i)m, (__m256i)m) == 0;
}
// Two exact 16-bit halves and one rounding: the nearest float, as AVX-512's conversion gives.
PF_HD FloatRegister to_float_register(Uint32Register a) {
  const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32((__m256i)a, 16));
  const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256((__m256i)a, _mm256_set1_epi32(0xffff)));
  return (FloatRegister)_mm256_fmadd_ps(high, _mm256_set1_ps(65536.0f), low);
}
PF_HD void mul_hi_lo_register(Uint32Register a, uint32_t m, Uint32Register& hi,
                              Uint32Register& lo) {
  const __m256i factor = _mm256_set1_epi64x(m);
  const __m256i even = _mm256_mul_epu32((__m256i)a, factor);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), factor);
  hi = (Uint32Register)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
  lo = (Uint32Register)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
}
PF_HD uint32_t below_bits_register(Uint32Register a, Uint32Register b) {
  const __m256i larger = _mm256_max_epu32((__m256i)a, (__m256i)b);
  const __m256i not_below = _mm256_cmpeq_epi32(larger, (__m256i)a);
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(not_below))) ^ 0xffu;
}
PF_HD void transpose4_register(FloatRegister a, FloatRegister b, FloatRegister c, FloatRegister d,
                               FloatRegister r[4]) {
  const __m256d ab_lo = _mm256_castps_pd(_mm256_unpacklo_ps((__m256)a, (__m256)b));
  const __m256d ab_hi = _mm256_castps_pd(_mm256_unpackhi_ps((__m256)a, (__m256)b));
  const __m256d cd_lo = _mm256_castps_pd(_mm256_unpacklo_ps((__m256)c, (__m256)d));
  const __m256d cd_hi = _mm256_castps_pd(_mm256_unpackhi_ps((__m256)c, (__m256)d));
  r[0] = (FloatRegister)_mm256_unpacklo_pd(ab_lo, cd_lo);
  r[1] = (FloatRegister)_mm256_unpackhi_pd(ab_lo, cd_lo);
  r[2] = (FloatRegister)_mm256_unpacklo_pd(ab_hi, cd_hi);
  r[3] = (FloatRegister)_mm256_unpackhi_pd(ab_hi, cd_hi);
}
PF_HD void interleave2_register(DoubleRegister a, DoubleRegister b, DoubleRegister r[2]) {
  r[0] = (DoubleRegister)_mm256_unpacklo_pd((__m256d)a, (__m256d)b);
  r[1] = (DoubleRegister)_mm256_unpackhi_pd((__m256d)a, (__m256d)b);
}

#elif defined(__SSE2__)

template <class Register>
PF_HD void stream_register(void* to, Register a) {
  _mm_stream_si128((__m128i*)to, (__m128i)a);
}
PF_HD FloatRegister maximum_register(FloatRegister a, FloatRegister b) {
  return (FloatRegister)_mm_max_ps((__m128)a, (__m128)b);
}
PF_HD DoubleRegister maximum_register(DoubleRegister a, DoubleRegister b) {
  return (DoubleRegister)_mm_max_pd((__m128d)a, (__m128d)b);
}
// No fused multiply-add here, so it is computed exactly: a*b has 48 bits and fits a double, the
// sum is taken with its error, and rounding that sum to odd makes the last rounding the only one.
// Not in line: it is long, and a processor that needs it is slow at everything.
[[maybe_unused]] static PF_NOINLINE FloatRegister fma_register(FloatRegister a, FloatRegister b,
                                                               FloatRegister c) {
  const __m128i one = _mm_set1_epi64x(1);
  __m128 half[2];
  for (int h = 0; h < 2; ++h) {
    const __m128 a_half = h ? _mm_movehl_ps((__m128)a, (__m128)a) : (__m128)a;
    const __m128 b_half = h ? _mm_movehl_ps((__m128)b, (__m128)b) : (__m128)b;
    const __m128 c_half = h ? _mm_movehl_ps((__m128)c, (__m128)c) : (__m128)c;
    const __m128d product = _mm_mul_pd(_mm_cvtps_pd(a_half), _mm_cvtps_pd(b_half));
    const __m128d addend = _mm_cvtps_pd(c_half);
    const __m128d sum = _mm_add_pd(product, addend);
    const __m128d carried = _mm_sub_pd(sum, product);
    const __m128d error =
        _mm_add_pd(_mm_sub_pd(product, _mm_sub_pd(sum, carried)), _mm_sub_pd(addend, carried));
    // Where the error is a non-zero number, the sum's last bit must be odd; step towards the
    // error when it is even. Infinite sums have a NaN error and stay as they are.
    const __m128d zero = _mm_setzero_pd();
    const __m128d inexact = _mm_or_pd(_mm_cmplt_pd(error, zero), _mm_cmpgt_pd(error, zero));
    const __m128d inward = _mm_xor_pd(error, sum);  // sign bit set: the error points to zero
    const __m128i bits = _mm_castpd_si128(sum);
    const __m128i even = _mm_xor_si128(_mm_and_si128(bits, one), one);
    const __m128i negative =
        _mm_shuffle_epi32(_mm_srai_epi32(_mm_castpd_si128(inward), 31), _MM_SHUFFLE(3, 3, 1, 1));
    // +1 away from zero, -1 towards zero, only when inexact and even
    const __m128i away = _mm_or_si128(negative, one);
    const __m128i active =
        _mm_and_si128(_mm_castpd_si128(inexact), _mm_sub_epi64(_mm_setzero_si128(), even));
    const __m128i odd = _mm_add_epi64(bits, _mm_and_si128(away, active));
    half[h] = _mm_cvtpd_ps(_mm_castsi128_pd(odd));
  }
  return (FloatRegister)_mm_movelh_ps(half[0], half[1]);
}
[[maybe_unused]] static PF_NOINLINE DoubleRegister fma_register(DoubleRegister a, DoubleRegister b,
                                                                DoubleRegister c) {
  DoubleRegister r;
  for (int l = 0; l < 2; ++l) r[l] = __builtin_fma(a[l], b[l], c[l]);
  return r;
}
PF_HD FloatRegister sqrt_register(FloatRegister a) { return (FloatRegister)_mm_sqrt_ps((__m128)a); }
PF_HD DoubleRegister sqrt_register(DoubleRegister a) {
  return (DoubleRegister)_mm_sqrt_pd((__m128d)a);
}
PF_HD DoubleRegister to_wide_register(FloatRegister a, bool second) {
  const __m128 all = (__m128)a;
  return (DoubleRegister)_mm_cvtps_pd(second ? _mm_movehl_ps(all, all) : all);
}
template <class MaskRegister>
PF_HD bool any_register(MaskRegister m) {
  return _mm_movemask_epi8((__m128i)m) != 0;
}
// Through double, where every uint32 is exact, so that one rounding remains.
PF_HD FloatRegister to_float_register(Uint32Register a) {
  const __m128i magic = _mm_set1_epi32(0x43300000);  // high word of 2^52
  const __m128d two52 = _mm_set1_pd(4503599627370496.0);
  const __m128d low = _mm_sub_pd(_mm_castsi128_pd(_mm_unpacklo_epi32((__m128i)a, magic)), two52);
  const __m128d high = _mm_sub_pd(_mm_castsi128_pd(_mm_unpackhi_epi32((__m128i)a, magic)), two52);
  return (FloatRegister)_mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
}
PF_HD void mul_hi_lo_register(Uint32Register a, uint32_t m, Uint32Register& hi,
                              Uint32Register& lo) {
  const __m128i factor = _mm_set1_epi64x(m);
  const __m128i even = _mm_mul_epu32((__m128i)a, factor);
  const __m128i odd = _mm_mul_epu32(_mm_srli_epi64((__m128i)a, 32), factor);
  const __m128i low_half = _mm_set1_epi64x(0xffffffff);
  hi = (Uint32Register)_mm_or_si128(_mm_srli_epi64(even, 32), _mm_andnot_si128(low_half, odd));
  lo = (Uint32Register)_mm_or_si128(_mm_and_si128(low_half, even), _mm_slli_epi64(odd, 32));
}
PF_HD uint32_t below_bits_register(Uint32Register a, Uint32Register b) {
  const __m128i sign = _mm_set1_epi32(INT32_MIN);
  const __m128i below =
      _mm_cmplt_epi32(_mm_xor_si128((__m128i)a, sign), _mm_xor_si128((__m128i)b, sign));
  return static_cast<uint32_t>(_mm_movemask_ps(_mm_castsi128_ps(below)));
}
PF_HD void transpose4_register(FloatRegister a, FloatRegister b, FloatRegister c, FloatRegister d,
                               FloatRegister r[4]) {
  const __m128 ab_lo = _mm_unpacklo_ps((__m128)a, (__m128)b);
  const __m128 ab_hi = _mm_unpackhi_ps((__m128)a, (__m128)b);
  const __m128 cd_lo = _mm_unpacklo_ps((__m128)c, (__m128)d);
  const __m128 cd_hi = _mm_unpackhi_ps((__m128)c, (__m128)d);
  r[0] = (FloatRegister)_mm_movelh_ps(ab_lo, cd_lo);
  r[1] = (FloatRegister)_mm_movehl_ps(cd_lo, ab_lo);
  r[2] = (FloatRegister)_mm_movelh_ps(ab_hi, cd_hi);
  r[3] = (FloatRegister)_mm_movehl_ps(cd_hi, ab_hi);
}
PF_HD void interleave2_register(DoubleRegister a, DoubleRegister b, DoubleRegister r[2]) {
  r[0] = (DoubleRegister)_mm_unpacklo_pd((__m128d)a, (__m128d)b);
  r[1] = (DoubleRegister)_mm_unpackhi_pd((__m128d)a, (__m128d)b);
}

#elif defined(__aarch64__)

template <class Register>
PF_HD void stream_register(void* to, Register a) {
  memcpy(to, &a, sizeof(a));
}
PF_HD FloatRegister maximum_register(FloatRegister a, FloatRegister b) { return a > b ? a : b; }
PF_HD DoubleRegister maximum_register(DoubleRegister a, DoubleRegister b) { return a > b ? a : b; }
PF_HD FloatRegister fma_register(FloatRegister a, FloatRegister b, FloatRegister c) {
  return (FloatRegister)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
PF_HD DoubleRegister fma_register(DoubleRegister a, DoubleRegister b, DoubleRegister c) {
  return (DoubleRegister)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
PF_HD FloatRegister sqrt_register(FloatRegister a) {
  return (FloatRegister)vsqrtq_f32((float32x4_t)a);
}
PF_HD DoubleRegister sqrt_register(DoubleRegister a) {
  return (DoubleRegister)vsqrtq_f64((float64x2_t)a);
}
PF_HD DoubleRegister to_wide_register(FloatRegister a, bool second) {
  const float32x4_t all = (float32x4_t)a;
  return (DoubleRegister)vcvt_f64_f32(second ? vget_high_f32(all) : vget_low_f32(all));
}
template <class MaskRegister>
PF_HD bool any_register(MaskRegister m) {
  return vmaxvq_u32((uint32x4_t)m) != 0;
}
PF_HD FloatRegister to_float_register(Uint32Register a) {
  return (FloatRegister)vcvtq_f32_u32((uint32x4_t)a);
}
PF_HD void mul_hi_lo_register(Uint32Register a, uint32_t m, Uint32Register& hi,
                              Uint32Register& lo) {
  const uint32x2_t factor = vdup_n_u32(m);
  const uint32x4_t low = vreinterpretq_u32_u64(vmull_u32(vget_low_u32((uint32x4_t)a), factor));
  const uint32x4_t high = vreinterpretq_u32_u64(vmull_u32(vget_high_u32((uint32x4_t)a), factor));
  hi = (Uint32Register)vuzp2q_u32(low, high);
  lo = (Uint32Register)vuzp1q_u32(low, high);
}
PF_HD uint32_t below_bits_register(Uint32Register a, Uint32Register b) {
  const uint32x4_t weight = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(vcltq_u32((uint32x4_t)a, (uint32x4_t)b), weight));
}
PF_HD void transpose4_register(FloatRegister a, FloatRegister b, FloatRegister c, FloatRegister d,
                               FloatRegister r[4]) {
  const float32x4x2_t ab = vzipq_f32((float32x4_t)a, (float32x4_t)b);
  const float32x4x2_t cd = vzipq_f32((float32x4_t)c, (float32x4_t)d);
  r[0] = (FloatRegister)vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0]));
  r[1] = (FloatRegister)vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0]));
  r[2] = (FloatRegister)vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1]));
  r[3] = (FloatRegister)vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1]));
}
PF_HD void interleave2_register(DoubleRegister a, DoubleRegister b, DoubleRegister r[2]) {
  r[0] = (DoubleRegister)vzip1q_f64((float64x2_t)a, (float64x2_t)b);
  r[1] = (DoubleRegister)vzip2q_f64((float64x2_t)a, (float64x2_t)b);
}

#else
#error "pushforward needs x86-64 or aarch64"
#endif

}  // namespace pf::PF_BACKEND
