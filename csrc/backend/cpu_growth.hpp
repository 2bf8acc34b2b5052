// SPDX-License-Identifier: Apache-2.0
// The growth of one cluster of equal spins on a CPU, by one thread while it is small, then by all
// that have nothing else to do. Which sites belong to it does not depend on who reaches them.
#pragma once

#include "backend/cpu_bonds.hpp"
#include "backend/handover.hpp"

namespace pf::PF_BACKEND {
namespace {  // no weak symbol of a member that is not inlined

class Growth {
 public:
  static int64_t bytes(int64_t sites) { return most_chunks(sites) * (kChunk + 2) * 4; }

  // `spins` are +-1; `memory` has the bytes above, 8 a site at least. The threads of `place` share
  // a large cluster, or those that wait at `others`, if it is not null.
  Growth(const LatticeShape& shape, int8_t* spins, void* memory, const Place& place,
         Handover* others)
      : shape_(shape),
        spins_(spins),
        members_(static_cast<uint32_t*>(memory)),
        next_(members_ + most_chunks(shape.n_sites) * kChunk),
        filled_(next_ + most_chunks(shape.n_sites)),
        place_(place),
        others_(others) {}

  // Turns over the cluster of a site.
  void turn(int64_t start, Bonds& bonds) {
    bonds_ = &bonds;
    before_ = spins_[start];
    n_chunks_ = 1;
    Front front{0, 0, 0, 1};
    spins_[start] = static_cast<int8_t>(-before_);
    members_[0] = static_cast<uint32_t>(start);
    if (!grow<false>(front)) share(front);
  }
  // Of the cluster that was turned over last: its spin before, its size, and back with it.
  int8_t before() const { return before_; }
  int64_t size() const {
    int64_t n = 0;
    for (int64_t c = 0; c < n_chunks_; ++c) n += filled_[c];
    return n;
  }
  void turn_back() const {
    each_member([&](uint32_t site) { spins_[site] = before_; });
  }
  template <class Visit>
  void each_member(const Visit& visit) const {
    for_each_block(n_chunks_, 64, place_, 2.0 * static_cast<double>(n_chunks_ * kChunk), 0,
                   [&](int64_t begin, int64_t end, void*) {
                     for (int64_t c = begin; c < end; ++c) {
                       for (int64_t i = 0; i < filled_[c]; ++i) visit(members_[c * kChunk + i]);
                     }
                   });
  }

  // Works on pieces of clusters that others leave, until *left is 0.
  static void help(Handover& others, const int64_t* left) {
    Piece piece;
    while (others.take(left, &piece)) {
      Growth& growth = *static_cast<Growth*>(piece.owner);
      const int64_t chunk = piece.at;
      Front front{chunk, 0, 0, 0};
      growth.next_[chunk] = static_cast<uint32_t>(front.write = growth.new_chunk<true>());
      growth.finish(front);
    }
  }

 private:
  static constexpr int64_t kChunk = 64;        // members
  static constexpr int64_t kAloneChunks = 64;  // that a thread works on before it asks others

  // Members that were reached and whose bonds one thread follows, in the order of their chunks:
  // from number `at` of the chunk `read` to number `filled` of the chunk `write`.
  struct Front {
    int64_t read, at, write, filled;
  };
  // Each piece that is handed over is a full chunk and begins one that may stay empty.
  static int64_t most_chunks(int64_t sites) { return 2 * (sites / kChunk) + 2; }

  template <bool kShared>
  PF_HD int64_t new_chunk() {
    return kShared ? __atomic_fetch_add(&n_chunks_, 1, __ATOMIC_RELAXED) : n_chunks_++;
  }

  // Whether nothing is left. A thread alone stops where there is enough for others.
  template <bool kShared>
  PF_NOINLINE bool grow(Front& front) {
    // Copies, which stores to spins cannot change for all that a compiler knows.
    Front f = front;
    const Bonds bonds = *bonds_;
    const LatticeShape shape = shape_;
    int8_t* const spins = spins_;
    uint32_t* const members = members_;
    const int8_t before = before_;
    const auto reach = [&](int64_t site, int64_t bond, int j) PF_INLINE_LAMBDA {
      if (__atomic_load_n(spins + site, __ATOMIC_RELAXED) != before) return;
      if (!bonds.hold(bond, j)) return;
      const int8_t after = static_cast<int8_t>(-before);
      if constexpr (kShared) {
        if (__atomic_exchange_n(spins + site, after, __ATOMIC_RELAXED) != before) return;
      } else {
        spins[site] = after;
      }
      members[f.write * kChunk + f.filled++] = static_cast<uint32_t>(site);
      if (f.filled < kChunk) return;
      filled_[f.write] = kChunk;
      const int64_t chunk = new_chunk<kShared>();
      next_[f.write] = static_cast<uint32_t>(chunk);
      f.write = chunk;
      f.filled = 0;
    };
    for (;;) {
      while (f.at < (f.read == f.write ? f.filled : kChunk)) {
        const int64_t site = members[f.read * kChunk + f.at++];
        each_dimension(shape, site, [&](int j, int64_t next, int64_t last) PF_INLINE_LAMBDA {
          reach(next, site, j);
          reach(last, last, j);
        });
      }
      if (f.read == f.write) break;
      f.read = next_[f.read];
      f.at = 0;
      if constexpr (kShared) {
        while (f.read != f.write && others_->wanted()) {
          const int64_t after = next_[f.read];
          __atomic_fetch_add(&n_open_, 1, __ATOMIC_RELAXED);
          if (!others_->offer({this, f.read})) {
            __atomic_fetch_sub(&n_open_, 1, __ATOMIC_RELAXED);
            break;
          }
          f.read = after;
        }
      } else if (f.read >= kAloneChunks && f.read + 1 < f.write && may_share()) {
        front = f;
        return false;
      }
    }
    filled_[f.write] = static_cast<uint32_t>(f.filled);
    return true;
  }
  bool may_share() const { return others_ != nullptr || place_.n_threads > 1; }

  PF_NOINLINE void share(Front& front) {
    n_open_ = 1;
    if (others_ != nullptr) {
      finish(front);
      return help(*others_, &n_open_);
    }
    Handover others;
    others_ = &others;
    for_each_block(place_.n_threads, 1, place_, 1e6, 0, [&](int64_t i, int64_t, void*) {
      if (i == 0) finish(front);
      help(others, &n_open_);
    });
    others_ = nullptr;
  }
  void finish(Front& front) {
    grow<true>(front);
    others_->finish(&n_open_);
  }

  LatticeShape shape_;
  int8_t* spins_;
  uint32_t *members_, *next_, *filled_;  // in chunks; the chunk after one; how many it has
  Place place_;
  Handover* others_;
  Bonds* bonds_ = nullptr;
  int8_t before_ = 0;
  int64_t n_chunks_ = 0, n_open_ = 0;  // chunks in use, and pieces that are not finished
};

}  // namespace
}  // namespace pf::PF_BACKEND
