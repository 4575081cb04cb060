#include "backend/gpu/metal/metal_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "backend/gpu/address.h"
#include "backend/gpu/device_errors.h"
#include "backend/gpu/kernels/arguments.h"
#include "backend/gpu/metal/pipelines.h"
#include "backend/gpu/metal/runtime.h"
#include "base/fork.h"

namespace gemtp::gpu {
namespace {

using namespace metal;

constexpr Version kOldestSystem = {14, 0, 0};
constexpr uint64_t kAlignment = 256;        // of addresses, and of arguments
constexpr uint64_t kChunkBytes = 64 << 10;  // of arguments of a command buffer

uint64_t aligned(uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

// What metal_gpu() and a device know of a GPU before it is opened.
struct Found {
  Owned device;
  std::string name;
  int64_t memory = 0;
};

// Throws for a system that is too old, and where there is no GPU that can be used.
Found find_usable() {
  const Runtime& r = runtime();
  const Pool pool;
  if (!r.is_at_least(r.process_info(r.find_class("NSProcessInfo")), kOldestSystem))
    throw Error(
        ErrorKind::kDevice,
        "this macOS is too old: gemtp needs Metal as macOS 14 has it; update the system, or "
        "use the device cpu");
  const Owned all(r.copy_devices());
  const uint64_t count = r.count(all);
  if (count == 0) throw Error(ErrorKind::kArgument, "Metal finds no GPU here; use the device cpu");
  for (uint64_t i = 0; i < count; ++i) {
    const Id device = r.element(all, i);
    if (r.supports(device, kFamilyApple7) && r.supports(device, kFamilyMetal3))
      return {Owned::retained(device), r.text_of(r.name(device)),
              static_cast<int64_t>(r.most_memory(device))};
  }
  throw Error(ErrorKind::kDevice,
              format("metal (%s) is no GPU that gemtp has kernels for: they are for Apple's own, "
                     "from M1 on; use the device cpu",
                     r.text_of(r.name(r.element(all, 0))).c_str()));
}

// Memory that the host and the GPU share.
struct Block {
  Owned buffer;
  uint64_t offset = 0;  // in the buffer: Metal promises no alignment
  uint64_t address = 0;
  uint8_t* host = nullptr;
  int64_t bytes = 0;
  uint64_t released = UINT64_MAX;  // when as many command buffers had been begun
};

// A launch as it is encoded; a copy, if `bytes` is not 0, is one of the kernel "copy".
struct Step {
  Id pipeline;
  Size grid, threads;
  uint64_t arguments;  // where they lie in their buffer
  void* to = nullptr;  // of a copy to the device
  const void* from = nullptr;
  int64_t bytes = 0;
};

class MetalDevice : public GpuDevice {
 public:
  explicit MetalDevice(Found found)
      : r_(runtime()),
        device_(std::move(found.device)),
        where_("metal (" + found.name + ")"),
        forks_(fork_count()),
        pipelines_(device_, where_) {
    open();
  }
  ~MetalDevice() override {
    if (forked()) {
      abandon();
      return;
    }
    const Pool pool;
    if (open_) submit();
    for (const Submission& s : submitted_) r_.wait(s.buffer);
  }

  std::string name() const override { return "metal"; }
  std::string identity() const override {  // the driver is part of the system
    const Pool pool;
    const Id system = r_.version_text(r_.process_info(r_.find_class("NSProcessInfo")));
    return where_ + ", macOS " + r_.text_of(system);
  }

  Memory memory() const override {
    refuse_lost();
    const Pool pool;
    return current_memory();
  }

  uint64_t allocate(int64_t bytes) override { return allocate_block(bytes, "its memory").address; }
  void release(uint64_t address) override {
    release([&] { return blocks_.find(address); });
  }
  void* allocate_host(int64_t bytes) override {
    return allocate_block(bytes, "host memory for it").host;
  }
  void release_host(void* host) override {
    release([&] { return block_of(host); });
  }

  void write(uint64_t to, const void* from, int64_t bytes) override {
    if (bytes <= 0) return;
    wait();
    std::memcpy(host_of(to, bytes), from, static_cast<size_t>(bytes));
  }
  void read(uint64_t from, void* to, int64_t bytes) override {
    if (bytes <= 0) return;
    wait();
    std::memcpy(to, host_of(from, bytes), static_cast<size_t>(bytes));
  }

  void send(uint64_t to, const void* from, int64_t bytes) override {
    if (bytes > 0) copy(address_of(from, bytes), to, from, host_of(to, bytes), bytes);
  }
  void fetch(uint64_t from, void* to, int64_t bytes) override {
    if (bytes > 0) copy(from, address_of(to, bytes), nullptr, nullptr, bytes);
  }

  void launch(const std::string& kernel, int64_t blocks, int64_t rows, const void* arguments,
              int64_t bytes) override {
    refuse_lost();
    const Pool pool;
    add(step_of(kernel, blocks, rows, bytes), arguments, bytes);
  }

  void wait() override {
    refuse_lost();
    const Pool pool;
    synchronize();
  }

  void begin_recording() override {
    GEMTP_ASSERT(!recording_);
    refuse_lost();
    recording_ = std::make_unique<MetalRecording>(*this);
  }
  std::unique_ptr<Recording> end_recording() override {
    auto made = std::move(recording_);
    refuse_lost();
    const Pool pool;
    const auto bytes = static_cast<int64_t>(made->arguments.size());
    made->block = allocate_block(std::max<int64_t>(bytes, 1), "a recording").host;
    std::memcpy(made->block, made->arguments.data(), made->arguments.size());
    return made;
  }
  void repeat(Recording& recording) override {
    GEMTP_ASSERT(!recording_);
    refuse_lost();
    const Pool pool;
    const auto& recorded = static_cast<MetalRecording&>(recording);
    const std::lock_guard<std::mutex> lock(mutex_);
    const Block& arguments = block_of(recorded.block)->second;
    for (const Step& step : recorded.steps)
      if (!copied_at_once(step)) encode(step, arguments);
  }

  // As in metal/gpu.h.
  int64_t quant_bytes() const override { return 4; }

 private:
  // Steps, with their arguments in memory of the device.
  struct MetalRecording : Recording {
    explicit MetalRecording(MetalDevice& of) : device(of) {}
    ~MetalRecording() override {
      if (block) device.release_host(block);
    }
    MetalDevice& device;
    std::vector<Step> steps;
    std::vector<uint8_t> arguments;
    void* block = nullptr;
  };

  // A command buffer with one encoder, and the arguments of its launches.
  struct Submission {
    uint64_t number = 0;
    Owned buffer, encoder;
    Block arguments;
    uint64_t used = 0;  // bytes of them
    bool begun = false;
  };

  using Blocks = std::map<uint64_t, Block>;

  void open() {
    const Pool pool;
    queue_ = Owned(must(r_.new_queue(device_), "newCommandQueue"));
    fence_ = Owned(must(r_.new_fence(device_), "newFence"));
    // Kernels reach memory by its address, so that Metal has to be told what must be there: once,
    // since macOS 15.
    if (!r_.responds(device_, r_.new_residency.selector)) return;
    const Owned descriptor(r_.make(r_.find_class("MTLResidencySetDescriptor")));
    Id error = nullptr;
    residency_ = Owned(r_.new_residency(device_, descriptor, &error));
    if (!residency_) fail(r_.text_of_error(error));
    r_.add_residency(queue_, residency_);
  }

  // ---- errors ----

  bool forked() const { return fork_count() != forks_; }

  // In a child nothing of this can be called: it is left as it is.
  void abandon() {
    for (Owned* o : {&device_, &queue_, &fence_, &residency_}) o->abandon();
    for (auto& [address, block] : blocks_) block.buffer.abandon();
    for (Block& chunk : chunks_) chunk.buffer.abandon();
    pipelines_.abandon();
    for (Submission& s : submitted_) abandon(s);
    if (open_) abandon(*open_);
  }
  static void abandon(Submission& s) {
    s.buffer.abandon();
    s.encoder.abandon();
    s.arguments.buffer.abandon();
  }

  void refuse_lost() const {
    if (forked()) throw used_in_child(where_);
    const std::lock_guard<std::mutex> lock(failure_mutex_);
    if (!failure_.empty()) throw Error(ErrorKind::kDevice, failure_);
  }

  [[noreturn]] void fail(const std::string& why) const {
    const std::lock_guard<std::mutex> lock(failure_mutex_);
    if (failure_.empty()) failure_ = failure_of(where_, why);
    throw Error(ErrorKind::kDevice, failure_);
  }

  Id must(Id made, const char* selector) const {
    if (!made) fail(std::string(selector) + " gives nothing");
    return made;
  }

  // ---- memory ----

  Memory current_memory() const {
    const auto total = static_cast<int64_t>(r_.most_memory(device_));
    return {std::max<int64_t>(0, total - static_cast<int64_t>(r_.used_memory(device_))), total};
  }

  // Of no buffer where there is no room.
  Block new_block(int64_t bytes) const {
    Block out;
    const uint64_t room = aligned(static_cast<uint64_t>(bytes)) + kAlignment;
    if (current_memory().free >= static_cast<int64_t>(room))
      out.buffer = Owned(r_.new_buffer(device_, room, kSharedUntracked));
    if (!out.buffer) return out;
    const uint64_t begin = r_.gpu_address(out.buffer);
    out.address = aligned(begin);
    out.offset = out.address - begin;
    out.host = static_cast<uint8_t*>(r_.contents(out.buffer)) + out.offset;
    out.bytes = bytes;
    return out;
  }

  const Block& allocate_block(int64_t bytes, const char* what) {
    refuse_lost();
    const Pool pool;
    Block made = new_block(bytes);
    if (!made.buffer) {  // what was released and is still in use may suffice
      synchronize();
      made = new_block(bytes);
    }
    if (!made.buffer) throw no_room(where_, what, bytes, current_memory());
    const std::lock_guard<std::mutex> lock(mutex_);
    if (residency_) {
      r_.add_allocation(residency_, made.buffer);
      residents_changed_ = true;
    } else if (open_) {
      use({made.buffer});
    }
    addresses_[made.host] = made.address;
    return blocks_[made.address] = std::move(made);
  }

  // Called by destructors.
  template <class Find>
  void release(const Find& find) noexcept {
    if (forked()) return;
    const Pool pool;
    const std::lock_guard<std::mutex> lock(mutex_);
    find()->second.released = begun_;
    some_released_ = true;
    free_unused();
  }
  // Frees what was released and what no command buffer uses any more.
  void free_unused() {
    if (!some_released_) return;
    some_released_ = false;
    for (auto at = blocks_.begin(); at != blocks_.end();) {
      Block& block = at->second;
      const bool unused = block.released <= completed_;
      some_released_ = some_released_ || (!unused && block.released != UINT64_MAX);
      if (unused && residency_) r_.remove_allocation(residency_, block.buffer);
      residents_changed_ = residents_changed_ || unused;
      if (unused) addresses_.erase(block.host);
      at = unused ? blocks_.erase(at) : std::next(at);
    }
    commit_residents();
  }

  // A residency set keeps what was taken out of it until then.
  void commit_residents() {
    if (residency_ && residents_changed_) r_.commit(residency_);
    residents_changed_ = false;
  }
  void use(const std::vector<Id>& buffers) {
    r_.use(open_->encoder, buffers.data(), buffers.size(), kReadWrite);
  }

  // The block that begins at an address, or lies before it.
  template <class Map, class At>
  static auto before(Map& map, At at) {
    auto it = map.upper_bound(at);
    GEMTP_ASSERT(it != map.begin());
    return --it;
  }
  Blocks::iterator block_of(const void* host) {
    return blocks_.find(before(addresses_, static_cast<const uint8_t*>(host))->second);
  }
  uint8_t* host_of(uint64_t address, int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Block& block = before(blocks_, address)->second;
    const uint64_t offset = address - block.address;
    GEMTP_ASSERT(offset + static_cast<uint64_t>(bytes) <= static_cast<uint64_t>(block.bytes));
    return block.host + offset;
  }
  uint64_t address_of(const void* host, int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Block& block = block_of(host)->second;
    const int64_t offset = static_cast<const uint8_t*>(host) - block.host;
    GEMTP_ASSERT(offset + bytes <= block.bytes);
    return block.address + static_cast<uint64_t>(offset);
  }

  // ---- work ----

  Step step_of(const std::string& kernel, int64_t blocks, int64_t rows, int64_t bytes) {
    const Pipeline& p = pipelines_.of(kernel);
    GEMTP_ASSERT(p.argument_bytes == bytes && blocks <= INT32_MAX && rows <= INT32_MAX);
    return {p.state,
            {static_cast<uint64_t>(blocks), static_cast<uint64_t>(rows), 1},
            {static_cast<uint64_t>(p.threads), 1, 1},
            0};
  }

  // A copy is a launch, too: one of another kind would need an encoder of its own.
  void copy(uint64_t from, uint64_t to, const void* host, void* shared, int64_t bytes) {
    GEMTP_ASSERT(bytes % 4 == 0 && bytes / 4 <= INT32_MAX);
    refuse_lost();
    const Pool pool;
    ElementsArguments a{};
    a.x = Global<const float>(from);
    a.y = Global<float>(to);
    a.n = static_cast<int32_t>(bytes / 4);
    Step step = step_of("copy", (a.n + 255) / 256, 1, sizeof a);
    step.from = host;
    step.to = shared;
    step.bytes = host ? bytes : 0;
    add(step, &a, sizeof a);
  }

  // Records a step, or enqueues it.
  void add(Step step, const void* arguments, int64_t bytes) {
    const auto size = static_cast<size_t>(bytes);
    if (recording_) {
      std::vector<uint8_t>& all = recording_->arguments;
      step.arguments = all.size();
      all.resize(aligned(all.size() + size));
      std::memcpy(all.data() + step.arguments, arguments, size);
      recording_->steps.push_back(step);
      return;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (copied_at_once(step)) return;
    if (open_ && open_->used + size > kChunkBytes) submit();
    begin();
    step.arguments = open_->used;
    std::memcpy(open_->arguments.host + open_->used, arguments, size);
    open_->used = aligned(open_->used + size);
    encode(step, open_->arguments);
  }

  // The memory is the host's, too: as long as the GPU has nothing to do, it need not copy.
  bool copied_at_once(const Step& step) const {
    if (step.bytes == 0 || completed_ != begun_) return false;
    std::memcpy(step.to, step.from, static_cast<size_t>(step.bytes));
    return true;
  }

  // Opens a command buffer, unless one is open.
  void begin() {
    if (open_) return;
    auto made = std::make_unique<Submission>();
    if (chunks_.empty()) {
      made->arguments = new_block(kChunkBytes);
      if (!made->arguments.buffer)
        throw no_room(where_, "its memory", kChunkBytes, current_memory());
    } else {
      made->arguments = std::move(chunks_.back());
      chunks_.pop_back();
    }
    // Whatever is released stays until the command buffer is done, without its help.
    made->buffer = Owned::retained(must(r_.command_buffer(queue_), "a command buffer"));
    made->encoder = Owned::retained(must(r_.encoder(made->buffer, kConcurrent), "an encoder"));
    if (begun_) r_.wait_for_fence(made->encoder, fence_);
    made->number = ++begun_;
    open_ = std::move(made);
    if (residency_ || blocks_.empty()) return;
    std::vector<Id> all;
    for (const auto& [address, block] : blocks_)
      if (block.released == UINT64_MAX) all.push_back(block.buffer);
    use(all);
  }

  // What the backend enqueues is done in order. Which memory a launch writes stands in arguments
  // that Metal does not know; so a barrier that holds for all of it is before each.
  void encode(const Step& step, const Block& arguments) {
    begin();
    const Id encoder = open_->encoder;
    if (open_->begun) r_.barrier(encoder, kBuffers);
    open_->begun = true;
    r_.set_pipeline(encoder, step.pipeline);
    r_.set_buffer(encoder, arguments.buffer, arguments.offset + step.arguments, 0);
    r_.dispatch(encoder, step.grid, step.threads);
  }

  // Gives the open command buffer to the GPU.
  void submit() {
    Submission& s = *open_;
    commit_residents();
    if (residency_ && some_released_)  // what is still in the set is used by this one, too
      for (auto& [address, block] : blocks_)
        if (block.released != UINT64_MAX) block.released = s.number;
    r_.update_fence(s.encoder, fence_);
    r_.end_encoding(s.encoder);
    r_.commit(s.buffer);
    submitted_.push_back(std::move(s));
    open_.reset();
  }

  // Waits for all work that has been enqueued, then frees what it used.
  void synchronize() {
    std::vector<std::pair<uint64_t, Owned>> all;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (open_) submit();
      for (const Submission& s : submitted_) all.emplace_back(s.number, Owned::retained(s.buffer));
    }
    for (const auto& [number, buffer] : all) {
      r_.wait(buffer);
      if (r_.status(buffer) != kCompleted) fail(r_.text_of_error(r_.error(buffer)));
      const std::lock_guard<std::mutex> lock(mutex_);
      finish(number);
    }
  }

  void finish(uint64_t number) {
    completed_ = std::max(completed_, number);
    while (!submitted_.empty() && submitted_.front().number <= completed_) {
      chunks_.push_back(std::move(submitted_.front().arguments));
      submitted_.pop_front();
    }
    free_unused();
  }

  const Runtime& r_;
  Owned device_, queue_, fence_;
  Owned residency_;  // none before macOS 15
  const std::string where_;
  const uint32_t forks_;
  Pipelines pipelines_;
  std::unique_ptr<MetalRecording> recording_;

  mutable std::mutex mutex_;
  Blocks blocks_;                                 // by address
  std::map<const uint8_t*, uint64_t> addresses_;  // of blocks, by where the host has them
  bool some_released_ = false;                    // blocks that are still in use
  bool residents_changed_ = false;                // since they were committed
  std::unique_ptr<Submission> open_;
  std::deque<Submission> submitted_;
  std::vector<Block> chunks_;           // for arguments, unused
  uint64_t begun_ = 0, completed_ = 0;  // command buffers
  mutable std::mutex failure_mutex_;
  mutable std::string failure_;  // what ended the device
};

}  // namespace

bool metal_may_be_here() {
#ifdef __APPLE__
  return true;
#else
  return std::getenv("GEMTP_METAL_RUNTIME");
#endif
}

std::string metal_gpu() {
  const Found gpu = find_usable();
  return format("%s, %.1f GB", gpu.name.c_str(), gigabytes(gpu.memory));
}

void check_metal_gpu() { static_cast<void>(find_usable()); }

std::unique_ptr<GpuDevice> make_metal_device() {
  return std::make_unique<MetalDevice>(find_usable());
}

}  // namespace gemtp::gpu
