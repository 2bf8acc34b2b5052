// SPDX-License-Identifier: Apache-2.0
// How a CPU walks over chains, kLanes at a time, and over rows; elements are in cpu_elements.hpp.
// Only threads.cpp knows threads; only this file knows tiles and tails.
#pragma once

#include <string.h>

#include "backend/threads.hpp"
#include "core/items.hpp"
#include "core/noise.hpp"
#include "core/per_chain.hpp"
#include "core/reduce.hpp"
#include "core/transpose.hpp"

namespace pf::PF_BACKEND {

// Runs body(begin, end, scratch) over blocks of [0, n) on the threads.
template <class Body>
static void for_each_block(int64_t n, int64_t block, const Place& place, double nanoseconds,
                           int64_t scratch_bytes, const Body& body) {
  parallel_for(
      n, block, place.n_threads, nanoseconds, scratch_bytes,
      [](void* context, int64_t begin, int64_t end, void* scratch) {
        (*static_cast<const Body*>(context))(begin, end, scratch);
      },
      const_cast<Body*>(&body));
}

// ---- chains
// --------------------------------------------------------------------------------------

// Any number of coordinates that has no kernel of its own.
template <class T, class Body>
static void with_any_dim(int64_t dim, const Body& body) {
  body(Dim<0>{dim});
}

// Dimensions with a kernel of their own: two coordinates in float32 are the plane that everybody
// starts with; the others share one, and so do kernels with room for few (`largest`), whose code is
// long.
template <class T>
constexpr bool has_own_kernel(int k, int largest) {
  return sizeof(T) == 4 && k == 2 && largest >= 8;
}

// kLanes consecutive chains, `count` of them real: the rest repeat the last one and are not stored.
template <class T, class D>
struct ChainTile {
  using Real = Pack<T>;
  template <class U>
  using Array = U*;
  using Normals = NoiseStream<Normal, Real>;
  using Uniforms = NoiseStream<Uniform, Real>;
  static constexpr bool kScratchIsScarce = false;
  int64_t first;
  int count;
  char* scratch;

  PF_HD int64_t chain(int lane) const { return first + (lane < count ? lane : count - 1); }

  // The tile's own memory, after the `bytes_before` that are used otherwise.
  template <class U>
  PF_HD Array<U> array(int64_t bytes_before) const {
    return reinterpret_cast<U*>(scratch + bytes_before);
  }
  // Column i of these chains' rows in a (n_chains, dim) array.
  template <class U>
  PF_HD Pack<U> load_column(const U* rows, D dim, int64_t i) const {
    U lanes[kLanes];
    if (count == kLanes) {  // without chain(), which a compiler cannot make vectors of
      const U* column = rows + first * dim + i;
      for (int l = 0; l < kLanes; ++l) lanes[l] = column[l * dim];
    } else {
      for (int l = 0; l < kLanes; ++l) lanes[l] = rows[chain(l) * dim + i];
    }
    return Pack<U>::load(lanes);
  }
  template <class U>
  PF_HD void store_column(U* rows, D dim, int64_t i, const Pack<U>& x) const {
    U* out = rows + first * dim + i;
    U lanes[kLanes];
    x.store(lanes);
    if (count == kLanes) {
      for (int l = 0; l < kLanes; ++l) out[l * dim] = lanes[l];
    } else {
      for (int l = 0; l < count; ++l) out[l * dim] = lanes[l];
    }
  }
  template <class U>
  PF_HD void load_rows(const U* rows, D dim, Pack<U>* x) const {
    if (is_narrow<U>(dim)) {
      for (int64_t i = 0; i < dim; ++i) x[i] = load_column(rows, dim, i);
    } else {
      load_transposed(x, dim, [&](int l) { return rows + chain(l) * dim; });
    }
  }
  template <class U>
  PF_HD void store_rows(U* rows, D dim, const Pack<U>* x) const {
    if (is_narrow<U>(dim)) {
      for (int64_t i = 0; i < dim; ++i) store_column(rows, dim, i, x[i]);
    } else {
      store_transposed(x, dim, count, [&](int l) { return rows + (first + l) * dim; });
    }
  }
  // Rows of the chains for which m is not set become those of `from`.
  template <class U>
  PF_HD void copy_rows_unless(MaskOf<T> m, U* rows, const U* from, D dim) const {
    for (int l = 0; l < count; ++l) {
      if (is_set(m, l)) continue;
      const int64_t row = (first + l) * dim;
      memcpy(rows + row, from + row, static_cast<size_t>(dim) * sizeof(U));
    }
  }
  PF_HD Real load(const PerChain& p) const {
    T lanes[kLanes];
    for (int l = 0; l < kLanes; ++l) lanes[l] = value_of<T>(p, chain(l));
    return Real::load(lanes);
  }
  // One value a chain.
  template <class U>
  PF_HD Pack<U> load_values(const U* values) const {
    U lanes[kLanes];
    for (int l = 0; l < kLanes; ++l) lanes[l] = values[chain(l)];
    return Pack<U>::load(lanes);
  }
  template <class U>
  PF_HD void store(U* values, Pack<U> x) const {
    U lanes[kLanes];
    x.store(lanes);
    memcpy(values + first, lanes, static_cast<size_t>(count) * sizeof(U));
  }
  // counts[chain] += 1 where m is set
  PF_HD void count_where(MaskOf<T> m, int64_t* counts) const {
    for (int l = 0; l < count; ++l) counts[first + l] += is_set(m, l);
  }
  // marks[chain] = 1, or 0 where m is set.
  PF_HD void mark_unless(MaskOf<T> m, uint8_t* marks) const {
    for (int l = 0; l < count; ++l) marks[first + l] = !is_set(m, l);
  }
  // The steps' numbers, dim each; `buffer` is for backends that make a step's numbers at once.
  PF_HD Normals normals(const NoiseSource& n, D dim, int64_t n_steps, const Real*) const {
    return stream<Normal>(n, static_cast<uint64_t>(n_steps * dim));
  }
  // One number a step.
  PF_HD Uniforms uniforms(const NoiseSource& n, int64_t n_steps) const {
    return stream<Uniform>(n, static_cast<uint64_t>(n_steps));
  }

