// A stand-in for NVIDIA's driver, for tests: it exports the functions that gemtp loads from
// libcuda.so.1, and runs the kernels on the emulated GPU. It says nothing about hardware. It
// refuses what the driver's manual forbids, and keeps a sentence about it; what is enqueued is
// really done later, by another thread; and it fails on demand (fake_cuda.h).
#include "fake_cuda.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "backend/gpu/cuda/driver.h"
#include "backend/gpu/emulated/kernels.h"
#include "base/error.h"
#include "stand_in.h"

namespace {

using namespace gemtp::gpu;
using namespace gemtp::gpu::cuda;

constexpr Result kInvalidContext = 201, kNotFound = 500, kIllegalAddress = 700, kLaunchFailed = 719,
                 kInvalidDevice = 101;

// ---- work ----

struct KernelCall {
  const Kernel* kernel;
  int blocks, rows, first_row;
  std::vector<uint8_t> arguments;
};
struct CopyCall {
  bool to_device;
  Address device;
  uint8_t* host;
  size_t bytes;
  std::vector<uint8_t> kept;  // of memory that is not pinned: what was there at the call
};
using Call = std::variant<KernelCall, CopyCall>;

struct Node {
  Call call;
  std::vector<size_t> before;
};
using Nodes = std::vector<Node>;

using Work = std::shared_ptr<const Nodes>;  // one, or those of a graph

// The kernels know no first row: it is added to the place.
struct Shifted {
  static inline const Kernel* kernel = nullptr;
  static inline int first_row = 0;
  static void run(const void* arguments, void* shared, const Place& place) {
    Place at = place;
    at.row += first_row;
    kernel->run(arguments, shared, at);
  }
};

// ---- objects ----

struct Gpu;
struct StreamOf {
  Gpu& gpu;
  std::deque<Work> queue = {};
  Work running = nullptr;
  int waiting = 0;
  bool ending = false;
  std::thread worker = {};
};
struct GraphOf {
  std::shared_ptr<Nodes> nodes = std::make_shared<Nodes>();
};

// A GPU's primary context.
struct Gpu {
  int ordinal = 0, references = 0;
  Result lost = kSuccess;
  std::unique_ptr<EmulatedDevice> device;
  std::mutex device_mutex;  // nothing else is locked behind it
  std::map<Address, size_t> memory;
  std::map<uint8_t*, size_t> host;
  int64_t used = 0;
  std::set<StreamOf*> streams;
  std::set<void*> modules;
  std::map<void*, std::pair<void*, const Kernel*>> functions;  // with their modules
  std::set<GraphOf*> graphs;
  std::map<void*, std::pair<GraphOf*, size_t>> nodes;  // with their places
  std::set<Work*> execs;

  int64_t live() const {
    return static_cast<int64_t>(memory.size() + host.size() + streams.size() + modules.size() +
                                graphs.size() + execs.size());
  }
};

constexpr int kMostGpus = 8;

// Never destroyed: threads outlive main().
struct World : StandIn {
  Gpu gpus[kMostGpus];
  pid_t process = 0;  // that called cuInit
  int64_t graph_launches = 0, modules_loaded = 0;

