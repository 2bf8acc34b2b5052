// SPDX-License-Identifier: Apache-2.0
// The streaming sums of one tile of chains.
#pragma once

#include "backend/backend.hpp"
#include "ops/sum_groups.hpp"

namespace pf::PF_BACKEND {

// What a step leaves out of the statistics where every state counts.
struct Nobody {};

// What both ways of adding states share.
template <class T, class D>
class TileGroup {
 protected:
  using Tile = ChainTile<T, D>;
  using Real = typename Tile::Real;
  using Mask = typename Traits<Real>::Mask;
  using Wide = typename Traits<Real>::Wide;
  template <class U>
  using Array = typename Tile::template Array<U>;

  PF_HD TileGroup(const Moments& moments, int64_t steps_done, const Tile& tile, D dim,
                  int64_t bytes_before)
      : moments_(moments),
        clock_(moments, steps_done),
        was_inside_(clock_.inside()),
        count_(T(0)),
        tile_(tile),
        dim_(dim),
        shift_(tile.template array<Real>(bytes_before)),
        first_(tile.template array<Real>(bytes_before + dim * sizeof(Real))),
        sum_(tile.template array<Real>(bytes_before + 2 * dim * sizeof(Real))),
        squares_(tile.template array<Real>(bytes_before + 3 * dim * sizeof(Real))) {
    if (!wanted()) return;
    const OpenGroup& g = moments.group;
    tile.load_rows(static_cast<const T*>(moments.shift), dim, shift_);
    if (!was_inside_) return;
    tile.load_rows(static_cast<const T*>(g.first), dim, first_);
    tile.load_rows(static_cast<const T*>(g.sum), dim, sum_);
    tile.load_rows(static_cast<const T*>(g.squares), dim, squares_);
    count_ = tile.load_values(static_cast<const T*>(g.count));
  }
  static constexpr int64_t kRows = 4;

  PF_HD void count(Nobody) { count_ = count_ + Real(T(1)); }
  PF_HD void count(Mask left_out) { count_ = count_ + select(left_out, Real(T(0)), Real(T(1))); }
  // The state, or where it is left out the first one, which adds nothing.
  PF_HD static Real counted(Real, Real x, Nobody) { return x; }
  PF_HD static Real counted(Real first, Real x, Mask left_out) {
    return select(left_out, first, x);
  }
  PF_HD GroupSums<Real> sums(int64_t i) const { return {first_[i], sum_[i], squares_[i]}; }
  PF_HD void set_sums(int64_t i, const GroupSums<Real>& g) const {
    sum_[i] = g.sum;
    squares_[i] = g.squares;
  }
  PF_HD void put_group_back() const {
    const OpenGroup& g = moments_.group;
    if (clock_.inside()) {
      tile_.store_rows(static_cast<T*>(g.first), dim_, first_);
      tile_.store_rows(static_cast<T*>(g.sum), dim_, sum_);
      tile_.store_rows(static_cast<T*>(g.squares), dim_, squares_);
    }
    if (clock_.inside() || was_inside_) tile_.store(static_cast<T*>(g.count), count_);
  }

 public:
  PF_HD bool wanted() const { return moments_.sum != nullptr; }

 protected:
  Moments moments_;
  SumClock clock_;
  bool was_inside_;  // a group, when the call began
  Real count_;       // states in the open group
  const Tile& tile_;
  D dim_;
  Array<Real> shift_, first_, sum_, squares_;  // the last three of the open group
};

// Where scratch is scarce it has the open group; what is touched when a group ends is in memory.
template <class T, class D>
class MomentsInMemory : public TileGroup<T, D> {
  using Group = TileGroup<T, D>;
  using typename Group::Real;
  using typename Group::Tile;
  using typename Group::Wide;

