// SPDX-License-Identifier: Apache-2.0
#include "backend/threads.hpp"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "backend/handover.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace pf {
namespace {

constexpr double kSerialBelowNanoseconds = 50e3;
constexpr int kSpinMicroseconds = 20;
constexpr int64_t kHugePage = int64_t{1} << 21;

// Numbers are computed under the default floating-point state, whatever the caller's thread has
// set (torch.set_flush_denormal, another rounding mode), and that state is given back afterwards.
class DefaultFloatState {
 public:
#if defined(__SSE2__)
  DefaultFloatState() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~DefaultFloatState() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  DefaultFloatState() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" : : "r"(uint64_t{0}));
  }
  ~DefaultFloatState() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

// Grows and is kept for the life of the thread.
class Scratch {
 public:
  ~Scratch() { free(data_); }
  void* reserve(int64_t bytes) {
    if (bytes > size_) {
      free(data_);
      size_ = 0;
      data_ = nullptr;
      // Where much is worked in, pages of four kilobytes cost more than what is left of a huge one.
      const int64_t unit = bytes < kHugePage / 8 ? 64 : kHugePage;
      bytes = (bytes + unit - 1) / unit * unit;
      if (posix_memalign(&data_, unit, static_cast<size_t>(bytes)) != 0) return data_ = nullptr;
      if (unit == kHugePage) advise_huge_pages(data_, bytes);
      size_ = bytes;
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  int64_t size_ = 0;
};
thread_local Scratch scratch;

class Task {
 public:
  Task(int64_t n, int64_t block, int n_threads, int64_t scratch_bytes,
       void (*fn)(void*, int64_t, int64_t, void*), void* context)
      : fn_(fn),
        context_(context),
        n_(n),
        block_(block),
        scratch_bytes_(scratch_bytes),
        n_ranges_(n_threads < kMostRanges ? n_threads : kMostRanges) {
    const int64_t n_blocks = (n + block - 1) / block;
    for (int r = 0; r < n_ranges_; ++r) {
      ranges_[r].next.store(n_blocks * r / n_ranges_, std::memory_order_relaxed);
      ranges_[r].end = n_blocks * (r + 1) / n_ranges_;
    }
  }

  // Works until no block is left. False: no memory for the scratch, nothing was taken.
  bool work(int thread) {
    void* memory = scratch_bytes_ > 0 ? scratch.reserve(scratch_bytes_) : nullptr;
    if (scratch_bytes_ > 0 && memory == nullptr) return false;
    const DefaultFloatState state;
    for (int r = 0; r < n_ranges_; ++r) {
      Range& range = ranges_[(thread + r) % n_ranges_];
      while (range.next.load(std::memory_order_relaxed) < range.end) {
        const int64_t i = range.next.fetch_add(1, std::memory_order_relaxed);
        if (i >= range.end) break;
        const int64_t begin = i * block_;
        fn_(context_, begin, begin + block_ < n_ ? begin + block_ : n_, memory);
      }
    }
    return true;
  }
  // Whether all blocks were taken.
  bool taken() const {
    for (int r = 0; r < n_ranges_; ++r) {
      if (ranges_[r].next.load() < ranges_[r].end) return false;
    }
    return true;
  }

 private:
  static constexpr int kMostRanges = 64;
  struct alignas(64) Range {  // a line of the caches
    std::atomic<int64_t> next;
    int64_t end;
  };

  void (*fn_)(void*, int64_t, int64_t, void*);
  void* context_;
  int64_t n_, block_, scratch_bytes_;
  int n_ranges_;
  Range ranges_[kMostRanges];
};

// Waits a moment for `ready` without giving the core up: waking a sleeping thread takes 50 to 100
// us on a virtual machine, as long as a small kernel does. False after that moment, which is short
// because torch's threads may want the core next.
template <class Ready>
bool spin_until(const Ready& ready) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(kSpinMicroseconds);
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return true;
#if defined(__SSE2__)
      _mm_pause();
#elif defined(__aarch64__)
      __asm__ volatile("yield");
#endif
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

// The caller works too, and never waits for a helper that has not begun.
class Pool {
 public:
  // Only one call at a time.
  bool run(Task& task, int n_threads) {
    bool sleepers;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      start_helpers(n_threads - 1);
      keep_off_caller();
      task_ = &task;
      wanted_ = n_threads - 1;
      ++generation_;
      sleepers = n_asleep_ > 0;
    }
    if (sleepers) wake_.notify_all();
    const bool worked = task.work(0);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      task_ = nullptr;
    }
    if (!spin_until([this] { return running_ == 0; })) {
      std::unique_lock<std::mutex> lock(mutex_);
      done_.wait(lock, [this] { return running_ == 0; });
    }
    return worked;
  }

  std::mutex busy;

 private:
  void start_helpers(int n) {
    try {
      while (static_cast<int>(helpers_.size()) < n) {
        const int index = static_cast<int>(helpers_.size());
        helpers_.reserve(helpers_.size() + 1);
        std::thread helper([this, index] { help(index); });
        helpers_.push_back(helper.native_handle());
        helper.detach();
        caller_cpu_ = -1;
      }
    } catch (const std::system_error&) {  // no more threads to be had: do with fewer
    }
  }

