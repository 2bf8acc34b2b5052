// SPDX-License-Identifier: Apache-2.0
// The walk of a GPU over real fields: a lattice a block of threads, its arrays in shared memory;
// or, where they do not fit, several blocks a lattice, its arrays in a workspace that the call
// brings.
#pragma once

#include "backend/cuda_entries.cuh"

namespace pf::PF_BACKEND {

// States of a lattice that wait at most, to be added to streaming sums together: more would need
// arrays that do not fit.
constexpr int kFieldsWaiting = 1;

// One array of a lattice, in row-major order.
template <class T>
struct Field {
  T* first;
};

// Who works on a lattice: all threads of n_blocks blocks, of which this is one. Among several, the
// words are a barrier's and three flags, at first zero, in global memory.
struct FieldCrew {
  uint32_t* words;
  int n_blocks, block;
};

// Memory of a block beside the arrays: a sum, and of each thread a block of noise.
PF_HD int64_t field_block_bytes(int threads) { return 16 + 16 * int64_t{threads}; }

// A lattice at work, a warp a stretch of its sites or of its rows, by one block whose shared memory
// the arrays are in, or by several. Sites are numbered in 32 bits: divisions of more take long.
template <class T, int kDims, bool kShared>
class FieldLattice {
  static constexpr int kLanes = kReductionWidth, kStretch = kLanes * Draw<T>::kPerBlock;

 public:
  using Real = T;
  using Mask = bool;
  template <class Law>
  using Source = Entries<Law, T>;

  // One site. Dimensions are counted from the last on here.
  class Sites {
   public:
    PF_HD T value(Field<T> f) const { return f.first[at_]; }
    // Along the row first, then dimension after dimension towards the first.
    PF_HD T neighbours(Field<T> f) const {
      T sum = T(0);
      int step = 1;
      PF_UNROLL
      for (int k = 0; k < kDims; ++k) {
        const int n = lattice_.size_[k], around = step * (n - 1);
        const T pair = f.first[place_[k] > 0 ? at_ - step : at_ + around] +
                       f.first[place_[k] + 1 < n ? at_ + step : at_ - around];
        sum = k == 0 ? pair : sum + pair;
        step *= n;
      }
      return sum;
    }
    PF_HD void put(Field<T> f, T x) const { f.first[at_] = x; }
    PF_HD T noise() const { return *noise_; }
    PF_HD bool of_colour(int colour) const {
      int parity = colour;
      PF_UNROLL
      for (int k = 0; k < kDims; ++k) parity += place_[k];
      return parity % 2 == 0;
    }

   private:
    friend class FieldLattice;
    PF_HD Sites(const FieldLattice& lattice, int at, int row, int column)
        : lattice_(lattice), at_(at) {
      place_[0] = column;
      PF_UNROLL
      for (int k = 1; k < kDims; ++k) {
        place_[k] = k + 1 < kDims ? row % lattice.size_[k] : row;
        row /= lattice.size_[k];
      }
    }
    // As many sites on as a warp has lanes.
    PF_HD void advance() {
      at_ += kLanes;
      int carry = 0;
      PF_UNROLL
      for (int k = 0; k < kDims; ++k) {
        place_[k] += lattice_.advance_[k] + carry;
        carry = place_[k] >= lattice_.size_[k];
        if (carry != 0) place_[k] -= lattice_.size_[k];
      }
    }
    const FieldLattice& lattice_;
    const T* noise_ = nullptr;
    int at_, place_[kDims];
  };

  // A site without its neighbours, in arrays and in tensors.
  struct Site : OneItem<int> {
    PF_HD T value(Field<T> f) const { return this->load(f.first); }
  };

