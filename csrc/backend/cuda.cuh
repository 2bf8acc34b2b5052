// SPDX-License-Identifier: Apache-2.0
// The same walks on a GPU: a chain a thread where the state fits its registers, else a chain a
// warp; elements in groups that share a block of noise; sums a block of threads each. Launches
// are checked, run in the caller's stream, allocate nothing and wait for nothing.
#pragma once

#include "backend/launch.cuh"
#include "core/items.hpp"
#include "core/noise.hpp"
#include "core/per_chain.hpp"
#include "core/reduce.hpp"

namespace pf::PF_BACKEND {

// ---- chains
// --------------------------------------------------------------------------------------

// Any other number of coordinates. In float64, which takes the compiler longest, few share the
// kernel of many.
template <class T, class Body>
static void with_any_dim(int64_t dim, const Body& body) {
  if constexpr (sizeof(T) == 4) {
    if (dim <= kReductionWidth) return body(WarpDim<true>{dim});
  }
  body(WarpDim<false>{dim});
}

// Dimensions whose state stays in a thread's registers; `largest` says what the op has room for.
// Under the sanitizers, with which these are slow to compile, the emulator has few of them.
template <class T>
constexpr bool has_own_kernel(int k, int largest) {
#if defined(PF_EMULATOR_FEW_KERNELS)
  if (largest < 16) return sizeof(T) == 4 && k == 2;
#endif
  return sizeof(T) == 4 && k <= largest;
}

// Arrays of the threads of a block, side by side so that a warp touches neighbouring words.
template <class U>
struct Strided {
  U* first;
  int64_t stride;
  PF_HD U& operator[](int64_t i) const { return first[i * stride]; }
};

// The numbers of one thread's chain, k a step, read in order: one block of noise at a time.
template <class Law, class T, int k>
class ThreadNoise {
  static constexpr int kPerBlock = Draw<T>::kPerBlock;

 public:
  PF_HD ThreadNoise(const NoiseSource& noise, uint64_t chain)
      : chain_(chain, 0u, noise.purpose),
        key_(noise.seed),
        block_(noise.start / kPerBlock),
        entry_(static_cast<int>(noise.start % kPerBlock)) {
    if (k % kPerBlock != 0 && entry_ != 0) refill();
  }
  PF_HD void begin_step(Dim<k>) {}
  PF_HD T at(int64_t i) {
    if constexpr (k % kPerBlock == 0) {  // steps begin with a block: i says where in it
      if (i % kPerBlock == 0) refill();
      return values_[i % kPerBlock];
    } else {
      if (entry_ == 0) refill();
      T value = values_[0];
      PF_UNROLL
      for (int j = 1; j < kPerBlock; ++j) value = entry_ == j ? values_[j] : value;
      entry_ = entry_ + 1 < kPerBlock ? entry_ + 1 : 0;
      return value;
    }
  }

 private:
  PF_HD void refill() {
    Law::template values<T>(
        philox4x32_10<uint32_t>(static_cast<uint32_t>(block_), static_cast<uint32_t>(block_ >> 32),
                                chain_.c2, chain_.c3, key_),
        0, kPerBlock, values_);
    ++block_;
  }
  ChainCounter<uint32_t> chain_;
  PhiloxKey key_;
  uint64_t block_;
  int entry_;
  T values_[kPerBlock];
};

// The normals of one warp's chain: the lanes make the blocks under a step together.
template <class T>
class WarpNormals {
  static constexpr int kPerBlock = Draw<T>::kPerBlock;

 public:
  PF_HD WarpNormals(const NoiseSource& noise, uint64_t chain, T* buffer)
      : chain_(chain, 0u, noise.purpose), key_(noise.seed), next_(noise.start), buffer_(buffer) {}
  template <bool kShort>
  PF_HD void begin_step(WarpDim<kShort> dim) {
    const int phase = static_cast<int>(next_ % kPerBlock);
    const int64_t n_blocks = (phase + dim + kPerBlock - 1) / kPerBlock;
    dim.sync();
    for (int64_t b = dim.lane(); b < n_blocks; b += dim.kLanes) {
      const uint64_t block = next_ / kPerBlock + static_cast<uint64_t>(b);
      T values[kPerBlock];
      Normal::values<T>(
          philox4x32_10<uint32_t>(static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                                  chain_.c2, chain_.c3, key_),
          0, kPerBlock, values);
      PF_UNROLL
      for (int j = 0; j < kPerBlock; ++j) {
        const int64_t i = b * kPerBlock + j - phase;
        if (i >= 0 && i < dim) buffer_[i] = values[j];
      }
    }
    dim.sync();
    next_ += static_cast<uint64_t>(static_cast<int64_t>(dim));
  }
  PF_HD T at(int64_t i) const { return buffer_[i]; }