  // Linux puts a thread that it wakes on its waker's core where the others seem busy, and threads
  // of OpenMP seem so for milliseconds after each of torch's operations: the caller would do all
  // the work alone. Helpers that fill the machine are therefore kept off the caller's core.
  void keep_off_caller() {
#if defined(__linux__)
    const int cpu = sched_getcpu();
    if (cpu == caller_cpu_) return;
    caller_cpu_ = cpu;
    cpu_set_t allowed;
    if (cpu < 0 || pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed) != 0) return;
    const int others = CPU_COUNT(&allowed) - 1;
    if (others < 1 || static_cast<int>(helpers_.size()) < others) return;
    CPU_CLR(cpu, &allowed);
    for (const pthread_t helper : helpers_) {
      pthread_setaffinity_np(helper, sizeof allowed, &allowed);
    }
#endif
  }

  void help(int index) {
    uint64_t seen = 0;
    const auto called = [&] { return generation_ != seen; };
    for (;;) {
      spin_until(called);
      std::unique_lock<std::mutex> lock(mutex_);
      ++n_asleep_;
      wake_.wait(lock, called);
      --n_asleep_;
      seen = generation_;
      if (index >= wanted_ || task_ == nullptr) continue;
      Task* task = task_;
      ++running_;
      lock.unlock();
      task->work(index + 1);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;  // held where these change
  std::condition_variable wake_, done_;
  std::vector<pthread_t> helpers_;
  Task* task_ = nullptr;
  int wanted_ = 0, n_asleep_ = 0, caller_cpu_ = -1;
  std::atomic<int> running_{0};
  std::atomic<uint64_t> generation_{0};
};

// Never destroyed: helpers may outlive static destructors. A forked child has none of its
// parent's threads, so it starts with a pool of its own.
Pool* pool = nullptr;
std::once_flag pool_once;

Pool& the_pool() {
  std::call_once(pool_once, [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
  });
  return *pool;
}

}  // namespace

void parallel_for(int64_t n, int64_t block, int n_threads, double nanoseconds,
                  int64_t scratch_bytes, void (*fn)(void*, int64_t, int64_t, void*),
                  void* context) {
  if (n <= 0) return;
  const int64_t n_blocks = (n + block - 1) / block;
  if (n_threads < 1 || nanoseconds < kSerialBelowNanoseconds) n_threads = 1;
  if (n_threads > n_blocks) n_threads = static_cast<int>(n_blocks);
  Task task(n, block, n_threads, scratch_bytes, fn, context);
  bool worked;
  if (n_threads > 1) {
    Pool& shared = the_pool();
    const std::unique_lock<std::mutex> mine(shared.busy, std::try_to_lock);
    worked = mine.owns_lock() ? shared.run(task, n_threads) : task.work(0);
  } else {
    worked = task.work(0);
  }
  if (!worked && !task.taken()) throw std::bad_alloc();
}

void Handover::count() { __atomic_store_n(&n_wanted_, n_waiting_ - n_pieces_, __ATOMIC_RELAXED); }

bool Handover::wanted() const { return __atomic_load_n(&n_wanted_, __ATOMIC_RELAXED) > 0; }

bool Handover::offer(Piece piece) {
  pthread_mutex_lock(&mutex_);
  const bool fits = n_pieces_ < kMost, sleepers = n_asleep_ > 0;
  if (fits) {
    pieces_[n_pieces_] = piece;
    __atomic_store_n(&n_pieces_, n_pieces_ + 1, __ATOMIC_RELAXED);
    count();
  }
  pthread_mutex_unlock(&mutex_);
  if (fits && sleepers) pthread_cond_signal(&wake_);
  return fits;
}

bool Handover::take(const int64_t* left, Piece* piece) {
  const auto done = [&] { return __atomic_load_n(left, __ATOMIC_ACQUIRE) == 0; };
  pthread_mutex_lock(&mutex_);
  while (n_pieces_ == 0 && !done()) {
    ++n_waiting_;
    count();
    pthread_mutex_unlock(&mutex_);
    spin_until([&] { return __atomic_load_n(&n_pieces_, __ATOMIC_RELAXED) > 0 || done(); });
    pthread_mutex_lock(&mutex_);
    if (n_pieces_ == 0 && !done()) {
      ++n_asleep_;
      pthread_cond_wait(&wake_, &mutex_);
      --n_asleep_;
    }
    --n_waiting_;
    count();
  }
  const bool found = n_pieces_ > 0;
  if (found) {
    __atomic_store_n(&n_pieces_, n_pieces_ - 1, __ATOMIC_RELAXED);
    *piece = pieces_[n_pieces_];
    count();
  }
  pthread_mutex_unlock(&mutex_);
  return found;
}

void Handover::finish(int64_t* left) {
  if (__atomic_sub_fetch(left, 1, __ATOMIC_ACQ_REL) != 0) return;
  pthread_mutex_lock(&mutex_);
  if (n_asleep_ > 0) pthread_cond_broadcast(&wake_);
  pthread_mutex_unlock(&mutex_);
}

void advise_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const uintptr_t page = kHugePage;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) & ~(page - 1);
  const uintptr_t end =
      (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) & ~(page - 1);
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace pf
