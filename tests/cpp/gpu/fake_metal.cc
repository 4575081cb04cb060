// A stand-in for the Objective-C runtime and Metal, for tests: it exports the functions that gemtp
// loads, answers the messages that it sends, and runs the kernels on the emulated GPU. It says
// nothing about hardware. It keeps a sentence about whatever Apple's documentation forbids:
// messages that an object does not know, or that reach it when it is gone; references that are not
// given back; memory that the GPU may not reach, or that goes while it is used. What is committed
// is done later, by another thread. Launches between which nothing stands run in any order, and so
// do command buffers that no fence orders. And it fails on demand (fake_metal.h).
#include "fake_metal.h"

#include <unistd.h>

#include <cstring>
#include <deque>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "backend/gpu/emulated/kernels.h"
#include "backend/gpu/metal/kernel_source.h"
#include "backend/gpu/metal/runtime.h"
#include "base/error.h"
#include "stand_in.h"

namespace {

using namespace gemtp::gpu;
using metal::Size;
using metal::Version;

using Sel = const std::string*;

// ---- objects ----

struct Thing {
  explicit Thing(const char* k) : kind(k) {}
  virtual ~Thing() = default;
  const char* const kind;
  int references = 1;
  bool lasting = false;  // is never gone: the first reference is the system's
};

struct String : Thing {
  explicit String(std::string t) : Thing("NSString"), text(std::move(t)) {}
  const std::string text;
};
struct Array : Thing {
  Array() : Thing("NSArray") {}
  ~Array() override;
  std::vector<Thing*> elements;
};
struct ErrorOf : Thing {
  explicit ErrorOf(std::string t) : Thing("NSError"), text(std::move(t)) {}
  const std::string text;
};
struct Options : Thing {
  Options() : Thing("MTLCompileOptions") {}
  bool fast_math = true, precise = false;  // as they are unless something else is asked for
  uint64_t language = 0;
};
struct Library : Thing {
  explicit Library(std::string s) : Thing("MTLLibrary"), source(std::move(s)) {}
  const std::string source;
};
struct Function : Thing {
  explicit Function(const Kernel* k) : Thing("MTLFunction"), kernel(k) {}
  const Kernel* const kernel;
};
struct Pipeline : Thing {
  explicit Pipeline(const Kernel* k) : Thing("MTLComputePipelineState"), kernel(k) {}
  const Kernel* const kernel;
};
struct Buffer : Thing {
  Buffer() : Thing("MTLBuffer") {}
  ~Buffer() override;
  uint64_t base = 0, address = 0;  // address: kShift behind that of the emulated memory
  uint8_t* contents = nullptr;
  uint64_t bytes = 0;
};
struct Residency : Thing {
  Residency() : Thing("MTLResidencySet") {}
  ~Residency() override;
  std::set<Buffer*> staged, committed;
};
struct CommandBuffer;
struct Fence : Thing {
  Fence() : Thing("MTLFence") {}
  uint64_t number = 0;  // of the command buffer that updates it last
};
struct Dispatch {
  const Pipeline* pipeline;
  Buffer* arguments;
  uint64_t offset;
  Size grid;
};
struct Queue : Thing {
  Queue() : Thing("MTLCommandQueue"), worker([this] { work(); }) {}
  ~Queue() override;
  void work();
  std::deque<CommandBuffer*> committed;
  std::set<uint64_t> done;  // numbers of command buffers
  Residency* residency = nullptr;
  CommandBuffer* running = nullptr;
  uint64_t made = 0;
  int waiting = 0;
  bool lost = false, ending = false;
  std::thread worker;
};
struct Encoder : Thing {
  explicit Encoder(CommandBuffer& b) : Thing("MTLComputeCommandEncoder"), buffer(b) {}
  ~Encoder() override;
  CommandBuffer& buffer;
  bool ended = false, open_group = false;
  Pipeline* pipeline = nullptr;
  Buffer* arguments = nullptr;
  uint64_t offset = 0;
  Fence* fence = nullptr;  // to be updated when it ends
};
struct CommandBuffer : Thing {
  explicit CommandBuffer(Queue& q) : Thing("MTLCommandBuffer"), queue(q), number(++q.made) {}
  ~CommandBuffer() override;
  Queue& queue;
  const uint64_t number;
  std::vector<std::vector<Dispatch>> groups;  // between two barriers
  std::set<uint64_t> after;                   // numbers of command buffers whose fences it awaits
  std::set<Buffer*> used;                     // that are made resident for it, or bound
  Encoder* encoder = nullptr;                 // that has not ended
  uint64_t status = 0;
  ErrorOf* error = nullptr;
};

constexpr uint64_t kShift = 16;  // no address need be a multiple of more

struct World : StandIn {
  World()
      : StandIn("GEMTP_FAKE_METAL", {{"gpus", 1},
                                     {"memory", int64_t{4} << 30},
                                     {"macos", 15},
                                     {"family", 7},
                                     {"lanes", 32},
                                     {"threads", 1024},
                                     {"refuse_source", 0},
                                     {"fail_allocation", 0},
                                     {"fail_from", 0},
                                     {"lose_at", 0},
                                     {"slow", 0},
                                     {"lazy", 0}}) {}

