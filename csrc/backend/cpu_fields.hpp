// SPDX-License-Identifier: Apache-2.0
// The walk of a CPU over a real field on a periodic lattice: kLanes neighbouring sites of a row at
// once. Rows run along the last dimension; the others are flattened.
#pragma once

#include "backend/cpu_entries.hpp"
#include "backend/cpu_row_sums.hpp"

namespace pf::PF_BACKEND {

// States of a lattice that wait at most, to be added to streaming sums together: a half of a group.
constexpr int kFieldsWaiting = kStepGroup / 2;

// One array of a lattice. Rows lie apart, so that a site before the first and one behind the last
// can close them.
template <class T>
struct Field {
  T* first;
};

// A lattice at work: arrays in `memory`, and passes over all sites.
template <class T, int kDims>
class FieldLattice {
 public:
  using Real = Pack<T>;
  using Mask = MaskOf<T>;
  template <class Law>
  using Source = Entries<Law, T>;                    // what a pass reads at every site
  static constexpr int64_t kFront = 64 / sizeof(T);  // elements before a row

  // kLanes sites of a row from its site `column` on; those past its end are 0.
  class Sites {
   public:
    PF_HD Real value(Field<T> f) const { return Real::load(f.first + at_); }
    // Along the row first, then dimension after dimension towards the first.
    PF_HD Real neighbours(Field<T> f) const {
      const T* p = f.first + at_;
      Real sum = Real::load(p - 1) + Real::load(p + 1);
      PF_UNROLL
      for (int j = 0; j < kDims - 1; ++j) {
        sum = sum + (Real::load(p + beside_[2 * j]) + Real::load(p + beside_[2 * j + 1]));
      }
      return sum;
    }
    PF_HD void put(Field<T> f, Real x) const {
      if (partial_) x = select(inside_, x, Real(T(0)));
      x.store(f.first + at_);
    }
    PF_HD Real noise() const { return Real::load(noise_); }
    PF_HD Real only_inside(Real x) const { return partial_ ? select(inside_, x, Real(T(0))) : x; }
    // Where the coordinates add up to an even (0) or odd number.
    PF_HD Mask of_colour(int colour) const { return (parity_ + colour) % 2 == 0 ? even_ : !even_; }

   private:
    friend class FieldLattice;
    int64_t at_;
    const int64_t* beside_;
    const T* noise_;
    Mask inside_, even_;
    bool partial_;
    int parity_;
  };

  // Sites without their neighbours: items of tensors, whose rows do not lie apart as in arrays.
  template <class Items>
  struct InTensor : Items {
    SeveralItems in_array;
    PF_HD auto value(Field<T> f) const { return in_array.load(f.first); }
    // Asks for what a tensor has two packs further on.
    template <class U>
    PF_HD void fetch_ahead(const U* x) const {
      PF_UNROLL
      for (int k = 0; k < kLanes; k += 64 / static_cast<int>(sizeof(U))) {
        __builtin_prefetch(x + this->i + 2 * kLanes + k);
      }
    }
  };

  // n_arrays of memory, and a sum a row where a pass sums.
  static int64_t bytes(const LatticeShape& s, int n_arrays, const Place& place) {
    const FieldLattice f(s, nullptr, place);
    const int64_t n = n_arrays + (f.is_cut() ? 1 : 0);
    return (n * f.stride_ * f.rows_ + (n + 1) * kFront) * int64_t{sizeof(T)} +
           f.n_stretches_ * int64_t{sizeof(double)};
  }
  FieldLattice(const LatticeShape& s, void* memory, const Place& place)
      : length_(s.size[kDims - 1]),
        rows_(1),
        stride_((length_ + kLanes - 1) / kLanes * kLanes + kFront),
        place_(place) {
    for (int j = 0; j < kDims - 1; ++j) {
      size_[j] = s.size[j];
      rows_ *= s.size[j];
    }
    stretch_ = length_;
    n_stretches_ = rows_;
    if (kDims == 1 && place.n_threads > 1) {
      const int64_t wanted = length_ / (8 * int64_t{place.n_threads});
      stretch_ = (wanted / kStretch + 1) * kStretch;
      n_stretches_ = (length_ + stretch_ - 1) / stretch_;
    }
    row_sums_ = static_cast<double*>(memory);
    const int64_t doubles = (n_stretches_ * int64_t{sizeof(double)} + 63) / 64 * 64;
    arrays_ = reinterpret_cast<T*>(static_cast<char*>(memory) + doubles);
    if (is_cut()) {
      terms_ = arrays_;
      arrays_ += stride_;
    }
  }
  int64_t sites() const { return rows_ * length_; }
  // Array number i; each has a front of its own.
  Field<T> array(int i) const { return {arrays_ + i * (stride_ * rows_ + kFront) + kFront}; }