 private:
  ChainCounter<uint32_t> chain_;
  PhiloxKey key_;
  uint64_t next_;
  T* buffer_;
};

// One chain: `scratch` is shared memory, of the block for a thread and of the warp for a warp.
template <class T, class D>
struct ChainTile {
  using Real = T;
  template <class U>
  using Array = typename Select<D::kWarp, U*, Strided<U>>::type;
  using Normals =
      typename Select<D::kWarp, WarpNormals<T>, ThreadNoise<Normal, T, D::kValue>>::type;
  using Uniforms = ThreadNoise<Uniform, T, 1>;  // which the lanes of a warp each read
  static constexpr bool kScratchIsScarce = true;
  int64_t chain;
  char* scratch;

  template <class U>
  PF_HD Array<U> array(int64_t bytes_before) const {
    if constexpr (D::kWarp) {
      return reinterpret_cast<U*>(scratch + bytes_before);
    } else {
      return {reinterpret_cast<U*>(scratch + bytes_before * block_size()) + thread_in_block(),
              block_size()};
    }
  }
  template <class U>
  PF_HD U load_column(const U* rows, D dim, int64_t i) const {
    return rows[chain * dim + i];
  }
  template <class U>
  PF_HD void store_column(U* rows, D dim, int64_t i, U x) const {
    rows[chain * dim + i] = x;
  }
  template <class U, class To>
  PF_HD void load_rows(const U* rows, D dim, To&& x) const {
    dim.each([&](int64_t i) { x[i] = load_column(rows, dim, i); });
  }
  template <class U, class From>
  PF_HD void store_rows(U* rows, D dim, const From& x) const {
    dim.each([&](int64_t i) { store_column<U>(rows, dim, i, x[i]); });
  }
  template <class U>
  PF_HD void copy_rows_unless(bool m, U* rows, const U* from, D dim) const {
    if (!m) store_rows(rows, dim, from + chain * dim);
  }
  PF_HD T load(const PerChain& p) const { return value_of<T>(p, chain); }
  template <class U>
  PF_HD U load_values(const U* values) const {
    return values[chain];
  }
  template <class U>
  PF_HD void store(U* values, U x) const {
    if (speaks()) values[chain] = x;
  }
  PF_HD void count_where(bool m, int64_t* counts) const {
    if (m && speaks()) ++counts[chain];
  }
  PF_HD void mark_unless(bool m, uint8_t* marks) const {
    if (speaks()) marks[chain] = !m;
  }
  PF_HD Normals normals(const NoiseSource& given, D, int64_t, T* buffer) const {
    const NoiseSource noise = resolved(given);
    const uint64_t id = noise.chain_offset + static_cast<uint64_t>(chain);
    if constexpr (D::kWarp) {
      return Normals(noise, id, buffer);
    } else {
      (void)buffer;
      return Normals(noise, id);
    }
  }
  PF_HD Uniforms uniforms(const NoiseSource& given, int64_t) const {
    const NoiseSource noise = resolved(given);
    return Uniforms(noise, noise.chain_offset + static_cast<uint64_t>(chain));
  }