  template <class T>
  T* add(T* thing) {
    things.insert(thing);
    return thing;
  }
  // One that is never gone, by its kind.
  Thing* lasting(const char* kind) {
    Thing*& found = all_lasting[kind];
    if (!found) {
      found = add(new Thing(kind));
      found->lasting = true;
    }
    return found;
  }

  const pid_t process = getpid();
  int64_t command_buffers = 0, libraries = 0;
  std::set<std::string> selectors;
  std::set<Thing*> things;
  std::map<std::string, Thing*> all_lasting;
  std::set<Buffer*> buffers;
  std::set<Queue*> queues;
  uint64_t used_memory = 0;
  std::mutex device_mutex;  // nothing else is locked behind it
  EmulatedDevice device{random()};
};

World& world() {
  static World* const one = new World();  // never destroyed: threads outlive main()
  return *one;
}

void release(Thing* thing) {
  World& w = world();
  if (!w.things.count(thing)) return w.complain("an object was released that is gone");
  if (--thing->references > 0) return;
  if (thing->lasting) return w.complain(std::string(thing->kind) + " was released too often");
  w.things.erase(thing);
  delete thing;
}
template <class T>
T* retain(T* thing) {
  ++thing->references;
  return thing;
}

using Pools = std::vector<std::vector<Thing*>>;
Pools& pools() { return of_thread<Pools>(); }

template <class T>
T* autoreleased(T* thing) {
  if (pools().empty())
    world().complain(std::string(thing->kind) + " was given to a thread that has no pool");
  else
    pools().back().push_back(thing);
  return thing;
}

Array::~Array() {
  for (Thing* t : elements) release(t);
}
Residency::~Residency() {
  for (Buffer* b : committed) release(b);
  for (Buffer* b : staged)
    if (!committed.count(b)) release(b);
}

bool in_use(const Buffer* buffer) {
  const auto uses = [&](const CommandBuffer* c) {
    return c && c->used.count(const_cast<Buffer*>(buffer));
  };
  for (const Queue* q : world().queues)
    if (uses(q->running) || std::any_of(q->committed.begin(), q->committed.end(), uses))
      return true;
  return false;
}
Buffer::~Buffer() {
  World& w = world();
  if (in_use(this)) w.complain("a buffer went that committed work uses");
  w.buffers.erase(this);
  w.used_memory -= bytes;
  const std::lock_guard lock(w.device_mutex);
  w.device.release(base);
}
Encoder::~Encoder() {
  if (!ended) world().complain("an encoder went that had not ended");
}
CommandBuffer::~CommandBuffer() {
  if (status && status < 4) world().complain("a command buffer went before it was done");
  if (error) release(error);
}

// ---- doing what was committed ----

const char* const kHang = "Caused GPU Hang Error (00000003:kIOGPUCommandBufferCallbackErrorHang)";

void lose(Queue& q) {
  q.lost = true;
  world().changed.notify_all();
}

// Launches that nothing orders run in any order.
std::string run(const CommandBuffer& buffer, uint64_t order) {
  World& w = world();
  std::mt19937_64 random(order);
  try {
    for (std::vector<Dispatch> group : buffer.groups) {
      std::shuffle(group.begin(), group.end(), random);
      for (const Dispatch& d : group) {
        const std::lock_guard lock(w.device_mutex);
        w.device.launch(*d.pipeline->kernel, static_cast<int>(d.grid.width),
                        static_cast<int>(d.grid.height), d.arguments->contents + d.offset);
      }
    }
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

void Queue::work() {
  World& w = world();
  std::unique_lock lock(w.mutex);
  for (;;) {
    std::vector<CommandBuffer*> ready;
    w.changed.wait(lock, [&] {
      ready.clear();
      for (CommandBuffer* b : committed)
        if (std::includes(done.begin(), done.end(), b->after.begin(), b->after.end()))
          ready.push_back(b);
      return ending || (!ready.empty() && (!w["lazy"] || waiting));
    });
    if (ending) return;
    running = ready[w.random() % ready.size()];
    std::erase(committed, running);
    std::string error = lost ? kHang : "";
    const auto pause = w["slow"] ? w.random() % static_cast<uint64_t>(w["slow"]) : 0;
    const uint64_t order = w.random();
    lock.unlock();
    if (pause) std::this_thread::sleep_for(std::chrono::microseconds(pause));
    std::string wrong;
    if (error.empty()) wrong = run(*running, order);
    lock.lock();
    if (!wrong.empty()) {
      w.complain(wrong);
      error = "Caused GPU Address Fault Error (0000000b:kIOGPUCommandBufferCallbackErrorPageFault)";
      lost = true;
    }
    if (error.empty() && lost) error = kHang;
    if (!error.empty()) running->error = w.add(new ErrorOf(error));
    running->status = error.empty() ? 4 : 5;
    done.insert(running->number);
    release(std::exchange(running, nullptr));
    w.changed.notify_all();
  }
}
Queue::~Queue() {
  World& w = world();
  if (!committed.empty() || running) w.complain("a queue went before its work was done");
  if (residency) release(residency);
  w.queues.erase(this);
  ending = true;
  w.changed.notify_all();
  w.mutex.unlock();  // the caller has locked it
  worker.join();
  w.mutex.lock();
}

// ---- what objects answer. The lock is held. ----

const char* text_of(String* s, Sel) { return s->text.c_str(); }
Thing* string(Thing*, Sel, const char* text) { return autoreleased(world().add(new String(text))); }
uint64_t count(Array* a, Sel) { return a->elements.size(); }
Thing* element(Array* a, Sel, uint64_t i) {
  if (i < a->elements.size()) return a->elements[i];
  world().complain("an array was asked for an element behind its last");
  return nullptr;
}
Thing* description(ErrorOf* e, Sel) { return autoreleased(world().add(new String(e->text))); }
Thing* process_info(Thing*, Sel) { return world().lasting("NSProcessInfo"); }
Thing* version_text(Thing*, Sel) {
  return string(nullptr, nullptr, ("Version " + std::to_string(world()["macos"])).c_str());
}
bool is_at_least(Thing*, Sel, Version v) {
  return std::pair<int64_t, int64_t>(world()["macos"], 0) >= std::pair(v.major, v.minor);
}

Thing* name(Thing*, Sel) { return autoreleased(world().add(new String("Stand-in"))); }
bool supports(Thing*, Sel, int64_t family) {
  const int64_t own = world()["family"];
  if (family == metal::kFamilyMetal3) return own >= 7;
  return family > 1000 && family <= 1000 + own;
}
uint64_t most_memory(Thing*, Sel) { return static_cast<uint64_t>(world()["memory"]); }
uint64_t used_memory(Thing*, Sel) { return world().used_memory; }

Thing* new_options(Thing*, Sel) { return world().add(new Options()); }
Thing* new_descriptor(Thing*, Sel) {
  return world().add(new Thing("MTLResidencySetDescriptor of one"));
}
Thing* new_queue(Thing*, Sel) {
  World& w = world();
  Queue* made = w.add(new Queue());
  w.queues.insert(made);
  return made;
}
Thing* new_fence(Thing*, Sel) { return world().add(new Fence()); }
Thing* new_residency(Thing*, Sel, Thing*, Thing**) { return world().add(new Residency()); }
Thing* new_buffer(Thing*, Sel, uint64_t bytes, uint64_t options) {
  World& w = world();
  if (!bytes || options != metal::kSharedUntracked) w.complain("a buffer of an unknown kind");
  if (w.fails_allocation() || w.used_memory + bytes > static_cast<uint64_t>(w["memory"]))
    return nullptr;
  auto* made = w.add(new Buffer());
  {
    const std::lock_guard lock(w.device_mutex);
    made->base = w.device.allocate(static_cast<int64_t>(bytes + kShift));
    made->contents = w.device.host_address(made->base) + kShift;
  }
  made->address = made->base + kShift;
  made->bytes = bytes;
  w.used_memory += bytes;
  w.buffers.insert(made);
  return made;
}
void* contents(Buffer* b, Sel) { return b->contents; }
uint64_t gpu_address(Buffer* b, Sel) { return b->address; }

// ---- kernels ----

void set_language(Options* o, Sel, uint64_t version) { o->language = version; }
void set_math(Options* o, Sel, int64_t mode) { o->fast_math = mode != 0; }
void set_functions(Options* o, Sel, int64_t functions) { o->precise = functions == 1; }
void set_fast_math(Options* o, Sel, bool enabled) {
  if (world()["macos"] >= 15) world().complain("setFastMathEnabled: is out of date");
  o->fast_math = enabled;
}
Thing* new_library(Thing*, Sel, String* source, Options* o, Thing** error) {
  World& w = world();
  if (o->fast_math || (w["macos"] >= 15 && !o->precise)) w.complain("mathematics are not exact");
  if (o->language != (3 << 16 | 1)) w.complain("no language version that macOS 14 knows");
  if (source->text.find("#pragma METAL fp contract(off)") == std::string::npos)
    w.complain("products and sums would be fused");
  if (w["refuse_source"]) {
    *error = autoreleased(w.add(new ErrorOf("program_source:1:1: error: as the stand-in says")));
    return nullptr;
  }
  ++w.libraries;
  return w.add(new Library(source->text));
}
Thing* new_function(Library* l, Sel, String* name) {
  const std::string kernel = name->text.substr(std::min<size_t>(6, name->text.size()));
  const std::string module = metal::module_of(kernel);
  const auto has = [&](const std::string& line) {
    return l->source.find("\n" + line + ",") != std::string::npos;
  };
  const Kernel* found = find_kernel(kernel);
  if (found && name->text.starts_with("gemtp_") &&
      (module == "common" ? has("GPU_KERNEL(" + kernel)
                          : has("GPU_QUANTIZED(" + module) || has("GPU_FLOATS(" + module)))
    return world().add(new Function(found));
  world().complain("a library has no function " + name->text);
  return nullptr;
}
Thing* new_pipeline(Thing*, Sel, Function* f, Thing**) {
  return world().add(new Pipeline(f->kernel));
}
uint64_t most_threads(Pipeline*, Sel) { return static_cast<uint64_t>(world()["threads"]); }
uint64_t lanes(Pipeline*, Sel) { return static_cast<uint64_t>(world()["lanes"]); }

// ---- residency ----

void add_allocation(Residency* r, Sel, Buffer* b) {
  if (r->staged.insert(b).second && !r->committed.count(b)) retain(b);
}
void remove_allocation(Residency* r, Sel, Buffer* b) {
  if (!r->staged.erase(b)) return world().complain("a buffer is not in the residency set");
  if (!r->committed.count(b)) release(b);
}
void commit_residency(Residency* r, Sel) {
  const std::set<Buffer*> before = std::exchange(r->committed, r->staged);
  for (Buffer* b : before)
    if (!r->committed.count(b)) release(b);
}
void add_residency(Queue* q, Sel, Residency* r) { q->residency = retain(r); }

// ---- command buffers ----

Thing* command_buffer(Queue* q, Sel) {
  ++world().command_buffers;
  return autoreleased(world().add(new CommandBuffer(*q)));
}
Thing* encoder(CommandBuffer* b, Sel, uint64_t type) {
  World& w = world();
  if (b->status) w.complain("a command buffer that is committed takes no encoder");
  if (b->encoder) w.complain("a command buffer has an encoder already");
  if (type != metal::kConcurrent) w.complain("an encoder of an unknown kind");
  b->encoder = autoreleased(w.add(new Encoder(*b)));
  return b->encoder;
}
void use(Encoder* e, Sel, Buffer* const* buffers, uint64_t n, uint64_t usage) {
  if (usage != metal::kReadWrite) world().complain("resources are used in an unknown way");
  e->buffer.used.insert(buffers, buffers + n);
}
void wait_for_fence(Encoder* e, Sel, Fence* f) {
  if (!f->number) return world().complain("a fence is awaited that nothing updates");
  e->buffer.after.insert(f->number);
}
void update_fence(Encoder* e, Sel, Fence* f) { e->fence = f; }
void set_pipeline(Encoder* e, Sel, Pipeline* p) { e->pipeline = p; }
void set_buffer(Encoder* e, Sel, Buffer* b, uint64_t offset, uint64_t index) {
  if (index != 0 || offset % 16 || offset >= b->bytes)
    world().complain("a buffer is bound where it cannot be");
  e->arguments = b;
  e->offset = offset;
  e->buffer.used.insert(b);
}
void barrier(Encoder* e, Sel, uint64_t scope) {
  if (scope != metal::kBuffers) world().complain("a barrier of an unknown scope");
  e->open_group = false;
}

// What is wrong with a launch; null if nothing is.
const char* wrong_dispatch(const Encoder& e, Size grid, Size threads) {
  if (e.ended) return "behind the end of its encoder";
  if (!e.pipeline || !e.arguments) return "without a pipeline or its arguments";
  const Kernel& k = *e.pipeline->kernel;
  if (!grid.width || !grid.height || grid.depth != 1 || grid.width > INT32_MAX ||
      grid.height > INT32_MAX)
    return "with a grid that is empty, or too large";
  if (threads.width != static_cast<uint64_t>(k.threads) || threads.height != 1 ||
      threads.depth != 1)
    return "with another block than the kernel's";
  if (k.shared_bytes > 32 << 10) return "of a kernel with too much shared memory";
  if (e.offset + k.argument_bytes > e.arguments->bytes) return "with arguments cut off";
  return nullptr;
}
void dispatch(Encoder* e, Sel, Size grid, Size threads) {
  World& w = world();
  ++w.launches;
  if (const char* wrong = wrong_dispatch(*e, grid, threads))
    return w.complain(std::string("a kernel is launched ") + wrong);
  auto& groups = e->buffer.groups;
  if (!std::exchange(e->open_group, true)) groups.emplace_back();
  groups.back().push_back({e->pipeline, e->arguments, e->offset, grid});
}
void end_encoding(Encoder* e, Sel) {
  if (std::exchange(e->ended, true)) world().complain("an encoder ends twice");
  e->buffer.encoder = nullptr;
  if (e->fence) e->fence->number = e->buffer.number;
}

// Arguments hold addresses: what they point to must be there for the GPU.
void check_resident(const CommandBuffer& b) {
  World& w = world();
  for (const auto& group : b.groups)
    for (const Dispatch& d : group)
      for (size_t at = 0; at + 8 <= d.pipeline->kernel->argument_bytes; at += 8) {
        uint64_t word = 0;
        std::memcpy(&word, d.arguments->contents + d.offset + at, 8);
        for (Buffer* buffer : w.buffers)
          if (word >= buffer->address && word < buffer->address + buffer->bytes &&
              !b.used.count(buffer))
            return w.complain(std::string(d.pipeline->kernel->name) +
                              " reaches memory that is not resident");
      }
}
void commit(CommandBuffer* b, Sel) {
  World& w = world();
  if (b->encoder) w.complain("a command buffer is committed before its encoder has ended");
  if (b->status) return w.complain("a command buffer is committed twice");
  if (const Residency* r = b->queue.residency)
    b->used.insert(r->committed.begin(), r->committed.end());
  check_resident(*b);
  b->status = 2;
  b->queue.committed.push_back(retain(b));
  w.changed.notify_all();
}
uint64_t status(CommandBuffer* b, Sel) { return b->status; }
Thing* error_of(CommandBuffer* b, Sel) { return b->error; }
void wait_until_completed(CommandBuffer* b, Sel) {
  World& w = world();
  if (!b->status) return w.complain("somebody waits for what is not committed");
  ++b->queue.waiting;
  w.changed.notify_all();
  std::unique_lock lock(w.mutex, std::adopt_lock);
  w.changed.wait(lock, [&] { return b->status >= 4; });
  lock.release();  // the caller unlocks it
  --b->queue.waiting;
}

// ---- the runtime ----

struct Method {
  void (*code)();
  int64_t since;  // macOS
};
template <auto kCode>
struct Locked;
template <class R, class... A, R (*kCode)(A...)>
struct Locked<kCode> {
  static R call(A... arguments) {
    const std::lock_guard lock(world().mutex);
    return kCode(arguments...);
  }
};
template <auto kCode>
Method method(int64_t since = 14) {
  return {reinterpret_cast<void (*)()>(Locked<kCode>::call), since};
}
bool responds(Thing* thing, Sel, Sel selector);

using Table = std::map<std::pair<std::string, std::string>, Method>;

const Table& methods() {
  static const Table all = {
      {{"class NSString", "stringWithUTF8String:"}, method<string>()},
      {{"NSString", "UTF8String"}, method<text_of>()},
      {{"NSArray", "count"}, method<count>()},
      {{"NSArray", "objectAtIndex:"}, method<element>()},
      {{"NSError", "localizedDescription"}, method<description>()},
      {{"class NSProcessInfo", "processInfo"}, method<process_info>()},
      {{"NSProcessInfo", "isOperatingSystemAtLeastVersion:"}, method<is_at_least>()},
      {{"NSProcessInfo", "operatingSystemVersionString"}, method<version_text>()},
      {{"class MTLCompileOptions", "new"}, method<new_options>()},
      {{"class MTLResidencySetDescriptor", "new"}, method<new_descriptor>(15)},
      {{"MTLDevice", "respondsToSelector:"}, method<responds>()},
      {{"MTLDevice", "name"}, method<name>()},
      {{"MTLDevice", "supportsFamily:"}, method<supports>()},
      {{"MTLDevice", "recommendedMaxWorkingSetSize"}, method<most_memory>()},
      {{"MTLDevice", "currentAllocatedSize"}, method<used_memory>()},
      {{"MTLDevice", "newCommandQueue"}, method<new_queue>()},
      {{"MTLDevice", "newFence"}, method<new_fence>()},
      {{"MTLDevice", "newBufferWithLength:options:"}, method<new_buffer>()},
      {{"MTLDevice", "newLibraryWithSource:options:error:"}, method<new_library>()},
      {{"MTLDevice", "newComputePipelineStateWithFunction:error:"}, method<new_pipeline>()},
      {{"MTLDevice", "newResidencySetWithDescriptor:error:"}, method<new_residency>(15)},
      {{"MTLCompileOptions", "respondsToSelector:"}, method<responds>()},
      {{"MTLCompileOptions", "setLanguageVersion:"}, method<set_language>()},
      {{"MTLCompileOptions", "setMathMode:"}, method<set_math>(15)},
      {{"MTLCompileOptions", "setMathFloatingPointFunctions:"}, method<set_functions>(15)},
      {{"MTLCompileOptions", "setFastMathEnabled:"}, method<set_fast_math>()},
      {{"MTLLibrary", "newFunctionWithName:"}, method<new_function>()},
      {{"MTLComputePipelineState", "maxTotalThreadsPerThreadgroup"}, method<most_threads>()},
      {{"MTLComputePipelineState", "threadExecutionWidth"}, method<lanes>()},
      {{"MTLBuffer", "contents"}, method<contents>()},
      {{"MTLBuffer", "gpuAddress"}, method<gpu_address>()},
      {{"MTLResidencySet", "addAllocation:"}, method<add_allocation>()},
      {{"MTLResidencySet", "removeAllocation:"}, method<remove_allocation>()},
      {{"MTLResidencySet", "commit"}, method<commit_residency>()},
      {{"MTLCommandQueue", "addResidencySet:"}, method<add_residency>(15)},
      {{"MTLCommandQueue", "commandBufferWithUnretainedReferences"}, method<command_buffer>()},
      {{"MTLCommandBuffer", "computeCommandEncoderWithDispatchType:"}, method<encoder>()},
      {{"MTLCommandBuffer", "commit"}, method<commit>()},
      {{"MTLCommandBuffer", "waitUntilCompleted"}, method<wait_until_completed>()},
      {{"MTLCommandBuffer", "status"}, method<status>()},
      {{"MTLCommandBuffer", "error"}, method<error_of>()},
      {{"MTLComputeCommandEncoder", "useResources:count:usage:"}, method<use>()},
      {{"MTLComputeCommandEncoder", "waitForFence:"}, method<wait_for_fence>()},
      {{"MTLComputeCommandEncoder", "updateFence:"}, method<update_fence>()},
      {{"MTLComputeCommandEncoder", "setComputePipelineState:"}, method<set_pipeline>()},
      {{"MTLComputeCommandEncoder", "setBuffer:offset:atIndex:"}, method<set_buffer>()},
      {{"MTLComputeCommandEncoder", "memoryBarrierWithScope:"}, method<barrier>()},
      {{"MTLComputeCommandEncoder", "dispatchThreadgroups:threadsPerThreadgroup:"},
       method<dispatch>()},
      {{"MTLComputeCommandEncoder", "endEncoding"}, method<end_encoding>()},
  };
  return all;
}

bool responds(Thing* thing, Sel, Sel selector) {
  const auto at = methods().find({thing->kind, *selector});
  return at != methods().end() && at->second.since <= world()["macos"];
}

uint64_t nothing(Thing*, Sel) { return 0; }  // what a message to nil gives

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// What objc_msgSend calls, to find the code of a message.
extern "C"
    __attribute__((visibility("hidden"))) void (*fake_metal_find(Thing* to, Sel selector))() {
  World& w = world();
  if (getpid() != w.process) std::abort();  // a child must not
  const auto nil = reinterpret_cast<void (*)()>(nothing);
  const std::lock_guard lock(w.mutex);
  ++w.calls;
  if (w["lose_at"] > 0 && --w["lose_at"] == 0)
    for (Queue* q : w.queues) lose(*q);
  if (!to) return nil;
  if (!w.things.count(to)) {
    w.complain(*selector + " was sent to an object that is gone");
    return nil;
  }
  if (!responds(to, nullptr, selector)) {
    w.complain(std::string(to->kind) + " does not know " + *selector);
    return nil;
  }
  return methods().at({to->kind, *selector}).code;
}

// Leaves all arguments where they are.
#if defined(__x86_64__)
asm(R"(
  .text
  .globl objc_msgSend
  .type objc_msgSend, @function
objc_msgSend:
  endbr64
  pushq %rbp
  movq %rsp, %rbp
  pushq %rdi
  pushq %rsi
  pushq %rdx
  pushq %rcx
  pushq %r8
  pushq %r9
  call fake_metal_find
  popq %r9
  popq %r8
  popq %rcx
  popq %rdx
  popq %rsi
  popq %rdi
  popq %rbp
  jmp *%rax
  .size objc_msgSend, . - objc_msgSend
)");
#elif defined(__aarch64__)
asm(R"(
  .text
  .globl objc_msgSend
  .type objc_msgSend, %function
objc_msgSend:
  stp x29, x30, [sp, #-80]!
  stp x0, x1, [sp, #16]
  stp x2, x3, [sp, #32]
  stp x4, x5, [sp, #48]
  stp x6, x7, [sp, #64]
  bl fake_metal_find
  mov x16, x0
  ldp x0, x1, [sp, #16]
  ldp x2, x3, [sp, #32]
  ldp x4, x5, [sp, #48]
  ldp x6, x7, [sp, #64]
  ldp x29, x30, [sp], #80
  br x16
  .size objc_msgSend, . - objc_msgSend
)");
#endif

EXPORT Thing* objc_getClass(const char* name) {
  World& w = world();
  const std::lock_guard lock(w.mutex);
  const std::string kind = std::string("class ") + name;
  for (const auto& [key, method] : methods())
    if (key.first == kind && method.since <= w["macos"])
      return w.lasting(w.selectors.insert(kind).first->c_str());
  return nullptr;
}
EXPORT Sel sel_registerName(const char* name) {
  World& w = world();
  const std::lock_guard lock(w.mutex);
  return &*w.selectors.insert(name).first;
}
EXPORT Thing* objc_retain(Thing* thing) {
  World& w = world();
  const std::lock_guard lock(w.mutex);
  if (w.things.count(thing)) return retain(thing);
  w.complain("an object was retained that is gone");
  return thing;
}
EXPORT void objc_release(Thing* thing) {
  const std::lock_guard lock(world().mutex);
  release(thing);
}
EXPORT void* objc_autoreleasePoolPush() {
  pools().emplace_back();
  return reinterpret_cast<void*>(pools().size());
}
EXPORT void objc_autoreleasePoolPop(void* pool) {
  const std::lock_guard lock(world().mutex);
  if (reinterpret_cast<size_t>(pool) != pools().size())
    return world().complain("a pool ends that is not the innermost");
  for (Thing* thing : pools().back()) release(thing);
  pools().pop_back();
}
EXPORT Thing* MTLCopyAllDevices() {
  World& w = world();
  const std::lock_guard lock(w.mutex);
  auto* all = w.add(new Array());
  if (w["gpus"]) all->elements.push_back(retain(w.lasting("MTLDevice")));
  return all;
}

// ---- controls ----

EXPORT int fake_metal_set(const char* name, int64_t value) { return world().set(name, value); }

EXPORT int64_t fake_metal_get(const char* name) {
  World& w = world();
  const std::lock_guard lock(w.mutex);
  int64_t live = 0;
  for (const Thing* t : w.things) live += t->lasting ? t->references - 1 : 1;
  const StandIn::Numbers counts = {
      {"calls", w.calls},           {"allocations", w.allocations},
      {"launches", w.launches},     {"command_buffers", w.command_buffers},
      {"libraries", w.libraries},   {"live", live},
      {"complaints", w.complaints},
  };
  const auto at = counts.find(name);
  return at == counts.end() ? -1 : at->second;
}

EXPORT const char* fake_metal_complaint(void) { return world().take_complaint(); }
