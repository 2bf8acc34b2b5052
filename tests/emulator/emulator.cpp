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
  std::vector<unsigned> blocks;  // those still to run, the next one last
  std::vector<Thread> threads;
  std::vector<unsigned> ready;
  unsigned n_live = 0, n_at_syncthreads = 0;
  bool run_ahead = false;
  Thread* running = nullptr;
  char* shared = nullptr;

  Fibre host;
  Fibre* current = nullptr;
  std::vector<Fibre*> idle;
};

Engine& engine = *new Engine;  // never destroyed, so that leak checks find what it holds

// ---- faults -----------------------------------------------------------------------------------
const char* name_of(Op op) {
  switch (op) {
    case Op::kSyncThreads: return "__syncthreads";
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
  if (wait.op != Op::kSyncThreads) snprintf(text, sizeof text, " of mask 0x%08x", wait.mask);
  return std::string(name_of(wait.op)) + text + " at " + wait.site.file + ":" +
         std::to_string(wait.site.line);
}

[[noreturn]] void divergent_barrier() {
  std::map<std::string, int> waiting;
  int n_returned = 0;
  for (const Thread& t : engine.threads) {
    if (t.state == Thread::kWaiting) ++waiting[describe(t.wait)];
    if (t.state == Thread::kReturned) ++n_returned;
  }
  fprintf(stderr, "emulator: divergent barrier in block %u: ", blockIdx.x);
  for (const auto& [where, n] : waiting) fprintf(stderr, "%d wait in %s; ", n, where.c_str());
  fprintf(stderr, "%d have returned\n", n_returned);
  abort();
}

[[noreturn]] void bad_call(const char* what, unsigned thread, const Wait& wait) {
  fprintf(stderr, "emulator: %s: thread %u of block %u in %s\n", what, thread, blockIdx.x,
          describe(wait).c_str());
  abort();
}

// ---- the order --------------------------------------------------------------------------------
bool start_block() {
  Engine& e = engine;
  if (e.blocks.empty()) return false;
  blockIdx.x = e.blocks.back();
  e.blocks.pop_back();
  for (unsigned i = 0; i < e.launch.block; ++i) {
    e.threads[i].state = Thread::kReady;
    e.threads[i].fibre = nullptr;
    e.ready.push_back(i);
  }
  e.random.shuffle(e.ready, 0);
  e.n_live = e.launch.block;
  e.n_at_syncthreads = 0;
  // Two kinds of order. In the one, all threads keep about the same pace; in the other, the warp
  // that was released last runs as far as it can, which shows races between warps.
  e.run_ahead = e.random(2) == 1;
  memset(e.shared, 0xff, e.launch.shared_bytes);
  return true;
}

// The thread to run next, of another block if this one is done; none at the end of the launch.
Thread* next_thread() {
  Engine& e = engine;
  while (e.ready.empty()) {
    if (e.n_live > 0) divergent_barrier();
    if (!start_block()) return nullptr;
  }
  if (!e.run_ahead) std::swap(e.ready.back(), e.ready[e.random(e.ready.size())]);
  threadIdx.x = e.ready.back();
  e.ready.pop_back();
  return &e.threads[threadIdx.x];
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
    --engine.n_live;
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
  const unsigned n = e.launch.block;
  if (++e.n_at_syncthreads < n) return;
  // CUDA asks for one __syncthreads that all threads reach, not one for each branch.
  for (const Thread& t : e.threads) {
    const Site& site = t.wait.site;
    if (site.line != wait.site.line || strcmp(site.file, wait.site.file) != 0) divergent_barrier();
  }
  e.n_at_syncthreads = 0;
  release(0, n, 0xffffffff);
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
  const unsigned first = threadIdx.x & ~31u, own = threadIdx.x & 31;
  const unsigned n = e.launch.block - first < 32 ? e.launch.block - first : 32;
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
        if (!(lanes >> source & 1)) bad_call("shuffle from an inactive lane", first + i, t.wait);
        t.result = warp[source].wait.value;
      }
    }
  }
  release(first, n, lanes);
}

// ---- launches ---------------------------------------------------------------------------------
cudaError_t check(const Launch& l) {
  const char* refused = getenv("PF_EMULATOR_LAUNCH_ERROR");  // the number of an error
  if (refused) return static_cast<cudaError_t>(atoi(refused));
  if (l.grid == 0 || l.grid > kMaxGrid || l.block == 0 || l.block > kMaxBlock) {
    return cudaErrorInvalidConfiguration;
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

// Only [shared, shared + bytes) may be touched.
void set_shared([[maybe_unused]] size_t bytes) {
  const size_t all = kRedZoneBytes + kMaxSharedBytes + kRedZoneBytes;
  if (!engine.shared) {
    void* memory = mmap(nullptr, all, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      perror("emulator: no memory for the shared memory");
      abort();
    }
    engine.shared = static_cast<char*>(memory) + kRedZoneBytes;
  }
  PF_ASAN(__asan_poison_memory_region(engine.shared - kRedZoneBytes, all));
  PF_ASAN(__asan_unpoison_memory_region(engine.shared, bytes));
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
  if (wait.op == Op::kSyncThreads) {
    arrive_at_block(wait);
  } else {
    arrive_at_warp(wait);
  }
  hand_over(false);
  return self->result;
}

void interleave() {
  Engine& e = engine;
  if (e.ready.empty() || e.random(4) != 0) return;
  e.running->state = Thread::kReady;
  const size_t place = e.random(e.ready.size());
  e.ready.insert(e.ready.begin() + static_cast<std::ptrdiff_t>(place), threadIdx.x);
  hand_over(false);
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
  e.threads.resize(launch.block);
  const char* ends =
      getenv("PF_EMULATOR_ENDS");  // of a grid too large to run, the blocks at its ends
  const uint64_t n_ends = ends ? strtoull(ends, nullptr, 10) : launch.grid;
  for (uint64_t b = 0; b < launch.grid; ++b) {
    if (b < n_ends || b + n_ends >= launch.grid) e.blocks.push_back(static_cast<unsigned>(b));
  }
  e.random.shuffle(e.blocks, 0);
  set_shared(launch.shared_bytes);

  fenv_t caller;  // a GPU does not know the float state of the thread that launches
  fegetenv(&caller);
  fesetenv(FE_DFL_ENV);
  e.current = &e.host;
  hand_over(false);  // comes back when all blocks are done
  fesetenv(&caller);
}

void* dynamic_shared() { return engine.shared; }

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
