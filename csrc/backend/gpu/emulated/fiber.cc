#include "backend/gpu/emulated/fiber.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define GEMTP_ANNOTATE_FIBERS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GEMTP_ANNOTATE_FIBERS 1
#endif
#endif
#ifdef GEMTP_ANNOTATE_FIBERS
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// gemtp_switch(from, to): keeps the registers that a call preserves on this stack, its pointer in
// *from, and goes on where the stack `to` was left. A new stack "was left" before gemtp_begin.
extern "C" {
void gemtp_switch(void** from, void* to);
void gemtp_begin();
}

#if defined(__x86_64__)
asm(R"(
.text
.globl gemtp_switch
.hidden gemtp_switch
.type gemtp_switch, @function
gemtp_switch:
  endbr64
  pushq %rbp; pushq %rbx; pushq %r12
  pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13
  popq %r12; popq %rbx; popq %rbp
  ret
.globl gemtp_begin
.hidden gemtp_begin
.type gemtp_begin, @function
gemtp_begin:
  endbr64
  movq %r12, %rdi
  call *%r13
  ud2
)");
static constexpr size_t kSaved = 9, kArgument = 3, kEntry = 2, kReturn = 6;  // in words
#elif defined(__aarch64__)
asm(R"(
.text
.globl gemtp_switch
.hidden gemtp_switch
.type gemtp_switch, %function
gemtp_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]; stp x21, x22, [sp, #16]; stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]; stp x27, x28, [sp, #64]; stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]; stp d10, d11, [sp, #112]; stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]; ldp x21, x22, [sp, #16]; ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]; ldp x27, x28, [sp, #64]; ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]; ldp d10, d11, [sp, #112]; ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.globl gemtp_begin
.hidden gemtp_begin
.type gemtp_begin, %function
gemtp_begin:
  mov x0, x19
  blr x20
  brk #0
)");
static constexpr size_t kSaved = 20, kArgument = 0, kEntry = 1, kReturn = 11;
#endif

namespace gemtp::gpu {

Fiber::Fiber() {
  void* at = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  stack_ = static_cast<uint8_t*>(at);
}

Fiber::~Fiber() { munmap(stack_, kStackBytes); }

void Fiber::begin(Fiber* fiber) {
  fiber->arrive();
  fiber->entry_(fiber->argument_);
  fiber->leave();
}

void Fiber::prepare(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
#ifdef GEMTP_ANNOTATE_FIBERS  // frames that were never left are forgotten
  ASAN_UNPOISON_MEMORY_REGION(stack_, kStackBytes);
#endif
  auto* top = reinterpret_cast<uint64_t*>(stack_ + kStackBytes) - kSaved;
  for (size_t i = 0; i < kSaved; ++i) top[i] = 0;
  top[kArgument] = reinterpret_cast<uint64_t>(this);
  top[kEntry] = reinterpret_cast<uint64_t>(&Fiber::begin);
  top[kReturn] = reinterpret_cast<uint64_t>(&gemtp_begin);
  top_ = top;
}

void Fiber::resume() {
#ifdef GEMTP_ANNOTATE_FIBERS
  void* own = nullptr;
  __sanitizer_start_switch_fiber(&own, stack_, kStackBytes);
  gemtp_switch(&scheduler_, top_);
  __sanitizer_finish_switch_fiber(own, nullptr, nullptr);
#else
  gemtp_switch(&scheduler_, top_);
#endif
}

// The first thing on the fiber's stack after a switch to it.
void Fiber::arrive() {
#ifdef GEMTP_ANNOTATE_FIBERS
  __sanitizer_finish_switch_fiber(fake_stack_, &scheduler_stack_, &scheduler_bytes_);
#endif
}

void Fiber::pause() {
#ifdef GEMTP_ANNOTATE_FIBERS
  __sanitizer_start_switch_fiber(&fake_stack_, scheduler_stack_, scheduler_bytes_);
#endif
  gemtp_switch(&top_, scheduler_);
  arrive();
}

void Fiber::leave() {
#ifdef GEMTP_ANNOTATE_FIBERS
  __sanitizer_start_switch_fiber(nullptr, scheduler_stack_, scheduler_bytes_);
  fake_stack_ = nullptr;
#endif
  gemtp_switch(&top_, scheduler_);
  std::abort();
}

}  // namespace gemtp::gpu
