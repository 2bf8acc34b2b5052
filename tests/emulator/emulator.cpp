// SPDX-License-Identifier: Apache-2.0
#include "emulator.hpp"

#include <dlfcn.h>
#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "fibre.hpp"

emulator::Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {
namespace {

constexpr size_t kRedZoneBytes = 64 * 1024 + 16;  // the 16: aligned to 16 bytes and no more
constexpr unsigned kMaxGrid = 0x7fffffff;

// Threads run on a fibre one after another: one that returns leaves it to the next, so only threads
// that wait keep a fibre each.
struct Thread {
  enum { kReady, kWaiting, kReturned } state;
  Fibre* fibre;  // none until the thread starts
  Wait wait;
  uint64_t result;
};

// A block that runs, one of those side by side.
struct Block {
  unsigned index, n_live, n_at_syncthreads;
};

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  // Below n, and near enough to uniform.
  size_t operator()(size_t n) {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return size_t(z ^ (z >> 31)) % n;
  }
  void shuffle(std::vector<unsigned>& v, size_t from) {
    for (size_t i = v.size(); i > from + 1; --i) std::swap(v[i - 1], v[from + (*this)(i - from)]);
  }

 private:
  uint64_t state_;
};

// The one launch that runs, and what is kept for the next.
struct Engine {
  std::mutex mutex;
  std::map<const void*, size_t> shared_limit;  // what cudaFuncSetAttribute gave
  std::set<const void*> launched;
  uint64_t n_launches = 0;

  Launch launch{};
  Random random{0};
  std::vector<unsigned> to_run;  // blocks, the next one last
  std::vector<Block> blocks;     // those that run: one, or all
  std::vector<Thread> threads;   // of one block after another
  std::vector<unsigned> ready;   // of these
  uint64_t n_spins = 0;          // since a thread has come to a barrier or returned
  bool run_ahead = false;
  Thread* running = nullptr;
  std::vector<char*> shared;  // memory of the blocks that run

  unsigned place_of(const Thread& t) const { return unsigned(&t - threads.data()); }
  unsigned block_of(const Thread& t) const { return place_of(t) / launch.block; }

  Fibre host;
  Fibre* current = nullptr;
  std::vector<Fibre*> idle;
};

Engine& engine = *new Engine;  // never destroyed, so that leak checks find what it holds

// ---- faults -----------------------------------------------------------------------------------
const char* name_of(Op op) {
  switch (op) {
    case Op::kSyncThreads: return "__syncthreads";
    case Op::kSyncThreadsOr: return "__syncthreads_or";
    case Op::kSyncWarp: return "__syncwarp";
    case Op::kShfl: return "__shfl_sync";
    case Op::kShflXor: return "__shfl_xor_sync";
    case Op::kShflDown: return "__shfl_down_sync";
    case Op::kShflUp: return "__shfl_up_sync";
    case Op::kBallot: return "__ballot_sync";
    case Op::kAny: return "__any_sync";
    case Op::kAll: return "__all_sync";
  }
  return "?";
}

std::string describe(const Wait& wait) {
  char text[32] = "";
  const bool of_warp = wait.op != Op::kSyncThreads && wait.op != Op::kSyncThreadsOr;
  if (of_warp) snprintf(text, sizeof text, " of mask 0x%08x", wait.mask);
  return std::string(name_of(wait.op)) + text + " at " + wait.site.file + ":" +
         std::to_string(wait.site.line);
}

// Says where threads are, those of the block in this place or of all, and stops.
[[noreturn]] void stop(const char* what, unsigned block) {
  std::map<std::string, int> waiting;
  int n_returned = 0, n_running = 0;
  for (const Thread& t : engine.threads) {
    if (block < engine.blocks.size() && engine.block_of(t) != block) continue;
    if (t.state == Thread::kWaiting) ++waiting[describe(t.wait)];
    if (t.state == Thread::kReturned) ++n_returned;
    if (t.state == Thread::kReady) ++n_running;
  }
  fprintf(stderr, "emulator: %s", what);
  if (block < engine.blocks.size()) fprintf(stderr, " in block %u", engine.blocks[block].index);
  fprintf(stderr, ": ");
  for (const auto& [where, n] : waiting) fprintf(stderr, "%d wait in %s; ", n, where.c_str());
  if (n_running > 0) fprintf(stderr, "%d read what nobody changes; ", n_running);
  fprintf(stderr, "%d have returned\n", n_returned);
  abort();
}

[[noreturn]] void divergent_barrier(unsigned block) { stop("divergent barrier", block); }
[[noreturn]] void stuck() { stop("threads wait in vain", unsigned(engine.blocks.size())); }

[[noreturn]] void bad_call(const char* what, unsigned thread, const Wait& wait) {
  fprintf(stderr, "emulator: %s: thread %u of block %u in %s\n", what, thread, blockIdx.x,
          describe(wait).c_str());
  abort();
}

// ---- the order --------------------------------------------------------------------------------
// Starts as many blocks as run side by side.
bool start_blocks() {
  Engine& e = engine;
  if (e.to_run.empty()) return false;
  for (size_t b = 0; b < e.blocks.size(); ++b) {
    e.blocks[b] = {e.to_run.back(), e.launch.block, 0};
    e.to_run.pop_back();
    memset(e.shared[b], 0xff, e.launch.shared_bytes);
  }
  for (Thread& t : e.threads) {
    t.state = Thread::kReady;
    t.fibre = nullptr;
    e.ready.push_back(e.place_of(t));
  }
  e.random.shuffle(e.ready, 0);
  e.n_spins = 0;
  // Two kinds of order. In the one, all threads keep about the same pace; in the other, the warp
  // that was released last runs as far as it can, which shows races between warps.
  e.run_ahead = e.random(2) == 1;
  return true;
}

// The thread to run next, of other blocks if these are done; none at the end of the launch.
Thread* next_thread() {
  Engine& e = engine;
  while (e.ready.empty()) {
    for (unsigned b = 0; b < e.blocks.size(); ++b) {
      if (e.blocks[b].n_live > 0) divergent_barrier(b);
    }
    if (!start_blocks()) return nullptr;
  }
  if (!e.run_ahead) std::swap(e.ready.back(), e.ready[e.random(e.ready.size())]);
  const unsigned place = e.ready.back();
  e.ready.pop_back();
  threadIdx.x = place % e.launch.block;
  blockIdx.x = e.blocks[place / e.launch.block].index;
  return &e.threads[place];
}

void run_threads();

Fibre& idle_fibre() {
  if (engine.idle.empty()) return *new Fibre(run_threads);
  Fibre& fibre = *engine.idle.back();
  engine.idle.pop_back();
  return fibre;
}

// Hands over to the next thread. It runs on the same stack where it can, without a switch.
void hand_over(bool stack_is_free) {
  Engine& e = engine;
  Thread* next = next_thread();
  e.running = next;
  if (next && !next->fibre) next->fibre = stack_is_free ? e.current : &idle_fibre();
  Fibre* fibre = next ? next->fibre : &e.host;
  if (fibre == e.current) return;
  Fibre* self = e.current;
  if (stack_is_free) e.idle.push_back(self);
  e.current = fibre;
  self->switch_to(*fibre);
}

void run_threads() {
  engine.current->arrived();
  for (;;) {
    engine.launch.run_thread(engine.launch.call);
    engine.running->state = Thread::kReturned;
    --engine.blocks[engine.block_of(*engine.running)].n_live;
    engine.n_spins = 0;
    hand_over(true);
  }
}

// ---- barriers ---------------------------------------------------------------------------------
// Makes the threads first + i ready, i the set bits of lanes or all up to n.
void release(unsigned first, unsigned n, unsigned lanes) {
  Engine& e = engine;
  const size_t before = e.ready.size();
  for (unsigned i = 0; i < n; ++i) {
    if (n <= 32 && !(lanes >> i & 1)) continue;
    e.threads[first + i].state = Thread::kReady;
    e.ready.push_back(first + i);
  }
  e.random.shuffle(e.ready, before);
}

void arrive_at_block(const Wait& wait) {
  Engine& e = engine;
  const unsigned b = e.block_of(*e.running), n = e.launch.block;
  if (++e.blocks[b].n_at_syncthreads < n) return;
  // CUDA asks for one __syncthreads that all threads reach, not one for each branch.
  uint64_t any = 0;
  for (unsigned i = 0; i < n; ++i) {
    const Wait& other = e.threads[b * n + i].wait;
    const bool same = other.site.line == wait.site.line &&
                      strcmp(other.site.file, wait.site.file) == 0 && other.op == wait.op;
    if (!same) divergent_barrier(b);
    any |= other.value;
  }
  for (unsigned i = 0; i < n; ++i) e.threads[b * n + i].result = any;
  e.blocks[b].n_at_syncthreads = 0;
  release(b * n, n, 0xffffffff);
}

// The lane that a shuffle reads, as PTX defines it for shfl.sync.
unsigned source_lane(const Wait& wait, unsigned lane) {
  const unsigned first = lane & ~unsigned(wait.width - 1), last = first + unsigned(wait.width) - 1;
  const unsigned b = unsigned(wait.argument) & 31;
  switch (wait.op) {
    case Op::kShfl: return first | (b & unsigned(wait.width - 1));
    case Op::kShflXor: return (lane ^ b) <= last ? lane ^ b : lane;
    case Op::kShflDown: return lane + b <= last ? lane + b : lane;
    case Op::kShflUp: return lane >= first + b ? lane - b : lane;
    default: return lane;
  }
}

void arrive_at_warp(const Wait& wait) {
  Engine& e = engine;
  const unsigned in_block = threadIdx.x & ~31u, own = threadIdx.x & 31;
  const unsigned n = e.launch.block - in_block < 32 ? e.launch.block - in_block : 32;
  const unsigned first = e.block_of(*e.running) * e.launch.block + in_block;
  const unsigned lanes = wait.mask & (0xffffffffu >> (32 - n));
  if (!(lanes >> own & 1)) bad_call("lane outside its own mask", threadIdx.x, wait);
  const Thread* warp = &e.threads[first];
  unsigned votes = 0;
  for (unsigned i = 0; i < n; ++i) {
    if (!(lanes >> i & 1)) continue;
    const Thread& t = warp[i];
    if (t.state != Thread::kWaiting || t.wait.op != wait.op || t.wait.mask != wait.mask) return;
    votes |= unsigned(t.wait.value & 1) << i;
  }
  // All have come. The results are taken now, before a lane that runs on brings another value.
  for (unsigned i = 0; i < n; ++i) {
    if (!(lanes >> i & 1)) continue;
    Thread& t = e.threads[first + i];
    switch (wait.op) {
      case Op::kBallot: t.result = votes; break;
      case Op::kAny: t.result = votes != 0; break;
      case Op::kAll: t.result = votes == lanes; break;
      default: {
        const unsigned source = source_lane(t.wait, i);
        if (!(lanes >> source & 1)) bad_call("shuffle from an inactive lane", in_block + i, t.wait);
        t.result = warp[source].wait.value;
      }
    }
  }
  release(first, n, lanes);
}

void let_another_run() {
  Engine& e = engine;
  const size_t place = e.random(e.ready.size());
  e.ready.insert(e.ready.begin() + static_cast<std::ptrdiff_t>(place), e.place_of(*e.running));
  hand_over(false);
}

// ---- launches ---------------------------------------------------------------------------------
cudaError_t check(const Launch& l) {
  const char* refused = getenv("PF_EMULATOR_LAUNCH_ERROR");  // the number of an error
  if (refused) return static_cast<cudaError_t>(atoi(refused));
  if (l.grid == 0 || l.grid > kMaxGrid || l.block == 0 || l.block > kMaxBlock) {
    return cudaErrorInvalidConfiguration;
  }
  const unsigned at_once = unsigned(resident_blocks() * kMultiprocessors);
  if (l.together && l.grid > at_once) {
    return at_once == 0 ? cudaErrorNotSupported : cudaErrorCooperativeLaunchTooLarge;
  }
  const auto given = engine.shared_limit.find(l.kernel);
  const size_t limit = given == engine.shared_limit.end() ? kSharedBytes : given->second;
  return l.shared_bytes > limit ? cudaErrorInvalidValue : cudaSuccess;
}

// Adds where in the module a kernel lies, the first time that it runs, to the file that
// PF_EMULATOR_LAUNCHED names.
void note_launch(const void* kernel) {
  const char* path = getenv("PF_EMULATOR_LAUNCHED");
  if (!path || !engine.launched.insert(kernel).second) return;
  Dl_info module;
  FILE* file = fopen(path, "a");
  if (!file || !dladdr(kernel, &module)) {
    fprintf(stderr, "emulator: cannot note a launch in %s\n", path);
    abort();
  }
  fprintf(file, "%zx\n", size_t(kernel) - size_t(module.dli_fbase));
  fclose(file);
}

// Of a block's memory only [shared, shared + bytes) may be touched.
void set_shared(size_t n_blocks, [[maybe_unused]] size_t bytes) {
  const size_t all = kRedZoneBytes + kMaxSharedBytes + kRedZoneBytes;
  while (engine.shared.size() < n_blocks) {
    void* memory = mmap(nullptr, all, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      perror("emulator: no memory for the shared memory");
      abort();
    }
    engine.shared.push_back(static_cast<char*>(memory) + kRedZoneBytes);
    PF_ASAN(__asan_poison_memory_region(memory, all));
  }
  for (size_t b = 0; b < n_blocks; ++b) {
    PF_ASAN(__asan_poison_memory_region(engine.shared[b], kMaxSharedBytes));
    PF_ASAN(__asan_unpoison_memory_region(engine.shared[b], bytes));
  }
}

}  // namespace

