// SPDX-License-Identifier: Apache-2.0
// The bonds of a lattice of spins, a bit each, drawn where a step asks for them.
#pragma once

#include "backend/cpu_entries.hpp"

namespace pf::PF_BACKEND {
namespace {  // no weak symbol of a member that is not inlined

constexpr int64_t kSegment = 256;  // sites whose bonds are drawn together

class Bonds {
 public:
  static int64_t bytes(int64_t sites, int n_dims) {
    return segments(sites) * 8 * (1 + words_in_segment(n_dims));
  }

  // `memory` has the bytes above.
  Bonds(const ClusterLaw& law, int64_t sites, int n_dims, void* memory)
      : noise_(law.bonds),
        sites_(sites),
        n_dims_(n_dims),
        threshold_(law.bond),
        drawn_at_(static_cast<uint64_t*>(memory)),
        bits_(drawn_at_ + segments(sites)) {
    for (int64_t i = 0; i < segments(sites); ++i) drawn_at_[i] = 0;
  }
  // Every step draws the segments that it touches, or all of them at once. `serial` is not 0, and
  // another one for every step.
  void begin(uint64_t step, uint64_t serial) {
    first_ = step * static_cast<uint64_t>(sites_ * n_dims_);
    serial_ = serial;
  }
  void draw_all(const Place& place) {
    const double nanoseconds = static_cast<double>(sites_ * n_dims_);
    for_each_block(segments(sites_), 16, place, nanoseconds, 0,
                   [&](int64_t begin, int64_t end, void*) {
                     for (int64_t i = begin; i < end; ++i) draw(*this, i);
                   });
  }
  // May be asked by many threads at once.
  PF_HD bool hold(int64_t site, int j) const {
    const uint64_t at = static_cast<uint64_t>(site), segment = at / kSegment;
    const uint64_t entry = at * static_cast<uint64_t>(n_dims_) + static_cast<uint64_t>(j);
    if (__atomic_load_n(drawn_at_ + segment, __ATOMIC_ACQUIRE) != serial_)
      draw(*this, static_cast<int64_t>(segment));
    return __atomic_load_n(bits_ + entry / 64, __ATOMIC_RELAXED) >> (entry % 64) & 1;
  }

 private:
  static constexpr int kMostDims = 4;
  static int64_t segments(int64_t sites) { return (sites + kSegment - 1) / kSegment; }
  static constexpr int64_t words_in_segment(int n_dims) { return kSegment / 64 * n_dims; }

  // Threads that draw one segment at once write the same words to it. By value: a copy whose
  // address nobody has stays in registers.
  static PF_NOINLINE void draw(const Bonds b, int64_t segment) { b.draw(segment); }
  PF_HD void draw(int64_t segment) const {
    alignas(64) float values[kMostDims * kSegment + 4 * kLanes + 4];
    const int64_t left = sites_ - segment * kSegment;
    const int64_t n_words = ((left < kSegment ? left : kSegment) * n_dims_ + 63) / 64;
    const uint64_t first = first_ + static_cast<uint64_t>(segment * kSegment * n_dims_);
    const int64_t phase = static_cast<int64_t>(first % 4);
    fill_entries<Words>(noise_, first - first % 4, (phase + n_words * 64 + 3) / 4, values);
    const Pack<uint32_t> threshold(static_cast<uint32_t>(threshold_));
    uint64_t* out = bits_ + segment * words_in_segment(n_dims_);
    for (int64_t w = 0; w < n_words; ++w) {
      uint64_t bits = threshold_ > UINT32_MAX ? ~uint64_t{0} : 0;
      for (int i = 0; i < 64; i += kLanes) {
        const auto words = Pack<float>::load(values + phase + w * 64 + i);
        bits |= uint64_t{below_bits(bit_cast<Pack<uint32_t>>(words), threshold)} << i;
      }
      __atomic_store_n(out + w, bits, __ATOMIC_RELAXED);
    }
    __atomic_store_n(drawn_at_ + segment, serial_, __ATOMIC_RELEASE);
  }
  NoiseSource noise_;
  int64_t sites_;
  int n_dims_;
  uint64_t threshold_, first_ = 0, serial_ = 0;
  uint64_t *drawn_at_, *bits_;
};

}  // namespace
}  // namespace pf::PF_BACKEND
