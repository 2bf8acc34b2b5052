// SPDX-License-Identifier: Apache-2.0
// What the programs of the self test share: run one case by its name, compare, tell.
#pragma once

#include <stdio.h>
#include <string.h>

#include <vector>

#include "emulator.hpp"

constexpr int kWrongAnswer = 3;

// A barrier among the blocks of a cooperative launch; `count`, at first zero, has come to `goal`
// when all are there.
inline void sync_grid(unsigned* count, unsigned goal) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(count, 1);
    while (*static_cast<volatile unsigned*>(count) < goal) emulator::spin();
    __threadfence();
  }
  __syncthreads();
}

struct Case {
  const char* name;
  bool (*run)(bool fault);
};

inline bool same(const char* what, double got, double wanted) {
  if (got == wanted) return true;
  printf("wrong answer: %s is %g, not %g\n", what, got, wanted);
  return false;
}

template <class T>
bool all_same(const char* what, const std::vector<T>& got, const std::vector<T>& wanted) {
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!same(what, double(got[i]), double(wanted[i]))) return false;
  }
  return got.size() == wanted.size();
}

// Called as `program case` or `program case fault`.
template <size_t N>
int run_case(const Case (&cases)[N], int argc, char** argv) {
  for (const Case& c : cases) {
    if (argc < 2 || strcmp(argv[1], c.name) != 0) continue;
    const bool right = c.run(argc > 2 && strcmp(argv[2], "fault") == 0);
    if (right) printf("right\n");
    return right ? 0 : kWrongAnswer;
  }
  fprintf(stderr, "no such case\n");
  return 2;
}
