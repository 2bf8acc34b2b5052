// SPDX-License-Identifier: Apache-2.0
// A small stand-in for the CUDA runtime, so that the kernels run on a machine without a GPU.
//
// Each thread of a block is a fibre. Threads change only at barriers and, now and then, before an
// atomic operation, in an order drawn from PF_EMULATOR_SEED, so that a missing barrier gives a
// wrong answer for some seeds; the sanitizers of the compiler find accesses out of bounds. Blocks
// run one after another, or, in a cooperative launch, all at once. It is stricter than the hardware
// where CUDA leaves the result undefined: every thread that a barrier names must come to it,
// returned or not.
//
// There is no macro for __noinline__, since the headers of glibc and libstdc++ use that word.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "runtime.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// ---- the engine -------------------------------------------------------------------------------
namespace emulator {

struct Index {
  unsigned x, y, z;
};

// Where in the source a thread waits. As a default argument it is the place of the call.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

enum class Op {
  kSyncThreads,
  kSyncThreadsOr,
  kSyncWarp,
  kShfl,
  kShflXor,
  kShflDown,
  kShflUp,
  kBallot,
  kAny,
  kAll
};

// What a thread brings to the barrier where it waits.
struct Wait {
  Op op;
  Site site;
  unsigned mask;
  uint64_t value;
  int argument, width;  // of a shuffle: its lane, lane mask or delta, and its width
};

struct Launch {
  unsigned grid, block;
  size_t shared_bytes;
  const void* kernel;
  void (*run_thread)(const void* call);
  const void* call;
  bool together;  // all blocks at once
};

// Waits until the threads of the barrier have come; returns what the operation gives this thread.
uint64_t meet(const Wait& wait);
void run(const Launch& launch);

// Lets another thread run before this one goes on, now and then. Where threads change memory that
// others read without a barrier, the kernels call it too.
void interleave();
// Lets another thread run: this one waits for what another does. The launch is at fault where for
// long no thread has done anything else.
void spin();

// The dynamic shared memory of the running block: 16-byte aligned and no more, all bytes 0xff at
// first, which is a NaN both as float and as double.
void* dynamic_shared();

template <class... P, class... A>
void start(bool together, unsigned grid, unsigned block, size_t shared_bytes, void (*kernel)(P...),
           A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "as many arguments as the kernel has parameters");
  static_assert((std::is_trivially_copyable_v<P> && ...), "arguments are copied byte by byte");
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
  };
  const Call call{kernel, std::tuple<P...>(std::forward<A>(args)...)};
  const auto run_thread = [](const void* p) {
    const Call* c = static_cast<const Call*>(p);
    std::apply(c->kernel, c->arguments);
  };
  const void* address = reinterpret_cast<const void*>(kernel);
  run({grid, block, shared_bytes, address, run_thread, &call, together});
}
template <class... P, class... A>
void launch(unsigned grid, unsigned block, size_t shared_bytes, cudaStream_t, void (*kernel)(P...),
            A&&... args) {
  start(false, grid, block, shared_bytes, kernel, std::forward<A>(args)...);
}
// A cooperative launch.
template <class... P, class... A>
void launch_together(unsigned grid, unsigned block, size_t shared_bytes, cudaStream_t,
                     void (*kernel)(P...), A&&... args) {
  start(true, grid, block, shared_bytes, kernel, std::forward<A>(args)...);
}

template <class T>
T shuffle(Op op, unsigned mask, T value, int argument, int width, Site site) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                "CUDA shuffles values of 32 and of 64 bits");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = meet({op, site, mask, bits, argument, width});
  memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulator

// ---- what device code sees --------------------------------------------------------------------
// The engine sets these whenever another thread takes over. Not const, or the compiler might keep
// their values across a barrier.
extern emulator::Index threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

inline void __syncthreads(emulator::Site site = emulator::Site::here()) {
  emulator::meet({emulator::Op::kSyncThreads, site, 0, 0, 0, warpSize});
}

inline int __syncthreads_or(int predicate, emulator::Site site = emulator::Site::here()) {
  const uint64_t bit = predicate != 0;
  return int(emulator::meet({emulator::Op::kSyncThreadsOr, site, 0, bit, 0, warpSize}));
}

// Threads change only where the engine lets them, and see all that was written before.
inline void __threadfence() { emulator::interleave(); }

inline void __syncwarp(unsigned mask = 0xffffffff, emulator::Site site = emulator::Site::here()) {
  emulator::meet({emulator::Op::kSyncWarp, site, mask, 0, 0, warpSize});
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize,
              emulator::Site site = emulator::Site::here()) {
  return emulator::shuffle(emulator::Op::kShfl, mask, value, lane, width, site);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize,
                  emulator::Site site = emulator::Site::here()) {
  return emulator::shuffle(emulator::Op::kShflXor, mask, value, lane_mask, width, site);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   emulator::Site site = emulator::Site::here()) {
  return emulator::shuffle(emulator::Op::kShflDown, mask, value, int(delta), width, site);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 emulator::Site site = emulator::Site::here()) {
  return emulator::shuffle(emulator::Op::kShflUp, mask, value, int(delta), width, site);
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              emulator::Site site = emulator::Site::here()) {
  const uint64_t bit = predicate != 0;
  return unsigned(emulator::meet({emulator::Op::kBallot, site, mask, bit, 0, warpSize}));
}

inline int __any_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
  const uint64_t bit = predicate != 0;
  return int(emulator::meet({emulator::Op::kAny, site, mask, bit, 0, warpSize}));
}

inline int __all_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
  const uint64_t bit = predicate != 0;
  return int(emulator::meet({emulator::Op::kAll, site, mask, bit, 0, warpSize}));
}

namespace emulator {
// Other threads may run before, not within. Returns what there was.
template <class Word, class Change>
Word change_at_once(Word* at, const Change& change) {
  interleave();
  const Word before = *at;
  *at = change(before);
  return before;
}
}  // namespace emulator

using LongWord = unsigned long long;
inline unsigned atomicAdd(unsigned* at, unsigned n) {
  return emulator::change_at_once(at, [n](unsigned before) { return before + n; });
}
inline LongWord atomicAdd(LongWord* at, LongWord n) {
  return emulator::change_at_once(at, [n](LongWord before) { return before + n; });
}
inline unsigned atomicExch(unsigned* at, unsigned n) {
  return emulator::change_at_once(at, [n](unsigned) { return n; });
}
inline unsigned atomicMin(unsigned* at, unsigned n) {
  return emulator::change_at_once(at, [n](unsigned before) { return n < before ? n : before; });
}
inline long long atomicMin(long long* at, long long n) {
  return emulator::change_at_once(at, [n](long long before) { return n < before ? n : before; });
}
inline long long atomicMax(long long* at, long long n) {
  return emulator::change_at_once(at, [n](long long before) { return n > before ? n : before; });
}