  World()
      : StandIn("GEMTP_FAKE_CUDA", {{"gpus", 1},
                                    {"memory", int64_t{4} << 30},
                                    {"capability", 89},
                                    {"version", 12080},
                                    {"init", 0},
                                    {"fail_allocation", 0},
                                    {"fail_from", 0},
                                    {"lose_at", 0},
                                    {"lose_with", 719},
                                    {"stays_lost", 0},
                                    {"refuse_code", 0},
                                    {"taken", 0},
                                    {"slow", 0},
                                    {"lazy", 0}}) {
    for (int i = 0; i < kMostGpus; ++i) gpus[i].ordinal = i;
  }
};

World& world() {
  static World* const one = new World();
  return *one;
}

std::vector<Gpu*>& stack() { return of_thread<std::vector<Gpu*>>(); }  // of current contexts

void lose(Gpu& gpu, Result with) {
  gpu.lost = with;
  for (StreamOf* s : gpu.streams) s->queue.clear();
  world().changed.notify_all();
}

// ---- doing what was enqueued ----

void run(Gpu& gpu, const Call& call) {
  const std::lock_guard lock(gpu.device_mutex);
  if (const auto* c = std::get_if<CopyCall>(&call)) {
    if (c->to_device)
      gpu.device->write(c->device, c->kept.empty() ? c->host : c->kept.data(),
                        static_cast<int64_t>(c->bytes));
    else
      gpu.device->read(c->device, c->host, static_cast<int64_t>(c->bytes));
    return;
  }
  const auto& k = std::get<KernelCall>(call);
  static std::mutex one_at_a_time;
  const std::lock_guard alone(one_at_a_time);
  Shifted::kernel = k.kernel;
  Shifted::first_row = k.first_row;
  Kernel shifted = *k.kernel;
  shifted.run = Shifted::run;
  gpu.device->launch(shifted, k.blocks, k.rows, k.arguments.data());
}

// Any order that the edges of a graph allow.
std::vector<size_t> order_of(const Nodes& nodes, std::mt19937_64& random) {
  std::vector<size_t> order, ready;
  std::vector<size_t> left(nodes.size());
  std::vector<std::vector<size_t>> after(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    left[i] = nodes[i].before.size();
    for (const size_t b : nodes[i].before) after[b].push_back(i);
    if (!left[i]) ready.push_back(i);
  }
  while (!ready.empty()) {
    std::swap(ready[random() % ready.size()], ready.back());
    const size_t i = ready.back();
    ready.pop_back();
    order.push_back(i);
    for (const size_t a : after[i])
      if (--left[a] == 0) ready.push_back(a);
  }
  return order;
}

void work(StreamOf& stream) {
  World& w = world();
  std::unique_lock lock(w.mutex);
  for (;;) {
    w.changed.wait(lock, [&] {
      return stream.ending || (!stream.queue.empty() && (!w["lazy"] || stream.waiting));
    });
    if (stream.ending) return;
    const Work next = std::move(stream.queue.front());
    stream.queue.pop_front();
    stream.running = next;
    const auto pause = w["slow"] ? w.random() % static_cast<uint64_t>(w["slow"]) : 0;
    const std::vector<size_t> order = order_of(*next, w.random);
    lock.unlock();
    if (pause) std::this_thread::sleep_for(std::chrono::microseconds(pause));
    std::string error;
    try {
      for (const size_t i : order) run(stream.gpu, (*next)[i].call);
    } catch (const std::exception& e) {
      error = e.what();
    }
    lock.lock();
    stream.running = nullptr;
    if (!error.empty()) {
      w.complain(error);
      lose(stream.gpu, kIllegalAddress);
    }
    w.changed.notify_all();
  }
}

// ---- what a call begins with ----

enum class Needs { kNothing, kInit, kContext };

// Counts the call, and gives the error that it must end with, if any. A call that destroys
// something works on a GPU that is lost, too, as far as this library is concerned.
class Entry {
 public:
  explicit Entry(const char* function, Needs needs = Needs::kContext)
      : function_(function), lock_(w.mutex) {
    if (w.process && w.process != getpid()) {
      result = kNotInitialized;
      return;
    }
    ++w.calls;
    if (needs == Needs::kNothing) return;
    if (!w.process) {
      result = complain(kNotInitialized, "before cuInit");
      return;
    }
    if (w["lose_at"] > 0 && --w["lose_at"] == 0)
      for (Gpu& g : w.gpus)
        if (g.references) lose(g, static_cast<Result>(w["lose_with"]));
    if (needs == Needs::kInit) return;
    if (stack().empty() || !stack().back()->references) {
      result = complain(kInvalidContext, "without a context");
      return;
    }
    gpu = stack().back();
    result = gpu->lost;
  }

  Result complain(Result with, const std::string& what) {
    w.complain(std::string(function_) + " was called " + what);
    return with;
  }
  // Waits for all that is enqueued on a stream.
  void wait(StreamOf& s) {
    ++s.waiting;
    w.changed.notify_all();
    w.changed.wait(lock_, [&] { return s.queue.empty() && !s.running; });
    --s.waiting;
  }
  // With the lock given up.
  template <class F>
  void unlocked(const F& f) {
    lock_.unlock();
    f();
    lock_.lock();
  }

  World& w = world();
  Gpu* gpu = nullptr;
  Result result = kSuccess;