 private:
  static PF_HD bool is_set(const MaskOf<T>& m, int lane) {
    return m.r[lane / Real::kLanesPerRegister][lane % Real::kLanesPerRegister] != 0;
  }
  // Whether columns are few enough to go number by number.
  template <class U>
  static PF_HD bool is_narrow(D dim) {
    return dim < Pack<U>::kLanesPerRegister / 2;
  }
  template <class Law>
  PF_HD NoiseStream<Law, Real> stream(const NoiseSource& n, uint64_t length) const {
    uint32_t lane[kLanes];
    for (int l = 0; l < kLanes; ++l) lane[l] = static_cast<uint32_t>(l);
    return NoiseStream<Law, Real>(n.seed, n.purpose, n.chain_offset + static_cast<uint64_t>(first),
                                  Pack<uint32_t>::load(lane), n.start, n.start + length);
  }
};

// body(tile) for every kLanes chains; each tile has `scratch_bytes` of aligned memory.
template <class T, class D, class Body>
static void for_each_chain(int64_t n_chains, int64_t scratch_bytes, const Place& place,
                           double nanoseconds, const Body& body) {
  const int64_t n_tiles = (n_chains + kLanes - 1) / kLanes;
  for_each_block(n_tiles, 1, place, nanoseconds, scratch_bytes,
                 [&](int64_t begin, int64_t end, void* scratch) {
                   for (int64_t t = begin; t < end; ++t) {
                     const int64_t first = t * kLanes;
                     const int64_t left = n_chains - first;
                     body(ChainTile<T, D>{first, left < kLanes ? static_cast<int>(left) : kLanes,
                                          static_cast<char*>(scratch)});
                   }
                 });
}

// ---- rows
// ----------------------------------------------------------------------------------------

// Sums term(0) + ... + term(n - 1) in groups of 1024 terms, then the groups in order, so that ranks
// that hold whole groups can reproduce it.
struct OrderedSum {
  template <class Term>
  PF_HD auto operator()(int64_t n, const Term& term) const {
    auto total = decltype(term(n))(0.0);
    for (int64_t begin = 0; begin < n; begin += kSumGroup) {
      const int64_t end = begin + kSumGroup < n ? begin + kSumGroup : n;
      total = total + sum_of_group(begin, end, term);
    }
    return total;
  }
};

// body(one or several) for n items of arrays.
template <class Body>
static void for_each_item(int64_t n, const Place& place, double nanoseconds, const Body& body) {
  const int64_t block = (n / (4 * place.n_threads * kLanes) + 1) * kLanes;
  for_each_block(n, block, place, nanoseconds, 0, [&](int64_t begin, int64_t end, void*) {
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) body(SeveralItems{i});
    for (; i < end; ++i) body(OneItem<>{i});
  });
}

// Asks for n numbers of a row that will be read soon, and not in the order of memory.
template <class T>
PF_HD void fetch_row(const T* row, int64_t n) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < n + kLine; i += kLine) __builtin_prefetch(row + i);
}

// body(several, of which the last may be fewer) for the items begin .. end - 1 of arrays.
template <class Body>
PF_HD void for_items_of_row(int64_t begin, int64_t end, const Body& body) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) body(SeveralItems{i});
  if (i < end) body(FewerItems{i, end - i});
}

// body(one or several, sum) for n columns, where sum is an OrderedSum. Rows may lie a power of
// two apart, so that what is next to a number is read with it or from memory again.
template <class Body>
static void for_each_sum(int64_t n, const Place& place, double nanoseconds, const Body& body) {
  for_each_item(n, place, nanoseconds,
                [&](const auto& at) PF_INLINE_LAMBDA { body(at, OrderedSum{}); });
}

// body(row) for every row; `nanoseconds` is the cost of them all.
template <class Body>
static void for_each_row(int64_t n_rows, const Place& place, double nanoseconds, const Body& body) {
  const int64_t block = n_rows < 1024 ? 16 : 256;
  for_each_block(n_rows, block, place, nanoseconds, 0, [&](int64_t begin, int64_t end, void*) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace pf::PF_BACKEND
