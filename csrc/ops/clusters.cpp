// SPDX-License-Identifier: Apache-2.0
// Cluster moves of the Ising model. Threads take lattices. On a GPU they are not written yet.
#include "kernels/clusters.hpp"

#include "core/per_chain.hpp"
#include "ops/ops.hpp"
#if defined(PF_CUDA)
#include <stdexcept>
#else
#include "backend/cpu_fields.hpp"
#endif

namespace pf::PF_BACKEND {

#if defined(PF_CUDA)
void clusters(const ClusterParams&) {
  throw std::runtime_error("Wolff and SwendsenWang run on the CPU only in this version");
}
#else
namespace {

constexpr uint32_t kProposal = 1, kAccept = 2, kSite = 10;
constexpr int64_t kSegment = 256;  // sites whose bonds are drawn together

// Bond j of site s, towards the next site along dimension j, reads entry (step V + s) d + j of
// purpose "site".
class Bonds {
 public:
  static constexpr int64_t kSlack = 4 * kLanes + 4;
  static int64_t words(int64_t sites, int n_dims) {
    return (sites + kSegment - 1) / kSegment * (kSegment * n_dims + kSlack);
  }
  static int64_t segments(int64_t sites) { return (sites + kSegment - 1) / kSegment; }

  Bonds(const NoiseSource& noise, int64_t sites, int n_dims, double temperature, float* values,
        uint64_t* drawn_at)
      : noise_(noise),
        sites_(sites),
        n_dims_(n_dims),
        threshold_(bond_threshold(temperature)),
        values_(values),
        drawn_at_(drawn_at) {
    for (int64_t i = 0; i < segments(sites); ++i) drawn_at_[i] = 0;
  }
  // Every step draws the segments that it touches.
  void begin(uint64_t step, uint64_t serial) {
    first_ = step * static_cast<uint64_t>(sites_ * n_dims_);
    serial_ = serial;
  }
  PF_HD bool hold(int64_t site, int j) {
    const int64_t segment = site / kSegment;
    if (drawn_at_[segment] != serial_) draw(segment);
    const int64_t entry = (site % kSegment) * n_dims_ + j;
    return bit_cast<uint32_t>(of(segment)[phase(segment) + entry]) < threshold_;
  }

 private:
  uint64_t first_of(int64_t segment) const {
    return first_ + static_cast<uint64_t>(segment * kSegment * n_dims_);
  }
  int64_t phase(int64_t segment) const { return static_cast<int64_t>(first_of(segment) % 4); }
  float* of(int64_t segment) const { return values_ + segment * (kSegment * n_dims_ + kSlack); }
  void draw(int64_t segment) {
    drawn_at_[segment] = serial_;
    const int64_t left = sites_ - segment * kSegment;
    const int64_t n = (left < kSegment ? left : kSegment) * n_dims_ + phase(segment);
    fill_entries<Words>(noise_, first_of(segment) / 4 * 4, (n + 3) / 4, of(segment));
  }
  NoiseSource noise_;
  int64_t sites_;
  int n_dims_;
  uint64_t threshold_, first_ = 0, serial_ = 0;
  float* values_;
  uint64_t* drawn_at_;
};

// One lattice: spins +-1, and who belongs to whom.
template <class U>
class ClusterLattice {
 public:
  static int64_t bytes(const LatticeShape& s, int64_t sites) {
    return Bonds::words(sites, s.n_dims) * 4 + Bonds::segments(sites) * 8 + sites * (4 + 4 + 1) +
           64;
  }

  ClusterLattice(const ClusterParams& p, int64_t index, int64_t sites, void* memory)
      : p_(p),
        sites_(sites),
        temperature_(value_of<double>(p.temperature, index)),
        field_(value_of<double>(p.field, index)),
        proposal_(noise(index, kProposal)),
        accept_(noise(index, kAccept)),
        bonds_(noise(index, kSite), sites, p.shape.n_dims, temperature_,
               static_cast<float*>(memory) + 2 * Bonds::segments(sites),
               static_cast<uint64_t*>(memory)),
        x_(static_cast<U*>(p.x) + index * sites) {
    first_site_ =
        reinterpret_cast<uint32_t*>(static_cast<float*>(memory) + 2 * Bonds::segments(sites) +
                                    Bonds::words(sites, p.shape.n_dims));
    size_ = first_site_ + sites;
    spin_ = reinterpret_cast<int8_t*>(size_ + sites);
  }

  void run() {
    for (int64_t s = 0; s < sites_; ++s) spin_[s] = x_[s] == static_cast<U>(p_.up) ? 1 : -1;
    for (int64_t k = 0; k < p_.n_steps; ++k) {
      const uint64_t step = p_.first_step + static_cast<uint64_t>(k);
      bonds_.begin(step, static_cast<uint64_t>(k) + 1);
      if (p_.wolff) {
        turn_one(step);
      } else {
        redraw_all(step);
      }
    }
    for (int64_t s = 0; s < sites_; ++s) {
      x_[s] = static_cast<U>(spin_[s] > 0 ? p_.up : p_.down);
    }
  }

 private:
  NoiseSource noise(int64_t index, uint32_t purpose) const {
    NoiseSource n{};
    n.seed = p_.seed;
    n.chain_offset = p_.chain_offset + static_cast<uint64_t>(index);
    n.purpose = purpose;
    return n;
  }