  // Sums of rows, of several blocks those of two passes, and n_arrays: a multiple of 16.
  static PF_HD int64_t bytes(const LatticeShape& s, int n_arrays) {
    const int64_t n_sums = (kShared ? 1 : 2) * (s.n_sites / s.size[kDims - 1]);
    return (n_sums * int64_t{sizeof(double)} + n_arrays * s.n_sites * int64_t{sizeof(T)} + 15) /
           16 * 16;
  }
  // `block_memory` is shared memory, `memory` what bytes() says.
  PF_HD FieldLattice(const LatticeShape& s, const FieldCrew& crew, void* block_memory, void* memory)
      : crew_(crew),
        sites_(static_cast<int>(s.n_sites)),
        total_(static_cast<double*>(block_memory)) {
    int rest = kLanes;
    PF_UNROLL
    for (int k = 0; k < kDims; ++k) {
      size_[k] = static_cast<int>(s.size[kDims - 1 - k]);
      advance_[k] = k + 1 < kDims ? rest % size_[k] : rest;
      rest /= size_[k];
    }
    rows_ = sites_ / size_[0];
    row_sums_ = static_cast<double*>(memory);
    arrays_ = reinterpret_cast<T*>(row_sums_ + (kShared ? 1 : 2) * int64_t{rows_});
    const int lane = WarpDim<false>::lane();
    const int stretches = (sites_ + kStretch - 1) / kStretch;
    begin_ = share(stretches, 0) * kStretch;
    end_ = share(stretches, 1) * kStretch;
    if (end_ > sites_) end_ = sites_;
    first_row_ = (begin_ + lane) / size_[0];
    first_column_ = (begin_ + lane) % size_[0];
  }
  PF_HD int64_t sites() const { return sites_; }
  PF_HD Field<T> array(int i) const { return {arrays_ + i * sites()}; }
  // Whether this thread writes what belongs to the lattice as a whole.
  PF_HD bool speaks() const { return crew_.block == 0 && thread_in_block() == 0; }

  PF_HD void load(Field<T> f, const T* x) const {
    for_each_site([&](const Site& s) { s.store(f.first, s.load(x)); });
    sync();
  }
  PF_HD void store(Field<T> f, T* x) const {
    for_each_site([&](const Site& s) { s.store(x, s.value(f)); });
  }

  // visit(at) for all sites. A thread comes to the same ones every time, and to those that it comes
  // to in pass() and finite(); others may not have come to theirs.
  template <class Visit>
  PF_HD void for_each_site(const Visit& visit) const {
    for (int i = begin_ + WarpDim<false>::lane(); i < end_; i += kLanes) visit(Site{{i}});
  }

  template <class Entries, class Visit>
  PF_HD void pass(uint64_t first, const Entries& source, double, Field<T>,
                  const Visit& visit) const {
    over_own_sites(first, source, visit);
    sync();
  }
  // A warp takes a row: 32 strided chains and a binary tree; then the rows in order in float64.
  template <class Entries, class Visit>
  PF_HD double sum(uint64_t first, const Entries& source, double, Field<T>,
                   const Visit& visit) const {
    // A block may be at the next sum while another one still reads this.
    double* sums = row_sums_;
    if (!kShared && n_sums_++ % 2 == 1) sums += rows_;
    const int lane = WarpDim<false>::lane();
    const int length = size_[0], end = share(rows_, 1);
    NoiseAhead<Entries, T> noise(source, first, noise_memory());
    for (int r = share(rows_, 0); r < end; ++r) {
      T chain = T(0);
      const int begin = r * length;
      along(Sites(*this, begin + lane, r, lane), begin, begin + length, noise,
            [&](const Sites& s) { chain = chain + visit(s); });
      chain = WarpDim<false>::tree_sum(chain);
      if (lane == 0) sums[r] = static_cast<double>(chain);
    }
    sync();
    if (thread_in_block() < kLanes) {  // adding float64 is slow on many GPUs: one warp does
      double total = 0;
      for (int r = 0; r < rows_; r += kLanes) {
        const double own = r + lane < rows_ ? sums[r + lane] : 0.0;
        for (int l = 0; l < kLanes; ++l) total += of_lane(own, l);
      }
      if (lane == 0) *total_ = total;
    }
    sync_block();
    return *total_;
  }
  template <class Entries, class Visit>
  PF_HD bool finite(uint64_t first, const Entries& source, double, Field<T>,
                    const Visit& visit) const {
    T turned = T(0);
    over_own_sites(first, source, [&](const Sites& s) { turned = fma(visit(s), T(0), turned); });
    return !sync_any(turned != turned);
  }

