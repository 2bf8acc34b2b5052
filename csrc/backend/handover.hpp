// SPDX-License-Identifier: Apache-2.0
// Work that nobody can divide beforehand: threads that have much of it leave pieces to those that
// wait for some.
#pragma once

#include <pthread.h>
#include <stdint.h>

namespace pf {

struct Piece {
  void* owner;
  int64_t at;  // which means something to the owner
};
class Handover {
 public:
  // Whether more threads wait than there are pieces; a moment ago.
  bool wanted() const;
  // False: there are many already.
  bool offer(Piece piece);
  // Waits for a piece. False: *left is 0.
  bool take(const int64_t* left, Piece* piece);
  // Takes one off *left, which threads wait for. What was written before is seen by those who then
  // find it 0.
  void finish(int64_t* left);

 private:
  static constexpr int kMost = 256;
  void count();
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;  // with nothing to destroy
  pthread_cond_t wake_ = PTHREAD_COND_INITIALIZER;
  int n_pieces_ = 0, n_waiting_ = 0, n_asleep_ = 0, n_wanted_ = 0;
  Piece pieces_[kMost];
};

}  // namespace pf