  // visit(s, j, next) for the site after s along each dimension j, sites in order.
  template <class Visit>
  void each_bond(const Visit& visit) const {
    int64_t at[4] = {};
    for (int64_t s = 0; s < sites_; ++s) {
      int64_t step = 1;
      for (int j = p_.shape.n_dims - 1; j >= 0; --j) {
        const int64_t n = p_.shape.size[j];
        visit(s, j, at[j] + 1 < n ? s + step : s - step * (n - 1));
        step *= n;
      }
      for (int j = p_.shape.n_dims - 1; j >= 0 && ++at[j] == p_.shape.size[j]; --j) at[j] = 0;
    }
  }

  uint32_t root(uint32_t s) {
    while (first_site_[s] != s) s = first_site_[s] = first_site_[first_site_[s]];
    return s;
  }

  // Swendsen and Wang: the cluster whose smallest site is r reads entry step V + r of purpose
  // "proposal".
  void redraw_all(uint64_t step) {
    for (int64_t s = 0; s < sites_; ++s) first_site_[s] = static_cast<uint32_t>(s);
    each_bond([&](int64_t s, int j, int64_t next) {
      if (spin_[s] != spin_[next] || !bonds_.hold(s, j)) return;
      const uint32_t a = root(static_cast<uint32_t>(s)), b = root(static_cast<uint32_t>(next));
      if (a < b) {
        first_site_[b] = a;
      } else {
        first_site_[a] = b;
      }
    });
    // A site's chain of smaller ones ends at a root by one step, if they are visited in order.
    if (field_ != 0.0) {
      for (int64_t s = 0; s < sites_; ++s) size_[s] = 0;
    }
    for (int64_t s = 0; s < sites_; ++s) {
      first_site_[s] = first_site_[first_site_[s]];
      if (field_ != 0.0) ++size_[first_site_[s]];
    }
    const uint64_t even = word_threshold(0.5), end = (step + 1) * static_cast<uint64_t>(sites_);
    Entries<Words, float> words(proposal_, end);
    for (int64_t begin = 0; begin < sites_; begin += kSegment) {
      const int64_t stop = begin + kSegment < sites_ ? begin + kSegment : sites_;
      const float* word = words.at(
          step * static_cast<uint64_t>(sites_) + static_cast<uint64_t>(begin), stop - begin);
      for (int64_t s = begin; s < stop; ++s, ++word) {
        const uint32_t r = first_site_[s];
        if (r == s) {
          const uint64_t threshold =
              field_ == 0.0 ? even : up_threshold(temperature_, field_, size_[s]);
          spin_[s] = bit_cast<uint32_t>(*word) < threshold ? 1 : -1;
        } else {
          spin_[s] = spin_[r];  // which is smaller, and done
        }
      }
    }
  }

  // Wolff: the cluster grows from site floor(w V / 2^64), w the first two words of block `step` of
  // purpose "proposal", the first of them on top. In a field it turns over if entry `step` of
  // purpose "accept" allows.
  void turn_one(uint64_t step) {
    const uint64_t high = bit_cast<uint32_t>(entry<Words, float>(proposal_, 4 * step));
    const uint64_t low = bit_cast<uint32_t>(entry<Words, float>(proposal_, 4 * step + 1));
    const int64_t start = static_cast<int64_t>(static_cast<uint64_t>(
        static_cast<unsigned __int128>(high << 32 | low) * static_cast<uint64_t>(sites_) >> 64));
    uint32_t* members = first_site_;
    const int8_t before = spin_[start];
    int64_t n = 0;
    const auto join = [&](int64_t s) {
      spin_[s] = static_cast<int8_t>(-before);
      members[n++] = static_cast<uint32_t>(s);
    };
    join(start);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t s = members[i];
      int64_t step_along = 1, rest = s;
      for (int j = p_.shape.n_dims - 1; j >= 0; --j) {
        const int64_t size = p_.shape.size[j], at = rest % size;
        rest /= size;
        const int64_t next = at + 1 < size ? s + step_along : s - step_along * (size - 1);
        const int64_t last = at > 0 ? s - step_along : s + step_along * (size - 1);
        if (spin_[next] == before && bonds_.hold(s, j)) join(next);
        if (spin_[last] == before && bonds_.hold(last, j)) join(last);
        step_along *= size;
      }
    }
    if (field_ == 0.0) return;
    const uint32_t word = bit_cast<uint32_t>(entry<Words, float>(accept_, step));
    if (word < turn_threshold(temperature_, field_, n, before)) return;
    for (int64_t i = 0; i < n; ++i) spin_[members[i]] = before;
  }

  const ClusterParams& p_;
  int64_t sites_;
  double temperature_, field_;
  NoiseSource proposal_, accept_;
  Bonds bonds_;
  U* x_;
  uint32_t *first_site_, *size_;
  int8_t* spin_;
};

template <class U>
void run_clusters(const ClusterParams& p) {
  int64_t sites = 1;
  for (int i = 0; i < p.shape.n_dims; ++i) sites *= p.shape.size[i];
  const double nanoseconds = 10.0 * static_cast<double>(sites) * static_cast<double>(p.n_steps) *
                             static_cast<double>(p.n_lattices);
  for_each_block(p.n_lattices, 1, p.place, nanoseconds, ClusterLattice<U>::bytes(p.shape, sites),
                 [&](int64_t index, int64_t, void* memory) {
                   ClusterLattice<U>(p, index, sites, memory).run();
                 });
}

}  // namespace

void clusters(const ClusterParams& p) {
  if (p.n_lattices == 0 || p.n_steps == 0) return;
  switch (p.bytes) {
    case 1: return run_clusters<uint8_t>(p);
    case 2: return run_clusters<uint16_t>(p);
    case 4: return run_clusters<uint32_t>(p);
    default: return run_clusters<uint64_t>(p);
  }
}
#endif

}  // namespace pf::PF_BACKEND
