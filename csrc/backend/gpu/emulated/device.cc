#include "backend/gpu/emulated/device.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <numeric>

#include "backend/gpu/emulated/fiber.h"
#include "backend/gpu/emulated/memory.h"

namespace gemtp::gpu {
namespace {

// An address: which device, which allocation, and the offset in it. Addresses of one device are
// none on the others.
constexpr int kOffsetBits = 36, kDeviceBits = 6;
constexpr uint64_t kOffsetMask = (uint64_t{1} << kOffsetBits) - 1;

std::atomic<uint64_t> devices{0};  // made so far

// Who read a byte last: a thread; several of one warp; several.
constexpr uint16_t kOfWarp = 0x8000, kSeveral = 0xffff;

bool in_warp(uint16_t who, int warp) {
  return who != kSeveral && (who & kOfWarp ? who - kOfWarp : who / 32) == warp;
}

uint64_t next_random(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

// Who has accessed a byte, and when: blocks run one behind the other, and a clock that they share
// advances at every barrier.
struct Shadow {
  uint32_t written = 0, first_read = 0, last_read = 0;  // first_read: of a launch
  uint16_t writer = 0, reader = 0;                      // the last ones
};

}  // namespace

struct EmulatedDevice::Allocation {
  std::vector<uint8_t> bytes;
  std::vector<Shadow> shadow;  // where races are looked for
  bool released = false;
};

// The fibers that stand for the threads of the block that is running.
struct EmulatedDevice::Threads {
  struct Thread {
    Fiber fiber;
    Place place;
    enum State { kReady, kAtBarrier, kInWarp, kDone } state = kDone;
    int line = 0;  // of the operation at which it waits
  };
  struct Warp {
    int arrived = 0, line = 0;
    uint32_t ordered = 0;  // when its last barrier was
    uint64_t meetings = 0;
    void* value[2][32];  // of two meetings in turn
  };
  std::vector<std::unique_ptr<Thread>> all;
  std::vector<Warp> warps;
  std::vector<int> ready, next;  // threads that can run in this turn, and in the next one
};

// A launch in progress. There is one at a time in a process.
struct Launch {
  using Thread = EmulatedDevice::Threads::Thread;
  using Warp = EmulatedDevice::Threads::Warp;

  EmulatedDevice& device;
  EmulatedDevice::Threads& threads;
  const Kernel& kernel;
  const void* arguments;
  std::vector<uint64_t> shared;
  std::vector<Shadow> shared_shadow;
  uint32_t begun = 0, block_begun = 0, ordered = 0;  // times: ordered, of the last barrier
  int at_barrier = 0, barrier_line = 0;              // threads that wait there, and where it is
  Thread* running = nullptr;
  std::exception_ptr error = {};

  static inline Launch* now = nullptr;
  static inline uint32_t clock = 0;
  static inline std::mutex one_at_a_time;

  [[noreturn]] void fail(const std::string& what) const {
    const Place& p = running->place;
    throw KernelError(std::string(kernel.name) + ": block (" + std::to_string(p.block) + ", " +
                      std::to_string(p.row) + "), thread " + std::to_string(p.index) + " " + what);
  }

  // Whether anything orders the access behind those of other threads from `since` on.
  void check_order(Shadow& s, uint32_t since, bool write, uint64_t where) const {
    const int warp = running->place.warp;
    const auto thread = static_cast<uint16_t>(running->place.index);
    const uint32_t warp_ordered = threads.warps[static_cast<size_t>(warp)].ordered;
    const auto unordered = [&](uint32_t at, uint16_t who) {
      if (at < since) return false;
      if (at < block_begun) return true;
      return at >= ordered && who != thread && !(in_warp(who, warp) && at < warp_ordered);
    };
    if (unordered(s.written, s.writer))
      fail(std::string(write ? "writes" : "reads") + " what another thread writes, at byte " +
           std::to_string(where));
    if (write) {
      if (unordered(s.first_read, thread) || unordered(s.last_read, s.reader))
        fail("writes what another thread reads, at byte " + std::to_string(where));
      s.written = clock;
      s.writer = thread;
      return;
    }
    if (s.first_read < since) s.first_read = clock;
    const bool alone = s.last_read < std::max(ordered, block_begun) || s.reader == thread;
    if (alone || (in_warp(s.reader, warp) && s.last_read < warp_ordered))
      s.reader = thread;
    else
      s.reader = in_warp(s.reader, warp) ? static_cast<uint16_t>(kOfWarp + warp) : kSeveral;
    s.last_read = clock;
  }