 private:
  // One lane of a warp writes what belongs to the chain as a whole.
  PF_HD bool speaks() const {
    if constexpr (D::kWarp) return D::lane() == 0;
    return true;
  }
};

constexpr int kChainsPerBlock = 128, kWarpsPerBlock = 4, kFewestThreads = 32;

template <class T, class D, class Body>
PF_KERNEL(kChainsPerBlock)
chains_kernel(int64_t n_chains, int64_t scratch_bytes, Body body) {
  char* scratch = static_cast<char*>(shared_memory());
  if constexpr (D::kWarp) {
    const int64_t warp = thread_in_block() / D::kLanes;
    const int64_t warps = block_size() / D::kLanes;
    const int64_t chain = block_in_grid() * warps + warp;
    if (chain < n_chains) body(ChainTile<T, D>{chain, scratch + warp * scratch_bytes});
  } else {
    const int64_t chain = block_in_grid() * block_size() + thread_in_block();
    if (chain < n_chains) body(ChainTile<T, D>{chain, scratch});
  }
}

template <class T, class D, class Body>
static void for_each_chain(int64_t n_chains, int64_t scratch_bytes, const Place& place, double,
                           const Body& body) {
  if constexpr (D::kWarp) {
    const int64_t bytes = (scratch_bytes + 15) / 16 * 16;
    const int64_t fit = bytes > 0 ? shared_memory_limit(place) / bytes : kWarpsPerBlock;
    if (fit == 0) out_of_shared_memory(bytes, shared_memory_limit(place));
    const int warps = fit < kWarpsPerBlock ? static_cast<int>(fit) : kWarpsPerBlock;
    launch(place, (n_chains + warps - 1) / warps, warps * D::kLanes, warps * bytes,
           chains_kernel<T, D, Body>, n_chains, bytes, body);
  } else {
    int chains = kChainsPerBlock;
    if (scratch_bytes > 0) {  // fewer where the arrays of so many do not fit
      const int64_t limit = shared_memory_limit(place);
      while (chains > kFewestThreads && scratch_bytes * chains > limit) chains -= kFewestThreads;
      if (scratch_bytes * chains > limit) out_of_shared_memory(scratch_bytes * chains, limit);
    }
    launch(place, (n_chains + chains - 1) / chains, chains, scratch_bytes * chains,
           chains_kernel<T, D, Body>, n_chains, scratch_bytes, body);
  }
}

// ---- rows and sums
// -------------------------------------------------------------------------------

constexpr int kThreads = 128;

template <class Body>
PF_KERNEL(kThreads)
rows_kernel(int64_t n, Body body) {
  const int64_t row = block_in_grid() * block_size() + thread_in_block();
  if (row < n) body(row);
}

template <class Body>
static void for_each_row(int64_t n_rows, const Place& place, double, const Body& body) {
  launch(place, (n_rows + kThreads - 1) / kThreads, kThreads, 0, rows_kernel<Body>, n_rows, body);
}

// body(one) for n items of arrays.
template <class Body>
struct ItemOfRow {
  Body body;
  PF_HD void operator()(int64_t i) const { body(OneItem<>{i}); }
};
template <class Body>
static void for_each_item(int64_t n, const Place& place, double nanoseconds, const Body& body) {
  for_each_row(n, place, nanoseconds, ItemOfRow<Body>{body});
}

template <class T>
PF_HD void fetch_row(const T*, int64_t) {}

// body(one) for the items begin .. end - 1 of arrays.
template <class Body>
PF_HD void for_items_of_row(int64_t begin, int64_t end, const Body& body) {
  for (int64_t i = begin; i < end; ++i) body(OneItem<>{i});
}

// The threads of a block take a group of terms each, and the first adds the groups up in order.
struct OrderedSum {
  double* totals;  // one a thread, and the result
  template <class Term>
  PF_HD double operator()(int64_t n, const Term& term) const {
    const int64_t n_groups = (n + kSumGroup - 1) / kSumGroup;
    const int64_t me = thread_in_block();
    double total = 0;
    for (int64_t first = 0; first < n_groups; first += kThreads) {
      const int64_t begin = (first + me) * kSumGroup;
      const int64_t end = begin + kSumGroup < n ? begin + kSumGroup : n;
      totals[me] = sum_of_group(begin, end, term);
      sync_block();
      if (me == 0) {
        for (int64_t g = 0; g < kThreads && first + g < n_groups; ++g) total += totals[g];
      }
      sync_block();
    }
    if (me == 0) totals[kThreads] = total;
    sync_block();
    return totals[kThreads];
  }
};

template <class Body>
PF_KERNEL(kThreads)
sums_kernel(Body body) {
  body(block_in_grid(), OrderedSum{static_cast<double*>(shared_memory())});
}

template <class Body>
static void for_each_sum(int64_t n, const Place& place, double, const Body& body) {
  launch(place, n, kThreads, (kThreads + 1) * static_cast<int64_t>(sizeof(double)),
         sums_kernel<Body>, body);
}

}  // namespace pf::PF_BACKEND
