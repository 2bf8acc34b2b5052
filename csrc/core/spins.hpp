// SPDX-License-Identifier: Apache-2.0
// Fields of spins by the type of their words.
#pragma once

#include "core/config.hpp"
#include "core/view.hpp"

namespace pf::PF_BACKEND {

// A spin's word at the interface, and its two values.
template <class U>
struct Spins {
  U* x;
  U up, down;
  int64_t n_lattices;
  LatticeShape shape;
  explicit Spins(const SpinFields& f)
      : x(static_cast<U*>(f.x)),
        up(static_cast<U>(f.up)),
        down(static_cast<U>(f.down)),
        n_lattices(f.n_lattices),
        shape(f.shape) {}
  PF_HD U* lattice(int64_t index) const { return x + index * shape.n_sites; }
  PF_HD bool is_up(U word) const { return word >> (sizeof(U) * 8 - 1) == 0; }
};

// body(spins), of the type that the words have.
template <class Body>
static void with_spins(const SpinFields& f, const Body& body) {
  switch (f.bytes) {
    case 1: return body(Spins<uint8_t>(f));
    case 2: return body(Spins<uint16_t>(f));
    case 4: return body(Spins<uint32_t>(f));
    default: return body(Spins<uint64_t>(f));
  }
}

}  // namespace pf::PF_BACKEND