cudaError_t& last_error() {
  thread_local cudaError_t error = cudaSuccess;
  return error;
}

uint64_t meet(const Wait& wait) {
  Thread* self = engine.running;
  if (!self) bad_call("barrier outside a kernel", threadIdx.x, wait);
  const int w = wait.width;
  if (w < 1 || w > 32 || (w & (w - 1)) != 0) bad_call("bad width", threadIdx.x, wait);
  self->state = Thread::kWaiting;
  self->wait = wait;
  engine.n_spins = 0;
  if (wait.op == Op::kSyncThreads || wait.op == Op::kSyncThreadsOr) {
    arrive_at_block(wait);
  } else {
    arrive_at_warp(wait);
  }
  hand_over(false);
  return self->result;
}

void interleave() {
  if (!engine.ready.empty() && engine.random(4) == 0) let_another_run();
}

void spin() {
  constexpr uint64_t kInVain = 1 << 20;
  if (engine.ready.empty() || ++engine.n_spins == kInVain) stuck();
  let_another_run();
}

void run(const Launch& launch) {
  const std::lock_guard<std::mutex> lock(engine.mutex);
  if (record(check(launch)) != cudaSuccess) return;
  note_launch(launch.kernel);
  Engine& e = engine;
  const char* seed = getenv("PF_EMULATOR_SEED");
  e.random = Random((seed ? strtoull(seed, nullptr, 10) : 0) * 0x2545f4914f6cdd1d + ++e.n_launches);
  e.launch = launch;
  gridDim = {launch.grid, 1, 1};
  blockDim = {launch.block, 1, 1};
  blockIdx = threadIdx = {0, 0, 0};
  e.blocks.resize(launch.together ? launch.grid : 1);
  e.threads.resize(e.blocks.size() * launch.block);
  const char* ends =
      getenv("PF_EMULATOR_ENDS");  // of a grid too large to run, the blocks at its ends
  const uint64_t n_ends = ends && !launch.together ? strtoull(ends, nullptr, 10) : launch.grid;
  for (uint64_t b = 0; b < launch.grid; ++b) {
    if (b < n_ends || b + n_ends >= launch.grid) e.to_run.push_back(static_cast<unsigned>(b));
  }
  e.random.shuffle(e.to_run, 0);
  set_shared(e.blocks.size(), launch.shared_bytes);

  fenv_t caller;  // a GPU does not know the float state of the thread that launches
  fegetenv(&caller);
  fesetenv(FE_DFL_ENV);
  e.current = &e.host;
  hand_over(false);  // comes back when all blocks are done
  fesetenv(&caller);
}

void* dynamic_shared() { return engine.shared[engine.block_of(*engine.running)]; }

}  // namespace emulator

using emulator::engine;

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  const bool fits = value >= 0 && value <= emulator::shared_bytes();
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || !fits) {
    return emulator::record(cudaErrorInvalidValue);
  }
  const std::lock_guard<std::mutex> lock(engine.mutex);
  engine.shared_limit[kernel] = size_t(value);
  return cudaSuccess;
}
