// SPDX-License-Identifier: Apache-2.0
// The walk of a GPU over real fields: a lattice a block of threads, its arrays in shared memory,
// or, where they do not fit, in a workspace that the call brings.
#pragma once

#include "backend/cuda.cuh"

namespace pf::PF_BACKEND {

constexpr int kFieldThreads = 256;

// States of a lattice that wait at most, to be added to streaming sums together: more would need
// arrays that do not fit.
constexpr int kMostWaiting = 1;

// One array of a lattice, in row-major order.
template <class T>
struct Field {
  T* first;
};

// What a pass reads at every site: entries of a sequence of one chain, or nothing.
template <class Law, class T>
struct Entries {
  NoiseSource noise;
  PF_HD Entries(const NoiseSource& n, uint64_t) : noise(n) {}
};
template <class T>
struct NoEntries {};

// One block of a sequence, or one number of it.
template <class Law, class T>
PF_HD void entry_block(const NoiseSource& noise, uint64_t block, T* values) {
  const ChainCounter<uint32_t> chain(noise.chain_offset, 0u, noise.purpose);
  Law::template values<T>(
      philox4x32_10<uint32_t>(static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                              chain.c2, chain.c3, PhiloxKey(noise.seed)),
      0, Draw<T>::kPerBlock, values);
}
template <class Law, class T>
PF_HD T entry(const NoiseSource& noise, uint64_t index) {
  constexpr int kPerBlock = Draw<T>::kPerBlock;
  T values[kPerBlock];
  entry_block<Law>(noise, index / kPerBlock, values);
  T value = values[0];
  PF_UNROLL
  for (int j = 1; j < kPerBlock; ++j) value = index % kPerBlock == j ? values[j] : value;
  return value;
}

template <class T, int kDims>
class FieldLattice {
 public:
  using Real = T;
  using Mask = bool;
  template <class Law>
  using Source = Entries<Law, T>;

  // One site.
  class Sites {
   public:
    PF_HD T value(Field<T> f) const { return f.first[at_]; }
    // Along the row first, then dimension after dimension towards the first.
    PF_HD T neighbours(Field<T> f) const {
      T sum = T(0);
      int64_t rest = at_, step = 1;
      PF_UNROLL
      for (int k = 0; k < kDims; ++k) {
        const int64_t n = shape_.size[kDims - 1 - k], i = rest % n;
        rest /= n;
        const T pair = f.first[i > 0 ? at_ - step : at_ + step * (n - 1)] +
                       f.first[i + 1 < n ? at_ + step : at_ - step * (n - 1)];
        sum = k == 0 ? pair : sum + pair;
        step *= n;
      }
      return sum;
    }
    PF_HD void put(Field<T> f, T x) const { f.first[at_] = x; }
    PF_HD T noise() const { return noise_[at_]; }
    PF_HD bool of_colour(int colour) const {
      int64_t rest = at_, parity = colour;
      PF_UNROLL
      for (int k = 0; k < kDims; ++k) {
        parity += rest % shape_.size[kDims - 1 - k];
        rest /= shape_.size[kDims - 1 - k];
      }
      return parity % 2 == 0;
    }

   private:
    friend class FieldLattice;
    PF_HD Sites(const LatticeShape& shape, const T* noise, int64_t at)
        : shape_(shape), noise_(noise), at_(at) {}
    const LatticeShape& shape_;
    const T* noise_;
    int64_t at_;
  };

  // Sums of rows, a flag, the noise of a pass and n_arrays.
  static PF_HD int64_t bytes(const LatticeShape& s, int n_arrays) {
    int64_t rows = 1;
    for (int j = 0; j < kDims - 1; ++j) rows *= s.size[j];
    return (rows + 1) * int64_t{sizeof(double)} +
           (n_arrays + 1) * rows * s.size[kDims - 1] * int64_t{sizeof(T)};
  }
  PF_HD FieldLattice(const LatticeShape& s, void* memory) : shape_(s), rows_(1) {
    for (int j = 0; j < kDims - 1; ++j) rows_ *= s.size[j];
    row_sums_ = static_cast<double*>(memory);
    noise_ = reinterpret_cast<T*>(row_sums_ + rows_ + 1);
  }
  PF_HD int64_t sites() const { return rows_ * shape_.size[kDims - 1]; }
  PF_HD Field<T> array(int i) const { return {noise_ + (i + 1) * sites()}; }
  PF_HD bool speaks() const { return thread_in_block() == 0; }

  PF_HD void load(Field<T> f, const T* x) const {
    for (int64_t i = thread_in_block(); i < sites(); i += block_size()) f.first[i] = x[i];
    sync_block();
  }
  PF_HD void store(Field<T> f, T* x) const {
    sync_block();
    for (int64_t i = thread_in_block(); i < sites(); i += block_size()) x[i] = f.first[i];
  }