  void load(Field<T> f, const T* x) const {
    memset(f.first - kFront, 0, static_cast<size_t>(stride_ * rows_ + kFront) * sizeof(T));
    for (int64_t r = 0; r < rows_; ++r) {
      T* row = f.first + r * stride_;
      memcpy(row, x + r * length_, static_cast<size_t>(length_) * sizeof(T));
      close_row(row);
    }
  }
  void store(Field<T> f, T* x) const {
    for (int64_t r = 0; r < rows_; ++r) {
      memcpy(x + r * length_, f.first + r * stride_, static_cast<size_t>(length_) * sizeof(T));
    }
  }

  // visit(at) for all sites: `at` is kLanes neighbours, or what a row has left.
  template <class Visit>
  void for_each_site(const Visit& visit) const {
    NoEntries<T> silence;
    over_rows(0, silence, 0.5, [&](int64_t begin, int64_t end, NoEntries<T>&) {
      for (int64_t r = begin; r < end; ++r) {
        int64_t i = 0;
        const int64_t row = r * length_, in_array = r * stride_;
        for (; i + kLanes <= length_; i += kLanes) {
          visit(InTensor<SeveralItems>{{row + i}, {in_array + i}});
        }
        if (i < length_) visit(InTensor<FewerItems>{{row + i, length_ - i}, {in_array + i}});
      }
    });
  }

  // Whether this worker writes what belongs to the lattice as a whole.
  bool speaks() const { return true; }

  // visit(sites) for all; `written` is closed afterwards. `source` is read at every site, from
  // entry `first` on; `nanoseconds` is the cost of a site.
  template <class Source, class Visit>
  void pass(uint64_t first, Source& source, double nanoseconds, Field<T> written,
            const Visit& visit) const {
    over_stretches(first, source, nanoseconds, [&](int64_t begin, int64_t end, Source& entries) {
      Walk walk(*this, begin);
      for (int64_t i = begin; i < end; ++i, walk.next()) {
        walk.stretch(i, first, entries,
                     [&](const Sites& s, int64_t) PF_INLINE_LAMBDA { visit(s); });
        if (kDims > 1) close_row(written, i);
      }
    });
    if (kDims == 1) close_row(written, 0);
  }
  // The same where visit returns a term; their sum: in a row 32 strided chains and a binary tree,
  // then the rows in order in float64.
  template <class Source, class Visit>
  double sum(uint64_t first, Source& source, double nanoseconds, Field<T> written,
             const Visit& visit) const {
    if constexpr (kDims == 1) return sum_of_row(first, source, nanoseconds, written, visit);
    over_rows(first, source, nanoseconds, [&](int64_t begin, int64_t end, Source& entries) {
      Walk walk(*this, begin);
      for (int64_t r = begin; r < end; ++r, walk.next()) {
        RowSum<T> sum;
        walk.stretch(r, first, entries, [&](const Sites& s, int64_t column) PF_INLINE_LAMBDA {
          sum.add(column, s.only_inside(visit(s)));
        });
        row_sums_[r] = sum.total();
        close_row(written, r);
      }
    });
    double total = 0;
    for (int64_t r = 0; r < rows_; ++r) total += row_sums_[r];
    return total;
  }
  // Whether visit, which returns what must be, returned finite numbers only.
  template <class Source, class Visit>
  bool finite(uint64_t first, Source& source, double nanoseconds, Field<T> written,
              const Visit& visit) const {
    over_stretches(first, source, nanoseconds, [&](int64_t begin, int64_t end, Source& entries) {
      Walk walk(*this, begin);
      Real turned = Real(T(0));
      for (int64_t i = begin; i < end; ++i, walk.next()) {
        walk.stretch(i, first, entries, [&](const Sites& s, int64_t) PF_INLINE_LAMBDA {
          turned = fma(s.only_inside(visit(s)), Real(T(0)), turned);
        });
        row_sums_[i] = 0;
        if (kDims > 1) close_row(written, i);
      }
      if (any(turned != turned)) row_sums_[begin] = 1;
    });
    if (kDims == 1) close_row(written, 0);
    for (int64_t i = 0; i < n_stretches_; ++i) {
      if (row_sums_[i] != 0) return false;
    }
    return true;
  }