 private:
  const char* function_;
  std::unique_lock<std::mutex> lock_;
};

#define ENTER(...)                              \
  Entry e(__func__ __VA_OPT__(, ) __VA_ARGS__); \
  if (e.result != kSuccess) return e.result

template <class T>
StreamOf* stream_of(const Entry& e, T handle) {
  auto* s = reinterpret_cast<StreamOf*>(handle);
  return e.gpu->streams.count(s) ? s : nullptr;
}

// ---- arguments ----

// Whether [at, at + n) lies in one of the allocations; inside says whether it begins in one.
template <class Map, class At>
bool holds(const Map& all, At at, size_t n, bool* inside = nullptr) {
  auto it = all.upper_bound(at);
  const bool begins = it != all.begin() && at < (--it)->first + it->second;
  if (inside) *inside = begins;
  return begins && at + n <= it->first + it->second;
}

// Null, or why a copy is wrong.
const char* wrong_copy(const Gpu& g, Address device, const uint8_t* host, size_t n, bool* pinned) {
  if (!holds(g.memory, device, n)) return "for memory of the GPU that is not allocated";
  auto* at = const_cast<uint8_t*>(host);
  if (!holds(g.host, at, n, pinned) && *pinned) return "for bytes behind pinned memory";
  return nullptr;
}

// Null, or why a launch is wrong; fills the call.
const char* wrong_launch(const Gpu& g, const KernelNode& p, KernelCall* call) {
  const auto f = g.functions.find(p.function);
  if (f == g.functions.end() || !g.modules.count(f->second.first)) return "with no function";
  const Kernel& k = *f->second.second;
  if (p.grid_x < 1 || p.grid_y < 1 || p.grid_z < 1 || p.grid_x > 0x7fffffffu || p.grid_y > 65535 ||
      p.grid_z > 65535)
    return "with a grid that is too large, or empty";
  if (p.grid_z != 1 || p.block_y != 1 || p.block_z != 1 || p.shared_bytes || p.extra ||
      p.block_x != static_cast<unsigned>(k.threads))
    return "with another block than the kernel's";
  if (!p.parameters) return "without parameters";
  call->kernel = &k;
  call->blocks = static_cast<int>(p.grid_x);
  call->rows = static_cast<int>(p.grid_y);
  const auto* bytes = static_cast<const uint8_t*>(p.parameters[0]);
  call->arguments.assign(bytes, bytes + k.argument_bytes);
  std::memcpy(&call->first_row, p.parameters[1], sizeof(int));
  return nullptr;
}

Result enqueue(Entry& e, Stream stream, Work work) {
  StreamOf* s = stream_of(e, stream);
  if (!s) return e.complain(kInvalidHandle, "with no stream");
  s->queue.push_back(std::move(work));
  e.w.changed.notify_all();
  return kSuccess;
}
Work single(Call call) { return std::make_shared<const Nodes>(Nodes{Node{std::move(call), {}}}); }

Result copy(Entry& e, Address device, void* host, size_t n, bool to_device, Stream stream) {
  auto* at = static_cast<uint8_t*>(host);
  bool pinned = false;
  if (const char* wrong = wrong_copy(*e.gpu, device, at, n, &pinned))
    return e.complain(kInvalidValue, wrong);
  CopyCall call{to_device, device, at, n, {}};
  if (!pinned && to_device) call.kept.assign(at, at + n);
  const Result result = enqueue(e, stream, single(std::move(call)));
  // What is not pinned has arrived when the call returns.
  if (result == kSuccess && !pinned && !to_device) {
    e.wait(*stream_of(e, stream));
    return e.gpu->lost;
  }
  return result;
}

// Whether enqueued work copies to or from the host memory.
bool in_use(const Gpu& g, const uint8_t* host, size_t n) {
  const auto uses = [&](const Work& work) {
    return work && std::any_of(work->begin(), work->end(), [&](const Node& node) {
             const auto* c = std::get_if<CopyCall>(&node.call);
             return c && c->host < host + n && host < c->host + c->bytes;
           });
  };
  return std::any_of(g.streams.begin(), g.streams.end(), [&](const StreamOf* s) {
    return uses(s->running) || std::any_of(s->queue.begin(), s->queue.end(), uses);
  });
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// ---- the GPUs that there are ----

EXPORT Result cuInit(unsigned flags) {
  Entry e("cuInit", Needs::kNothing);
  if (e.result != kSuccess) return e.result;
  if (flags) return e.complain(kInvalidValue, "with flags");
  if (e.w["init"]) return static_cast<Result>(e.w["init"]);
  if (!e.w["gpus"]) return kNoDevice;
  e.w.process = getpid();
  return kSuccess;
}
EXPORT Result cuDriverGetVersion(int* version) {
  ENTER(Needs::kNothing);
  *version = static_cast<int>(e.w["version"]);
  return kSuccess;
}
EXPORT Result cuGetErrorName(Result error, const char** name) {
  static const std::map<Result, const char*> names = {
      {kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
      {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
      {kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED"},
      {kDevicesUnavailable, "CUDA_ERROR_DEVICE_UNAVAILABLE"},
      {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT"},
      {kNoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
      {214, "CUDA_ERROR_ECC_UNCORRECTABLE"},
      {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},
      {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"},
      {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
  };
  const auto at = names.find(error);
  *name = at == names.end() ? nullptr : at->second;
  return at == names.end() ? kInvalidValue : kSuccess;
}
EXPORT Result cuGetErrorString(Result error, const char** text) {
  *text = "as the stand-in says";
  const char* name = nullptr;
  return cuGetErrorName(error, &name);
}
EXPORT Result cuDeviceGetCount(int* count) {
  ENTER(Needs::kInit);
  *count = static_cast<int>(e.w["gpus"]);
  return kSuccess;
}
EXPORT Result cuDeviceGet(Ordinal* device, int ordinal) {
  ENTER(Needs::kInit);
  if (ordinal < 0 || ordinal >= e.w["gpus"])
    return e.complain(kInvalidDevice, "with a number that is none");
  *device = ordinal;
  return kSuccess;
}
EXPORT Result cuDeviceGetName(char* name, int size, Ordinal) {
  ENTER(Needs::kInit);
  std::strncpy(name, "Stand-in", static_cast<size_t>(size));
  return kSuccess;
}
EXPORT Result cuDeviceGetAttribute(int* value, int attribute, Ordinal) {
  ENTER(Needs::kInit);
  const auto capability = static_cast<int>(e.w["capability"]);
  if (attribute != kCapabilityMajor && attribute != kCapabilityMinor)
    return e.complain(kInvalidValue, "for an attribute that the stand-in does not know");
  *value = attribute == kCapabilityMajor ? capability / 10 : capability % 10;
  return kSuccess;
}
EXPORT Result cuDeviceTotalMem_v2(size_t* bytes, Ordinal) {
  ENTER(Needs::kInit);
  *bytes = static_cast<size_t>(e.w["memory"]);
  return kSuccess;
}

// ---- contexts ----

EXPORT Result cuDevicePrimaryCtxRetain(Context* context, Ordinal device) {
  ENTER(Needs::kInit);
  if (e.w["taken"]) return kDevicesUnavailable;
  Gpu& g = e.w.gpus[device];
  if (!g.references) {
    if (g.lost != kSuccess && e.w["stays_lost"]) return g.lost;
    if (e.w["memory"] < 1 << 20) return kOutOfMemory;  // for the context itself
    g.lost = kSuccess;
    g.device = std::make_unique<EmulatedDevice>(e.w.random());
  }
  ++g.references;
  *context = reinterpret_cast<Context>(&g);
  return g.lost;
}
EXPORT Result cuDevicePrimaryCtxRelease_v2(Ordinal device) {
  ENTER(Needs::kInit);
  Gpu& g = e.w.gpus[device];
  if (!g.references) return e.complain(kInvalidContext, "for a context that is not retained");
  if (--g.references) return kSuccess;
  if (g.live() && g.lost == kSuccess)
    e.w.complain(gemtp::format("a context was given back with %lld objects left in it",
                               static_cast<long long>(g.live())));
  for (StreamOf* s : g.streams) s->ending = true;
  e.w.changed.notify_all();
  const std::set<StreamOf*> streams = std::move(g.streams);
  e.unlocked([&] {
    for (StreamOf* s : streams) {
      s->worker.join();
      delete s;
    }
  });
  for (const auto& [host, bytes] : g.host) delete[] host;
  for (GraphOf* graph : g.graphs) delete graph;
  for (auto* exec : g.execs) delete exec;
  for (void* m : g.modules) std::free(m);
  for (const auto& [f, of] : g.functions) std::free(f);
  for (const auto& [n, graph] : g.nodes) std::free(n);
  g.streams.clear();
  g.host.clear();
  g.graphs.clear();
  g.execs.clear();
  g.modules.clear();
  g.functions.clear();
  g.nodes.clear();
  g.memory.clear();
  g.used = 0;
  g.device.reset();
  return kSuccess;
}
EXPORT Result cuCtxPushCurrent_v2(Context context) {
  ENTER(Needs::kInit);
  auto* g = reinterpret_cast<Gpu*>(context);
  if (g < e.w.gpus || g >= e.w.gpus + kMostGpus || !g->references)
    return e.complain(kInvalidContext, "with no context");
  stack().push_back(g);
  return kSuccess;
}
EXPORT Result cuCtxPopCurrent_v2(Context* context) {
  ENTER(Needs::kInit);
  if (stack().empty()) return e.complain(kInvalidContext, "without a context");
  *context = reinterpret_cast<Context>(stack().back());
  stack().pop_back();
  return kSuccess;
}

// ---- memory ----

EXPORT Result cuMemGetInfo_v2(size_t* free, size_t* total) {
  ENTER();
  *total = static_cast<size_t>(e.w["memory"]);
  *free = static_cast<size_t>(std::max<int64_t>(0, e.w["memory"] - e.gpu->used));
  return kSuccess;
}
EXPORT Result cuMemAlloc_v2(Address* address, size_t bytes) {
  ENTER();
  if (!bytes) return e.complain(kInvalidValue, "for no bytes");
  if (e.w.fails_allocation() || static_cast<int64_t>(bytes) > e.w["memory"] - e.gpu->used)
    return kOutOfMemory;
  Gpu& g = *e.gpu;
  g.used += static_cast<int64_t>(bytes);
  e.unlocked([&] {
    const std::lock_guard lock(g.device_mutex);
    *address = g.device->allocate(static_cast<int64_t>(bytes));
  });
  g.memory[*address] = bytes;
  return kSuccess;
}
EXPORT Result cuMemFree_v2(Address address) {
  ENTER();
  Gpu& g = *e.gpu;
  const auto at = g.memory.find(address);
  if (at == g.memory.end()) return e.complain(kInvalidValue, "for memory that is not allocated");
  g.used -= static_cast<int64_t>(at->second);
  g.memory.erase(at);
  e.unlocked([&] {
    const std::lock_guard lock(g.device_mutex);
    g.device->release(address);
  });
  return kSuccess;
}
EXPORT Result cuMemHostAlloc(void** host, size_t bytes, unsigned flags) {
  ENTER();
  if (!bytes || flags != kHostPortable)
    return e.complain(kInvalidValue, "in a way that is unknown");
  if (e.w.fails_allocation()) return kOutOfMemory;
  auto* memory = new uint8_t[bytes];
  std::memset(memory, 0xa5, bytes);
  e.gpu->host[memory] = bytes;
  *host = memory;
  return kSuccess;
}
EXPORT Result cuMemFreeHost(void* host) {
  ENTER();
  const auto at = e.gpu->host.find(static_cast<uint8_t*>(host));
  if (at == e.gpu->host.end()) return e.complain(kInvalidValue, "for memory that is not allocated");
  if (in_use(*e.gpu, at->first, at->second))
    return e.complain(kInvalidValue, "for memory that enqueued work uses");
  delete[] at->first;
  e.gpu->host.erase(at);
  return kSuccess;
}

// ---- streams ----

EXPORT Result cuStreamCreate(Stream* stream, unsigned flags) {
  ENTER();
  if (flags != kStreamNonBlocking) return e.complain(kInvalidValue, "in a way that is unknown");
  auto* s = new StreamOf{*e.gpu};
  s->worker = std::thread(work, std::ref(*s));
  e.gpu->streams.insert(s);
  *stream = reinterpret_cast<Stream>(s);
  return kSuccess;
}
EXPORT Result cuStreamDestroy_v2(Stream stream) {
  ENTER();
  StreamOf* s = stream_of(e, stream);
  if (!s) return e.complain(kInvalidHandle, "with no stream");
  e.wait(*s);
  e.gpu->streams.erase(s);
  s->ending = true;
  e.w.changed.notify_all();
  e.unlocked([&] { s->worker.join(); });
  delete s;
  return kSuccess;
}
EXPORT Result cuStreamSynchronize(Stream stream) {
  ENTER();
  StreamOf* s = stream_of(e, stream);
  if (!s) return e.complain(kInvalidHandle, "with no stream");
  e.wait(*s);
  return e.gpu->lost;
}
EXPORT Result cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream stream) {
  ENTER();
  return copy(e, to, const_cast<void*>(from), bytes, true, stream);
}
EXPORT Result cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Stream stream) {
  ENTER();
  return copy(e, from, to, bytes, false, stream);
}

// ---- modules ----

EXPORT Result cuModuleLoadData(Module* module, const void* image) {
  ENTER();
  // A fatbin with one entry: its kind (1: PTX, 2: machine code) and capability are in the header.
  uint32_t magic = 0, capability = 0;
  uint16_t header = 0, kind = 0;
  const auto* bytes = static_cast<const uint8_t*>(image);
  std::memcpy(&magic, bytes, 4);
  if (magic != 0xba55ed50u) return e.complain(kInvalidImage, "with no fatbin");
  std::memcpy(&header, bytes + 6, 2);
  std::memcpy(&kind, bytes + header, 2);
  std::memcpy(&capability, bytes + header + 28, 4);
  const auto own = static_cast<uint32_t>(e.w["capability"]);
  const bool runs =
      kind == 1 ? capability <= own : capability / 10 == own / 10 && capability <= own;
  if (!runs || (kind == 2 && e.w["refuse_code"])) return kNoBinaryForGpu;
  if (e.w.fails_allocation()) return kOutOfMemory;
  ++e.w.modules_loaded;
  void* made = std::malloc(1);
  e.gpu->modules.insert(made);
  *module = static_cast<Module>(made);
  return kSuccess;
}
EXPORT Result cuModuleUnload(Module module) {
  ENTER();
  if (!e.gpu->modules.erase(module)) return e.complain(kInvalidHandle, "with no module");
  std::free(module);
  std::erase_if(e.gpu->functions, [&](const auto& f) {
    if (f.second.first == module) std::free(f.first);
    return f.second.first == module;
  });
  return kSuccess;
}
EXPORT Result cuModuleGetFunction(Function* function, Module module, const char* name) {
  ENTER();
  if (!e.gpu->modules.count(module)) return e.complain(kInvalidHandle, "with no module");
  const std::string full = name;
  const Kernel* k = full.starts_with("gemtp_") ? find_kernel(full.substr(6)) : nullptr;
  if (!k) return e.complain(kNotFound, "for the kernel " + full);
  void* made = std::malloc(1);
  e.gpu->functions[made] = {module, k};
  *function = static_cast<Function>(made);
  return kSuccess;
}
EXPORT Result cuLaunchKernel(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                             unsigned block_x, unsigned block_y, unsigned block_z,
                             unsigned shared_bytes, Stream stream, void** parameters,
                             void** extra) {
  ENTER();
  KernelCall call{};
  const KernelNode node{function, grid_x,  grid_y,       grid_z,     block_x,
                        block_y,  block_z, shared_bytes, parameters, extra};
  if (const char* wrong = wrong_launch(*e.gpu, node, &call))
    return e.complain(kInvalidValue, wrong);
  ++e.w.launches;
  return enqueue(e, stream, single(std::move(call)));
}

// ---- graphs ----

EXPORT Result cuGraphCreate(Graph* graph, unsigned flags) {
  ENTER();
  if (flags) return e.complain(kInvalidValue, "with flags");
  auto* made = new GraphOf();
  e.gpu->graphs.insert(made);
  *graph = reinterpret_cast<Graph>(made);
  return kSuccess;
}
EXPORT Result cuGraphDestroy(Graph graph) {
  ENTER();
  auto* g = reinterpret_cast<GraphOf*>(graph);
  if (!e.gpu->graphs.erase(g)) return e.complain(kInvalidHandle, "with no graph");
  std::erase_if(e.gpu->nodes, [&](const auto& n) {
    if (n.second.first == g) std::free(n.first);
    return n.second.first == g;
  });
  delete g;
  return kSuccess;
}

static Result add_node(Entry& e, GraphNode* node, Graph graph, const GraphNode* before,
                       size_t count, Call call) {
  auto* g = reinterpret_cast<GraphOf*>(graph);
  if (!e.gpu->graphs.count(g)) return e.complain(kInvalidHandle, "with no graph");
  Node made{std::move(call), {}};
  for (size_t i = 0; i < count; ++i) {
    const auto at = e.gpu->nodes.find(before[i]);
    if (at == e.gpu->nodes.end() || at->second.first != g)
      return e.complain(kInvalidValue, "with a node of another graph");
    made.before.push_back(at->second.second);
  }
  void* handle = std::malloc(1);
  e.gpu->nodes[handle] = {g, g->nodes->size()};
  g->nodes->push_back(std::move(made));
  *node = static_cast<GraphNode>(handle);
  return kSuccess;
}

EXPORT Result cuGraphAddKernelNode(GraphNode* node, Graph graph, const GraphNode* before,
                                   size_t count, const KernelNode* parameters) {
  ENTER();
  KernelCall call{};
  if (const char* wrong = wrong_launch(*e.gpu, *parameters, &call))
    return e.complain(kInvalidValue, wrong);
  return add_node(e, node, graph, before, count, std::move(call));
}
EXPORT Result cuGraphAddMemcpyNode(GraphNode* node, Graph graph, const GraphNode* before,
                                   size_t count, const CopyNode* copy, Context context) {
  ENTER();
  const CopyEnd &from = copy->from, &to = copy->to;
  const bool to_device = from.memory == kHostMemory;
  for (const CopyEnd* end : {&from, &to})
    if (end->x || end->y || end->z || end->lod || end->array || end->reserved || end->height ||
        end->pitch < copy->width)
      return e.complain(kInvalidValue, "with an end that is no row of bytes");
  if (copy->height != 1 || copy->depth != 1 || !copy->width ||
      to.memory != (to_device ? kDeviceMemory : kHostMemory) ||
      from.memory != (to_device ? kHostMemory : kDeviceMemory))
    return e.complain(kInvalidValue, "with a copy that is none");
  if (reinterpret_cast<Gpu*>(context) != e.gpu)
    return e.complain(kInvalidContext, "with another context");
  const Address device = to_device ? to.device : from.device;
  auto* host = static_cast<uint8_t*>(const_cast<void*>(to_device ? from.host : to.host));
  bool pinned = false;
  if (const char* wrong = wrong_copy(*e.gpu, device, host, copy->width, &pinned))
    return e.complain(kInvalidValue, wrong);
  if (!pinned) return e.complain(kInvalidValue, "with memory that is not pinned");
  return add_node(e, node, graph, before, count,
                  CopyCall{to_device, device, host, copy->width, {}});
}
EXPORT Result cuGraphInstantiateWithFlags(GraphExec* exec, Graph graph, unsigned long long flags) {
  ENTER();
  auto* g = reinterpret_cast<GraphOf*>(graph);
  if (flags || !e.gpu->graphs.count(g)) return e.complain(kInvalidHandle, "with no graph");
  if (e.w.fails_allocation()) return kOutOfMemory;
  auto* made = new Work(std::make_shared<const Nodes>(*g->nodes));
  e.gpu->execs.insert(made);
  *exec = reinterpret_cast<GraphExec>(made);
  return kSuccess;
}
EXPORT Result cuGraphLaunch(GraphExec exec, Stream stream) {
  ENTER();
  auto* x = reinterpret_cast<Work*>(exec);
  if (!e.gpu->execs.count(x)) return e.complain(kInvalidHandle, "with no graph");
  ++e.w.graph_launches;
  return enqueue(e, stream, *x);
}
EXPORT Result cuGraphExecDestroy(GraphExec exec) {
  ENTER(Needs::kInit);  // needs no context
  auto* x = reinterpret_cast<Work*>(exec);
  for (Gpu& g : e.w.gpus)
    if (g.execs.erase(x)) {
      delete x;
      return kSuccess;
    }
  return e.complain(kInvalidHandle, "with no graph");
}

// ---- controls ----

EXPORT int fake_cuda_set(const char* name, int64_t value) { return world().set(name, value); }

EXPORT int64_t fake_cuda_get(const char* name) {
  World& w = world();
  const std::lock_guard lock(w.mutex);
  const std::string n = name;
  if (n == "live") {
    int64_t live = 0;
    for (const Gpu& g : w.gpus) live += g.live() + g.references;
    return live;
  }
  const std::map<std::string, int64_t> counts = {
      {"calls", w.calls},
      {"allocations", w.allocations},
      {"launches", w.launches},
      {"graph_launches", w.graph_launches},
      {"modules_loaded", w.modules_loaded},
      {"complaints", w.complaints},
  };
  const auto at = counts.find(n);
  return at == counts.end() ? -1 : at->second;
}

EXPORT const char* fake_cuda_complaint(void) { return world().take_complaint(); }