  uint8_t* access(uint64_t address, size_t bytes, bool write) {
    const uint64_t number = device.number_of(address), offset = address & kOffsetMask;
    if (number == 0 || number >= device.allocations_.size())
      fail("uses an address that is none: " + std::to_string(address));
    EmulatedDevice::Allocation& a = *device.allocations_[number];
    if (offset + bytes > a.bytes.size())
      fail(a.released ? "uses memory that was released"
                      : std::string(write ? "writes" : "reads") + " bytes " +
                            std::to_string(offset) + " to " + std::to_string(offset + bytes - 1) +
                            " of an allocation of " + std::to_string(a.bytes.size()));
    if (offset % (bytes & (~bytes + 1)) != 0)
      fail("uses an address that is not aligned: byte " + std::to_string(offset));
    if (device.find_races_)
      for (size_t i = 0; i < bytes; ++i)
        check_order(a.shadow[offset + i], begun, write, offset + i);
    return a.bytes.data() + offset;
  }

  // ---- threads ----

  // Ready in the next turn, in an order of their own.
  void wake(Thread& thread) {
    thread.state = Thread::kReady;
    threads.next.push_back(thread.place.index);
  }

  uint8_t* written(uint64_t address, size_t bytes) {
    uint8_t* at = access(address, bytes, true);
    const uint64_t place = next_random(device.write_choice_) % ++device.writes_;
    if (place < device.written_.size()) device.written_[place] = at + bytes / 2;
    return at;
  }

  void release_barrier() {
    ordered = ++clock;
    at_barrier = 0;
    for (const auto& t : threads.all)
      if (t->state == Thread::kAtBarrier) wake(*t);
  }

  void barrier(int line) {
    if (at_barrier > 0 && barrier_line != line)
      fail("is at the barrier of line " + std::to_string(line) + " and others at that of line " +
           std::to_string(barrier_line));
    barrier_line = line;
    Thread& self = *running;
    self.state = Thread::kAtBarrier;
    self.line = line;
    if (++at_barrier == kernel.threads) release_barrier();  // and takes its turn with the others
    self.fiber.pause();
  }

  // All lanes of a warp bring a value; the last one to come calls work(values of the lanes).
  void* const* meet(void* value, int line, void (*work)(void* const*)) {
    Warp& warp = threads.warps[static_cast<size_t>(running->place.warp)];
    if (warp.arrived > 0 && warp.line != line)
      fail("is at the warp operation of line " + std::to_string(line) +
           " and other lanes at that of line " + std::to_string(warp.line));
    void** values = warp.value[warp.meetings % 2];
    values[running->place.lane] = value;
    warp.line = line;
    if (++warp.arrived < 32) {
      Thread& self = *running;
      self.state = Thread::kInWarp;
      self.line = line;
      self.fiber.pause();
      return values;
    }
    warp.arrived = 0;
    ++warp.meetings;
    if (work) work(values);
    const auto first = static_cast<size_t>(running->place.warp) * 32;
    for (size_t i = first; i < first + 32; ++i)
      if (threads.all[i]->state == Thread::kInWarp) wake(*threads.all[i]);
    return values;
  }

  static void run_thread(void*) {
    Launch& l = *now;
    try {
      l.kernel.run(l.arguments, l.shared.data(), l.running->place);
    } catch (...) {
      if (!l.error) l.error = std::current_exception();
    }
    now->running->state = Thread::kDone;
  }