 private:
  // The single row of one dimension, cut for several threads.
  PF_HD bool is_cut() const { return n_stretches_ > rows_; }
  // The terms of a row that is cut wait for the turn of their stretch.
  template <class Source, class Visit>
  double sum_of_row(uint64_t first, Source& source, double nanoseconds, Field<T> written,
                    const Visit& visit) const {
    RowSum<T> of_row;
    InOrder stretches(reinterpret_cast<uint64_t*>(row_sums_), n_stretches_);
    over_stretches(first, source, nanoseconds, [&](int64_t i, int64_t, Source& entries) {
      T* const terms = terms_;
      RowSum<T> sum;
      Walk(*this, 0).stretch(i, first, entries,
                             [&](const Sites& s, int64_t column) PF_INLINE_LAMBDA {
                               const Real term = s.only_inside(visit(s));
                               if (terms != nullptr) {
                                 term.store(terms + column);
                               } else {
                                 sum.add(column, term);
                               }
                             });
      if (terms == nullptr) {
        of_row = sum;
      } else {
        stretches.add(i, [&](int64_t part) PF_INLINE_LAMBDA {
          sum = of_row;
          const int64_t end = end_of(part);
          for (int64_t column = part * stretch_; column < end; column += kLanes) {
            sum.add(column, Real::load(terms + column));
          }
          of_row = sum;
        });
      }
    });
    close_row(written, 0);
    return of_row.total();
  }

  PF_HD void close_row(T* row) const {
    row[-1] = row[length_ - 1];
    row[length_] = row[0];
  }
  PF_HD void close_row(Field<T> written, int64_t r) const {
    if (written.first != nullptr) close_row(written.first + r * stride_);
  }
  template <class Source, class Body>
  void over_rows(uint64_t first, Source& source, double nanoseconds, const Body& body) const {
    if (place_.n_threads <= 1) return body(0, rows_, source);
    const int64_t block = rows_ / (8 * place_.n_threads) + 1;
    for_each_block(rows_, block, place_, nanoseconds * static_cast<double>(sites()), 0,
                   [&](int64_t begin, int64_t end, void*) {
                     Source own = source.until(first + static_cast<uint64_t>(end * length_));
                     body(begin, end, own);
                   });
  }

  // The same for rows, or for stretches of a single one: of whole packs and refills of noise.
  template <class Source, class Body>
  void over_stretches(uint64_t first, Source& source, double nanoseconds, const Body& body) const {
    if (kDims > 1 || !is_cut()) return over_rows(first, source, nanoseconds, body);
    for_each_block(n_stretches_, 1, place_, nanoseconds * static_cast<double>(length_), 0,
                   [&](int64_t i, int64_t, void*) {
                     Source own = source.until(first + static_cast<uint64_t>(end_of(i)));
                     body(i, i + 1, own);
                   });
  }
  // Where a stretch ends in its row.
  PF_HD int64_t end_of(int64_t stretch) const {
    const int64_t end = (stretch + 1) * stretch_;
    return kDims > 1 || end > length_ ? length_ : end;
  }

