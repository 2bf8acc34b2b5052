// SPDX-License-Identifier: Apache-2.0
// A stack to run threads on, and the switch from one to another.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define PF_ASAN(statement) statement
#else
#define PF_ASAN(statement)
#endif

#if defined(__x86_64__)
// What swapcontext does but for its system call, which a switch would spend most of its time in:
// nothing here changes the signal mask. The registers that a function must keep go on the stack.
extern "C" void pf_emulator_switch(void** own_top, void* other_top);
asm(R"(
  .text
  .p2align 4
  .type pf_emulator_switch, @function
pf_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size pf_emulator_switch, . - pf_emulator_switch
)");
#else
#include <ucontext.h>
#endif

namespace emulator {

class Fibre {
 public:
  // The stack that the caller runs on.
  Fibre() = default;
  // A new stack, which is never given back; the first switch to it calls start, which must not
  // return.
  explicit Fibre(void (*start)()) {
    const size_t guard = size_t(sysconf(_SC_PAGESIZE));
    void* memory = mmap(nullptr, guard + kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0) {
      perror("emulator: no memory for a stack");
      abort();
    }
    char* stack = static_cast<char*>(memory) + guard;
    stack_ = stack;
    stack_bytes_ = kStackBytes;
#if defined(__x86_64__)
    // As if start had been called from nowhere and had called the switch: above its address is
    // where it would return to, and below are the six registers.
    void** top = reinterpret_cast<void**>(stack + kStackBytes);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(start);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    top_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = kStackBytes;
    context_.uc_link = nullptr;
    makecontext(&context_, start, 0);
    // Otherwise AddressSanitizer clears what it knows of the stack at each switch.
    context_.uc_stack.ss_size = 0;
#endif
  }
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  // Leaves this fibre, which runs, for another one.
  void switch_to(Fibre& next) {
    next.previous_ = this;
    PF_ASAN(__sanitizer_start_switch_fiber(&fake_stack_, next.stack_, next.stack_bytes_));
#if defined(__x86_64__)
    pf_emulator_switch(&top_, next.top_);
#else
    swapcontext(&context_, &next.context_);
#endif
    arrived();
  }
  // To be called first by start.
  void arrived() {
    PF_ASAN(
        __sanitizer_finish_switch_fiber(fake_stack_, &previous_->stack_, &previous_->stack_bytes_));
  }

 private:
  static constexpr size_t kStackBytes = 256 * 1024;
#if defined(__x86_64__)
  void* top_ = nullptr;
#else
  ucontext_t context_;
#endif
  const void* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  Fibre* previous_ = nullptr;   // the one that switched to this
};

}  // namespace emulator