  void run_block(int block, int row) {
    block_begun = ordered = ++clock;
    std::memset(shared.data(), 0xff, shared.size() * sizeof(uint64_t));
    at_barrier = 0;
    for (Warp& warp : threads.warps) warp.arrived = 0;
    for (int i = 0; i < kernel.threads; ++i) {
      auto& t = *threads.all[static_cast<size_t>(i)];
      t.place = {i, i / 32, i % 32, block, row};
      t.fiber.prepare(run_thread, nullptr);
      wake(t);
    }
    while (!threads.next.empty()) {
      threads.ready.swap(threads.next);
      threads.next.clear();
      for (size_t i = threads.ready.size(); i > 1; --i)
        std::swap(threads.ready[i - 1], threads.ready[next_random(device.random_) % i]);
      for (const int t : threads.ready) {
        running = threads.all[static_cast<size_t>(t)].get();
        running->fiber.resume();
        if (error) return;
      }
    }
    for (const auto& t : threads.all)
      if (t->state != Thread::kDone) {
        running = t.get();
        fail("waits at line " + std::to_string(t->line) + " for threads that never come there");
      }
  }
};

uint64_t EmulatedDevice::number_of(uint64_t address) const {
  return (address ^ base_) >> kOffsetBits;
}

EmulatedDevice::EmulatedDevice(uint64_t seed, bool find_races)
    : threads_(std::make_unique<Threads>()),
      base_((devices++ % ((1 << kDeviceBits) - 1) + 1) << (64 - kDeviceBits)),
      random_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du),
      find_races_(find_races) {
  allocations_.push_back(std::make_unique<Allocation>());
}

EmulatedDevice::~EmulatedDevice() = default;

uint64_t EmulatedDevice::allocate(int64_t bytes) {
  auto a = std::make_unique<Allocation>();
  a->bytes.resize(static_cast<size_t>(bytes));
  for (uint8_t& b : a->bytes) b = static_cast<uint8_t>(next_random(random_) >> 32);
  if (find_races_) a->shadow.resize(a->bytes.size());
  allocations_.push_back(std::move(a));
  allocated_ += bytes;
  return base_ | (allocations_.size() - 1) << kOffsetBits;
}

void EmulatedDevice::release(uint64_t address) {
  const uint64_t number = number_of(address);
  allocated_ -= static_cast<int64_t>(allocations_.at(number)->bytes.size());
  allocations_[number] = std::make_unique<Allocation>();
  allocations_[number]->released = true;
}

EmulatedDevice::Allocation& EmulatedDevice::holding(uint64_t address, int64_t bytes) const {
  const uint64_t number = number_of(address), offset = address & kOffsetMask;
  if (number >= allocations_.size() ||
      offset + static_cast<uint64_t>(bytes) > allocations_[number]->bytes.size())
    throw KernelError("a copy of " + std::to_string(bytes) + " bytes at byte " +
                      std::to_string(offset) + " leaves its allocation");
  return *allocations_[number];
}

void EmulatedDevice::write(uint64_t to, const void* from, int64_t bytes) {
  if (bytes > 0)
    std::memcpy(holding(to, bytes).bytes.data() + (to & kOffsetMask), from,
                static_cast<size_t>(bytes));
}

void EmulatedDevice::read(uint64_t from, void* to, int64_t bytes) const {
  if (bytes > 0)
    std::memcpy(to, holding(from, bytes).bytes.data() + (from & kOffsetMask),
                static_cast<size_t>(bytes));
}

uint8_t* EmulatedDevice::host_address(uint64_t address) { return holding(address, 0).bytes.data(); }

void EmulatedDevice::launch(const Kernel& kernel, int blocks, int rows, const void* arguments) {
  const auto n = static_cast<size_t>(kernel.threads);
  while (threads_->all.size() < n) threads_->all.push_back(std::make_unique<Threads::Thread>());
  for (const auto& t : threads_->all) t->state = Threads::Thread::kDone;
  threads_->warps.resize(n / 32);
  threads_->next.clear();
  Launch launch{*this, *threads_, kernel, arguments, {}, {}};
  launch.shared.resize(kernel.shared_bytes / sizeof(uint64_t) + 1);
  if (find_races_) launch.shared_shadow.resize(launch.shared.size() * sizeof(uint64_t));
  const std::lock_guard lock(Launch::one_at_a_time);
  Launch::now = &launch;
  written_.fill(nullptr);
  writes_ = 0;
  launch.begun = Launch::clock + 1;

  std::vector<int> order(static_cast<size_t>(blocks) * static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[next_random(random_) % i]);
  for (const int block : order) {
    launch.run_block(block % blocks, block / blocks);
    if (launch.error) std::rethrow_exception(launch.error);
  }
}

void EmulatedDevice::spoil_writes() {
  // The middle byte of a number is not so low that rounding hides it.
  for (uint8_t* byte : written_)
    if (byte) *byte ^= 0x20;
}

const void* checked_read(uint64_t address, size_t bytes) {
  return Launch::now->access(address, bytes, false);
}

void* checked_write(uint64_t address, size_t bytes) { return Launch::now->written(address, bytes); }

void check_shared(const void* at, size_t bytes, bool write) {
  Launch& l = *Launch::now;
  if (l.shared_shadow.empty()) return;
  const auto offset = static_cast<size_t>(static_cast<const uint8_t*>(at) -
                                          reinterpret_cast<const uint8_t*>(l.shared.data()));
  for (size_t i = 0; i < bytes; ++i)
    l.check_order(l.shared_shadow[offset + i], l.block_begun, write, offset + i);
}

void outside_of_shared(int64_t index, int64_t size) {
  Launch::now->fail("uses element " + std::to_string(index) + " of a shared array of " +
                    std::to_string(size));
}

void block_barrier(int line) { Launch::now->barrier(line); }

void order_warp(int line) {
  Launch& l = *Launch::now;
  const auto order = [](void* const*) {
    Launch& now = *Launch::now;
    now.threads.warps[static_cast<size_t>(now.running->place.warp)].ordered = ++Launch::clock;
  };
  l.meet(nullptr, line, order);
}

void* const* warp_meeting(void* value, int line, void (*work)(void* const*)) {
  return Launch::now->meet(value, line, work);
}

}  // namespace gemtp::gpu