  // From row to row, with the places of the rows beside.
  class Walk {
   public:
    PF_HD Walk(const FieldLattice& f, int64_t row) : f_(f) {
      T lane[kLanes], odd[kLanes];
      for (int l = 0; l < kLanes; ++l) {
        lane[l] = static_cast<T>(l);
        odd[l] = static_cast<T>(l % 2);
      }
      const int64_t rest = f.length_ % kLanes;
      sites_.inside_ = Real::load(lane) < Real(static_cast<T>(rest));
      sites_.even_ = Real::load(odd) == Real(T(0));
      sites_.beside_ = beside_;
      for (int j = kDims - 2; j >= 0; --j) {
        at_[j] = row % f.size_[j];
        row /= f.size_[j];
      }
      look_around();
    }
    PF_HD void next() {
      for (int j = kDims - 2; j >= 0; --j) {
        if (++at_[j] < f_.size_[j]) break;
        at_[j] = 0;
      }
      look_around();
    }
    template <class Source, class Visit>
    PF_HD void stretch(int64_t number, uint64_t first, Source& entries, const Visit& visit) {
      const int64_t r = kDims > 1 ? number : 0, row = r * f_.stride_;
      const int64_t end = f_.end_of(number);
      for (int64_t begin = kDims > 1 ? 0 : number * f_.stretch_; begin < end;
           begin += Source::kMost) {
        const int64_t left = end - begin, n = left < Source::kMost ? left : Source::kMost;
        sites_.noise_ = entries.at(first + static_cast<uint64_t>(r * f_.length_ + begin), n);
        sites_.partial_ = false;
        int64_t i = begin;
        for (; i + kLanes <= begin + n; i += kLanes) {
          sites_.at_ = row + i;
          visit(sites_, i);
          if (sites_.noise_ != nullptr) sites_.noise_ += kLanes;
        }
        if (i < begin + n) {
          sites_.at_ = row + i;
          sites_.partial_ = true;
          visit(sites_, i);
        }
      }
    }

   private:
    PF_HD void look_around() {
      int64_t step = f_.stride_, parity = 0;
      PF_UNROLL
      for (int k = 0; k < kDims - 1; ++k) {
        const int j = kDims - 2 - k;
        const int64_t n = f_.size_[j];
        beside_[2 * k] = at_[j] > 0 ? -step : step * (n - 1);
        beside_[2 * k + 1] = at_[j] + 1 < n ? step : -step * (n - 1);
        step *= n;
        parity += at_[j];
      }
      sites_.parity_ = static_cast<int>(parity % 2);
    }
    const FieldLattice& f_;
    Sites sites_;
    int64_t at_[3], beside_[6];
  };

  static constexpr int64_t kStretch = 2048;
  int64_t length_, rows_, stride_;
  int64_t stretch_, n_stretches_;  // sites of one; one is a row, or a part of a single row
  int64_t size_[3] = {1, 1, 1};
  Place place_;
  double* row_sums_;  // what is known of a stretch
  T* terms_ = nullptr;
  T* arrays_;
};

template <class T, int kDims>
static int64_t field_workspace(int64_t, const LatticeShape&, int, const Place&) {
  return 0;
}

// body(lattice index, FieldLattice) for every lattice, one a chain, each with n_arrays arrays.
// Threads take lattices, or, where there are few and each is large, rows of one after another, or
// stretches of the one row that a field of one dimension is.
template <class T, int kDims, class Body>
static void for_each_field(int64_t n_lattices, const LatticeShape& shape, int n_arrays,
                           double nanoseconds_a_pass, int64_t n_passes, void*, const Place& place,
                           const Body& body) {
  const Place alone{1, place.device, place.stream};
  const bool share_a_lattice = nanoseconds_a_pass > 60e3 && n_lattices % place.n_threads != 0 &&
                               n_lattices < 4 * static_cast<int64_t>(place.n_threads);
  const Place within = share_a_lattice ? place : alone;
  const int64_t bytes =
      FieldLattice<T, kDims>::bytes(shape, n_arrays, within) + 64 * (n_arrays + 2);
  const double all =
      nanoseconds_a_pass * static_cast<double>(n_passes) * static_cast<double>(n_lattices);
  for_each_block(n_lattices, share_a_lattice ? n_lattices : 1, share_a_lattice ? alone : place, all,
                 bytes, [&](int64_t begin, int64_t end, void* memory) {
                   const FieldLattice<T, kDims> lattice(shape, memory, within);
                   for (int64_t i = begin; i < end; ++i) body(i, lattice);
                 });
}

}  // namespace pf::PF_BACKEND
