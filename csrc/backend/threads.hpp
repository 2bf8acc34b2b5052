// SPDX-License-Identifier: Apache-2.0
// A small pool of threads. Each begins with a range of blocks of its own, the same one in each call
// of the same size, so that what it worked on last is still near it; then it takes blocks of
// others' ranges, so that a busy core does not hold them up. What a block computes never depends on
// who computes it.
#pragma once

#include <stdint.h>

namespace pf {

// Calls fn(context, begin, end, scratch) on disjoint blocks that cover [0, n). Each caller of fn
// has its own `scratch_bytes` of memory, aligned to 64 bytes. Runs in the calling thread alone if
// n_threads is 1, if another call holds the pool, or if `nanoseconds`, an estimate of the whole
// work, is too little to share. Throws std::bad_alloc if there is no memory for the scratch.
void parallel_for(int64_t n, int64_t block, int n_threads, double nanoseconds,
                  int64_t scratch_bytes, void (*fn)(void*, int64_t, int64_t, void*), void* context);

// Asks for huge pages under a large fresh buffer, where the system has them.
void advise_huge_pages(void* data, int64_t bytes);

}  // namespace pf