 public:
  static PF_HD int64_t bytes(D dim) { return Group::kRows * dim * int64_t{sizeof(Real)}; }
  PF_HD MomentsInMemory(const Moments& moments, int64_t steps_done, int64_t, const Tile& tile,
                        D dim)
      : Group(moments, steps_done, tile, dim, 0) {}
  template <class Chain>
  PF_HD void make_room(Chain&) const {}
  // Takes in the state after a step.
  template <class Chain, class LeftOut>
  PF_HD void add(Chain& rows, LeftOut left_out) {
    const Real* x = rows[0];
    const bool begins = !this->clock_.inside();
    this->dim_.each([&](int64_t i) PF_INLINE_LAMBDA {
      if (begins) {
        this->first_[i] = x[i];
        this->set_sums(i, {x[i], Real(T(0)), Real(T(0))});
      } else {
        auto g = this->sums(i);
        g.add(Group::counted(g.first, x[i], left_out));
        this->set_sums(i, g);
      }
    });
    this->count(left_out);
    const auto due = this->clock_.step();
    if (due.group || due.batch) add_group(due);
    if (due.group) this->count_ = Real(T(0));
  }
  PF_HD void put_back() const { this->put_group_back(); }

 private:
  PF_HD void add_group(SumsDue due) const {
    const Moments& m = this->moments_;
    const Tile& tile = this->tile_;
    const Wide count = to_wide(this->count_);
    this->dim_.each([&](int64_t i) PF_INLINE_LAMBDA {
      const GroupTerms<Wide> terms(this->sums(i), count, Real(this->shift_[i]));
      const Wide sum = tile.load_column(m.sum, this->dim_, i) + terms.sum;
      if (due.group) {
        const Wide squares = tile.load_column(m.sum_of_squares, this->dim_, i) + terms.squares;
        tile.template store_column<double>(m.sum, this->dim_, i, sum);
        tile.template store_column<double>(m.sum_of_squares, this->dim_, i, squares);
      }
      if (!due.batch) return;
      const Wide grown = sum - tile.load_column(m.sum_at_batch, this->dim_, i);
      const Wide batches = tile.load_column(m.batch_squares, this->dim_, i) + grown * grown;
      tile.template store_column<double>(m.batch_squares, this->dim_, i, batches);
      tile.template store_column<double>(m.sum_at_batch, this->dim_, i, sum);
    });
  }
};

// Where it is not, it has all sums from the start of a call to its end, and the states of some
// steps wait there and are added together: reading and writing the sums costs more than adding.
template <class T, class D>
class MomentsInScratch : public TileGroup<T, D> {
  using Group = TileGroup<T, D>;
  using typename Group::Mask;
  using typename Group::Real;
  using typename Group::Tile;
  using typename Group::Wide;

 public:
  static PF_HD int64_t bytes(D dim) {
    return dim *
           (4 * int64_t{sizeof(Wide)} + (Group::kRows + most_waiting(dim)) * int64_t{sizeof(Real)});
  }
  PF_HD MomentsInScratch(const Moments& moments, int64_t steps_done, int64_t n_steps,
                         const Tile& tile, D dim)
      : Group(moments, steps_done, tile, dim, 4 * dim * sizeof(Wide)),
        closes_(this->clock_.closes_within(n_steps)),
        is_open_(this->was_inside_),
        all_(tile.template array<Wide>(0)),
        all_squares_(all_ + dim),
        at_batch_(all_ + 2 * dim),
        batch_squares_(all_ + 3 * dim),
        waiting_(
            tile.template array<Real>(dim * (4 * sizeof(Wide) + Group::kRows * sizeof(Real)))) {
    if (!this->wanted()) return;
    tile.load_rows(moments.sum, dim, all_);
    tile.load_rows(moments.sum_of_squares, dim, all_squares_);
    if (!closes_) return;
    tile.load_rows(moments.sum_at_batch, dim, at_batch_);
    tile.load_rows(moments.batch_squares, dim, batch_squares_);
  }
  // Has the next state left where it waits.
  template <class Chain>
  PF_HD void make_room(Chain& rows) const {
    if constexpr (!D::kKnown) rows.lead_to(room());
  }
  template <class Chain>
  PF_HD void add(Chain& rows, Nobody nobody) {
    Real* const place = room();
    if (D::kKnown || rows[0] != place) {
      this->dim_.each([&](int64_t i) PF_INLINE_LAMBDA { place[i] = rows[0][i]; });
    }
    take_in(nobody);
  }
  template <class Chain>
  PF_HD void add(Chain& rows, Mask left_out) {
    if (!any(left_out)) return add(rows, Nobody{});
    rows.go_home();
    Real* const place = room();
    const Real *x = rows[0], *first = is_open_ ? this->first_ : n_waits_ > 0 ? waiting_ : x;
    this->dim_.each([&](int64_t i)
                        PF_INLINE_LAMBDA { place[i] = Group::counted(first[i], x[i], left_out); });
    take_in(left_out);
  }
  PF_HD void put_back() {
    if (n_waits_ > 0) add_waiting(false);
    this->put_group_back();
    const Moments& m = this->moments_;
    this->tile_.store_rows(m.sum, this->dim_, all_);
    this->tile_.store_rows(m.sum_of_squares, this->dim_, all_squares_);
    if (!closes_) return;
    this->tile_.store_rows(m.sum_at_batch, this->dim_, at_batch_);
    this->tile_.store_rows(m.batch_squares, this->dim_, batch_squares_);
  }