  // visit(site, place in the array) for all sites; a thread comes to the same ones every time.
  template <class Visit>
  PF_HD void for_each_site(Field<T> f, const Visit& visit) const {
    for (int64_t i = thread_in_block(); i < sites(); i += block_size()) visit(i, f.first + i);
    sync_block();
  }

  template <class Entries, class Visit>
  PF_HD void pass(uint64_t first, const Entries& source, double, Field<T>,
                  const Visit& visit) const {
    draw(first, source);
    for (int64_t i = thread_in_block(); i < sites(); i += block_size()) {
      visit(Sites(shape_, noise_, i));
    }
    sync_block();
  }
  // A warp takes a row: 32 strided chains and a binary tree; then the rows in order in float64.
  template <class Entries, class Visit>
  PF_HD double sum(uint64_t first, const Entries& source, double, Field<T>,
                   const Visit& visit) const {
    draw(first, source);
    constexpr int kLanes = kReductionWidth;
    const int64_t length = shape_.size[kDims - 1], lane = thread_in_block() % kLanes;
    for (int64_t r = thread_in_block() / kLanes; r < rows_; r += block_size() / kLanes) {
      T chain = T(0);
      for (int64_t i = lane; i < length; i += kLanes) {
        chain = chain + visit(Sites(shape_, noise_, r * length + i));
      }
      chain = WarpDim<false>::tree_sum(chain);
      if (lane == 0) row_sums_[r] = static_cast<double>(chain);
    }
    sync_block();
    double total = 0;
    for (int64_t r = 0; r < rows_; ++r) total += row_sums_[r];
    sync_block();
    return total;
  }
  template <class Entries, class Visit>
  PF_HD bool finite(uint64_t first, const Entries& source, double, Field<T>,
                    const Visit& visit) const {
    double* flag = row_sums_ + rows_;
    if (speaks()) *flag = 0;
    draw(first, source);
    sync_block();
    T turned = T(0);
    for (int64_t i = thread_in_block(); i < sites(); i += block_size()) {
      turned = fma(visit(Sites(shape_, noise_, i)), T(0), turned);
    }
    if (turned != turned) *flag = 1;
    sync_block();
    const bool fine = *flag == 0;
    sync_block();
    return fine;
  }

 private:
  PF_HD void draw(uint64_t, const NoEntries<T>&) const {}
  // Entries first ... first + sites - 1, a block of them a thread.
  template <class Law>
  PF_HD void draw(uint64_t first, const Entries<Law, T>& source) const {
    constexpr int kPerBlock = Draw<T>::kPerBlock;
    const int64_t phase = static_cast<int64_t>(first % kPerBlock);
    const int64_t n_blocks = (phase + sites() + kPerBlock - 1) / kPerBlock;
    for (int64_t b = thread_in_block(); b < n_blocks; b += block_size()) {
      T values[kPerBlock];
      entry_block<Law>(source.noise, first / kPerBlock + static_cast<uint64_t>(b), values);
      PF_UNROLL
      for (int j = 0; j < kPerBlock; ++j) {
        const int64_t i = b * kPerBlock + j - phase;
        if (i >= 0 && i < sites()) noise_[i] = values[j];
      }
    }
    sync_block();
  }

  LatticeShape shape_;
  int64_t rows_;
  double* row_sums_;
  T* noise_;
};

template <class T, int kDims, class Body>
PF_KERNEL(kFieldThreads)
fields_kernel(LatticeShape shape, char* workspace, int64_t bytes, Body body) {
  const int64_t lattice = block_in_grid();
  void* memory = workspace != nullptr ? workspace + lattice * bytes : shared_memory();
  body(lattice, FieldLattice<T, kDims>(shape, memory));
}

template <class T, int kDims, class Body>
static void for_each_field(int64_t n_lattices, const LatticeShape& shape, int n_arrays, double,
                           int64_t, void* workspace, const Place& place, const Body& body) {
  const int64_t bytes = (FieldLattice<T, kDims>::bytes(shape, n_arrays) + 15) / 16 * 16;
  const bool fits = bytes <= shared_memory_limit(place);
  if (!fits && workspace == nullptr) out_of_shared_memory(bytes, shared_memory_limit(place));
  launch(place, n_lattices, kFieldThreads, fits ? bytes : 0, fields_kernel<T, kDims, Body>, shape,
         fits ? static_cast<char*>(nullptr) : static_cast<char*>(workspace), bytes, body);
}

}  // namespace pf::PF_BACKEND