 private:
  // Where of n things those of this warp begin (after = 0) and end (1).
  PF_HD int share(typename Select<kShared, int, int64_t>::type n, int after) const {
    const int warps = static_cast<int>(block_size()) / kLanes;
    const int warp = crew_.block * warps + static_cast<int>(thread_in_block()) / kLanes;
    return static_cast<int>(n * (warp + after) / (crew_.n_blocks * warps));
  }
  PF_HD T* noise_memory() const {
    const int64_t warp = thread_in_block() / kLanes;
    return reinterpret_cast<T*>(total_ + 2) + warp * kStretch;
  }

  // visit(site) for sites begin ... end - 1, of which `site` is this lane's first.
  template <class Noise, class Visit>
  PF_HD void along(Sites site, int begin, int end, Noise& noise, const Visit& visit) const {
    for (int i = begin; i < end; i += kLanes) {
      noise.reach(i, end - i < kLanes ? end : i + kLanes);
      if (site.at_ < end) {
        site.noise_ = noise.at(site.at_);
        visit(site);
      }
      site.advance();
    }
  }
  template <class Entries, class Visit>
  PF_HD void over_own_sites(uint64_t first, const Entries& source, const Visit& visit) const {
    NoiseAhead<Entries, T> noise(source, first, noise_memory());
    const int own = begin_ + WarpDim<false>::lane();
    along(Sites(*this, own, first_row_, first_column_), begin_, end_, noise, visit);
  }

  // All threads of the lattice have come, and see what the others wrote before.
  PF_HD void sync() const {
    sync_block();
    if (kShared || crew_.n_blocks == 1) return;
    if (thread_in_block() == 0) meet();
    sync_block();
  }
  // The same, and whether any thread says so.
  PF_HD bool sync_any(bool mine) const {
    bool any = sync_block_any(mine);
    if (kShared || crew_.n_blocks == 1) return any;
    // One flag is set and read, while the next is made ready: it was last read before the barrier
    // before this one. The third may still be read by others.
    const int following = flag_ == 2 ? 0 : flag_ + 1;
    if (thread_in_block() == 0) {
      uint32_t* flags = crew_.words + 1;
      if (any) write_now(flags + flag_, 1);
      if (crew_.block == 0) write_now(flags + following, 0);
      meet();
      any = read_now(flags + flag_) != 0;
    }
    flag_ = following;
    return sync_block_any(any);
  }
  PF_HD void meet() const {
    meet_blocks(crew_.words, static_cast<uint32_t>(crew_.n_blocks), crew_.block == 0);
  }