 private:
  // States that wait at most: of many coordinates fewer, so that they stay in a near cache.
  static PF_HD int64_t most_waiting(D dim) { return dim > 256 ? 4 : dim > 128 ? 8 : kStepGroup; }

  PF_HD Real* room() const { return waiting_ + n_waits_ * this->dim_; }
  // Takes in the state that is where the next one waits.
  template <class LeftOut>
  PF_HD void take_in(LeftOut left_out) {
    this->count(left_out);
    const auto due = this->clock_.step();
    if (++n_waits_ == most_waiting(this->dim_) || due.group || due.batch) add_waiting(due.group);
    if (due.batch) close_batch();
  }
  // Adds the states that wait to the open group, and that, where it ends, to the other sums.
  PF_HD void add_waiting(bool ends) {
    const int64_t n = n_waits_ < kStepGroup ? n_waits_ : kStepGroup;  // which GCC must see
    const Wide count = to_wide(this->count_);
    const auto with_waiting = [&](int64_t i, GroupSums<Real> g) PF_INLINE_LAMBDA {
      for (int64_t k = 0; k < n; ++k) g.add(waiting_[k * this->dim_ + i]);
      return g;
    };
    const auto add_to_all = [&](int64_t i, const GroupSums<Real>& g) PF_INLINE_LAMBDA {
      const GroupTerms<Wide> terms(g, count, Real(this->shift_[i]));
      all_[i] = all_[i] + terms.sum;
      all_squares_[i] = all_squares_[i] + terms.squares;
    };
    const Real zero(T(0));
    if (ends && !is_open_) {  // a whole group, whose sums nobody needs
      this->dim_.each([&](int64_t i) PF_INLINE_LAMBDA {
        add_to_all(i, with_waiting(i, {waiting_[i], zero, zero}));
      });
    } else {
      const bool is_open = is_open_;
      this->dim_.each([&](int64_t i) PF_INLINE_LAMBDA {
        if (!is_open) {
          this->first_[i] = waiting_[i];
          this->set_sums(i, {waiting_[i], zero, zero});
        }
        const GroupSums<Real> g = with_waiting(i, this->sums(i));
        this->set_sums(i, g);
        if (ends) add_to_all(i, g);
      });
    }
    n_waits_ = 0;
    is_open_ = !ends;
    if (ends) this->count_ = zero;
  }
  PF_HD void close_batch() const {
    const Wide count = to_wide(this->count_);
    const bool is_open = is_open_;
    this->dim_.each([&](int64_t i) PF_INLINE_LAMBDA {
      Wide sum = all_[i];
      if (is_open) sum = sum + GroupTerms<Wide>(this->sums(i), count, Real(this->shift_[i])).sum;
      const Wide grown = sum - at_batch_[i];
      batch_squares_[i] = batch_squares_[i] + grown * grown;
      at_batch_[i] = sum;
    });
  }

  bool closes_;   // a batch in this call
  bool is_open_;  // a group has sums in scratch
  int64_t n_waits_ = 0;
  Wide *all_, *all_squares_, *at_batch_, *batch_squares_;
  Real* waiting_;
};

template <class T, class D>
using TileMoments = typename Select<ChainTile<T, D>::kScratchIsScarce, MomentsInMemory<T, D>,
                                    MomentsInScratch<T, D>>::type;

}  // namespace pf::PF_BACKEND