  FieldCrew crew_;
  int sites_, rows_, size_[kDims];
  int advance_[kDims];                          // kLanes sites, as a number of each dimension
  int begin_, end_, first_row_, first_column_;  // of the warp, and where its lane begins
  double *total_, *row_sums_;
  T* arrays_;
  mutable uint32_t n_sums_ = 0;
  mutable int flag_ = 0;  // of three, in turn
};

// Threads of a block: no more than have the registers that they need.
template <class T>
constexpr int kMostFieldThreads = sizeof(T) == 4 ? 1024 : 512;
template <class T>
constexpr int kSpreadThreads = sizeof(T) == 4 ? 512 : 384;

template <class T, int kDims, class Body>
PF_LARGE_KERNEL(kMostFieldThreads<T>)
shared_field_kernel(LatticeShape shape, Body body) {
  char* memory = static_cast<char*>(shared_memory());
  body(block_in_grid(),
       FieldLattice<T, kDims, true>(shape, FieldCrew{nullptr, 1, 0}, memory,
                                    memory + field_block_bytes(static_cast<int>(block_size()))));
}

// The workspace: words of the crew of each lattice, then the memory of each.
constexpr int64_t kCrewBytes = 4 * sizeof(uint32_t);
template <class T, int kDims, class Body>
PF_LARGE_KERNEL(kSpreadThreads<T>)
spread_field_kernel(LatticeShape shape, char* workspace, int64_t n_lattices, int64_t bytes,
                    int n_blocks, Body body) {
  const int64_t lattice = block_in_grid() / n_blocks;
  auto* words = reinterpret_cast<uint32_t*>(workspace + lattice * kCrewBytes);
  const FieldCrew crew{words, n_blocks, static_cast<int>(block_in_grid() % n_blocks)};
  body(lattice,
       FieldLattice<T, kDims, false>(shape, crew, shared_memory(),
                                     workspace + n_lattices * kCrewBytes + lattice * bytes));
}

// Several blocks a lattice: all that run at once, but none with less than a block of noise a
// thread. One block a lattice where there are so many lattices, or no launch for more.
template <class T, int kDims, class Body>
static void spread_fields(int64_t n_lattices, const LatticeShape& shape, int n_arrays,
                          char* workspace, const Place& place, const Body& body) {
  constexpr int kThreads = kSpreadThreads<T>;
  const auto kernel = spread_field_kernel<T, kDims, Body>;
  const int64_t bytes = FieldLattice<T, kDims, false>::bytes(shape, n_arrays);
  const int64_t shared = field_block_bytes(kThreads);
  const int64_t at_once =
      blocks_at_once(place, reinterpret_cast<const void*>(kernel), kThreads, shared);
  const int64_t most = at_once / n_lattices,
                useful = shape.n_sites / (kThreads * Draw<T>::kPerBlock);
  const int64_t blocks = most < useful ? most : useful;
  if (blocks <= 1) {
    launch(place, n_lattices, kThreads, shared, kernel, shape, workspace, n_lattices, bytes, 1,
           body);
  } else {
    clear(place, workspace, n_lattices * kCrewBytes);
    launch_together(place, n_lattices * blocks, kThreads, shared, kernel, shape, workspace,
                    n_lattices, bytes, static_cast<int>(blocks), body);
  }
}

// Lattices that fit are spread all the same where they are large and would leave most of the GPU
// idle: from so many sites on, below which blocks would wait for each other longer than they work.
constexpr int64_t kLargeField = int64_t{1} << 14;

// A block for a lattice in shared memory: its threads and bytes.
template <class T, int kDims>
struct FieldBlock {
  int threads;
  int64_t bytes;
  FieldBlock(const LatticeShape& shape, int n_arrays) {
    constexpr int kMost = kMostFieldThreads<T>;
    const int64_t wanted = (shape.n_sites + Draw<T>::kPerBlock - 1) / Draw<T>::kPerBlock;
    threads = wanted < kMost ? static_cast<int>((wanted + kReductionWidth - 1) / kReductionWidth) *
                                   kReductionWidth
                             : kMost;
    bytes = field_block_bytes(threads) + FieldLattice<T, kDims, true>::bytes(shape, n_arrays);
  }
};

// Bytes that a call works in, or 0 where each lattice is a block's in shared memory.
template <class T, int kDims>
static int64_t field_workspace(int64_t n_lattices, const LatticeShape& shape, int n_arrays,
                               const Place& place) {
  const bool few = shape.n_sites >= kLargeField && 4 * n_lattices <= n_multiprocessors(place);
  const int64_t in_shared = FieldBlock<T, kDims>(shape, n_arrays).bytes;
  if (in_shared <= shared_memory_limit(place) && !few) return 0;
  return n_lattices * (kCrewBytes + FieldLattice<T, kDims, false>::bytes(shape, n_arrays));
}

template <class T, int kDims, class Body>
static void for_each_field(int64_t n_lattices, const LatticeShape& shape, int n_arrays, double,
                           int64_t, void* workspace, const Place& place, const Body& body) {
  if (workspace != nullptr) {
    spread_fields<T, kDims>(n_lattices, shape, n_arrays, static_cast<char*>(workspace), place,
                            body);
  } else {
    const FieldBlock<T, kDims> block(shape, n_arrays);
    launch(place, n_lattices, block.threads, block.bytes, shared_field_kernel<T, kDims, Body>,
           shape, body);
  }
}

}  // namespace pf::PF_BACKEND
