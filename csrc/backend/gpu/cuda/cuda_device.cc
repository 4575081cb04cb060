#include "backend/gpu/cuda/cuda_device.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "backend/gpu/cuda/driver.h"
#include "backend/gpu/cuda/kernel_images.h"
#include "backend/gpu/device_errors.h"
#include "base/error.h"
#include "base/fork.h"

namespace gemtp::gpu {
namespace {

using namespace cuda;

constexpr int kOldestCapability = 75;
constexpr int64_t kMostGridRows = 65535;  // of a grid's y; its x goes to 2^31 - 1

// What cuda_gpus() and a device know of a GPU before it is opened.
struct Found {
  Ordinal ordinal = 0;
  std::string name;
  int64_t memory = 0;
  int capability = 0;  // 10 major + minor

  std::string capability_text() const {
    return format("compute capability %d.%d", capability / 10, capability % 10);
  }
};

void check_query(Result result, const char* function) {
  if (result != kSuccess)
    throw Error(ErrorKind::kDevice,
                format("NVIDIA's driver does not answer: %s gives %s; restart the machine, or use "
                       "the device cpu",
                       function, driver().describe(result).c_str()));
}

int count_gpus() {
  int count = 0;
  check_query(driver().device_count(&count), "cuDeviceGetCount");
  return count;
}

Found find_gpu(int number) {
  const Driver& d = driver();
  Found out;
  char name[256] = "";
  int major = 0, minor = 0;
  check_query(d.device(&out.ordinal, number), "cuDeviceGet");
  check_query(d.device_name(name, sizeof name - 1, out.ordinal), "cuDeviceGetName");
  check_query(d.device_attribute(&major, kCapabilityMajor, out.ordinal), "cuDeviceGetAttribute");
  check_query(d.device_attribute(&minor, kCapabilityMinor, out.ordinal), "cuDeviceGetAttribute");
  size_t memory = 0;
  check_query(d.device_memory(&memory, out.ordinal), "cuDeviceTotalMem");
  out.memory = static_cast<int64_t>(memory);
  out.name = name;
  out.capability = 10 * major + minor;
  return out;
}

// Throws for a GPU that is not here, or too old.
Found find_usable(int number) {
  if (!cuda_is_built())
    throw Error(
        ErrorKind::kArgument,
        "this build of gemtp has no kernels for CUDA, because it was built without nvcc; use "
        "a wheel that has them, build with nvcc, or use the device cpu");
  const int count = count_gpus();
  if (number >= count)
    throw Error(ErrorKind::kArgument,
                format("the device 'cuda:%d' is not here; NVIDIA's driver finds %d GPU%s, from "
                       "cuda:0 on",
                       number, count, count == 1 ? "" : "s"));
  Found gpu = find_gpu(number);
  if (gpu.capability < kOldestCapability)
    throw Error(ErrorKind::kDevice,
                format("cuda:%d (%s) has %s, and %d.%d is the oldest that gemtp has kernels for; "
                       "use another GPU, or the device cpu",
                       number, gpu.name.c_str(), gpu.capability_text().c_str(),
                       kOldestCapability / 10, kOldestCapability % 10));
  return gpu;
}

const KernelEntry& entry_of(const std::string& name) {
  const auto all = kernel_entries();
  const auto at = std::lower_bound(all.begin(), all.end(), name,
                                   [](const KernelEntry& e, const std::string& n) {
                                     return std::strcmp(e.name, n.c_str()) < 0;
                                   });
  GEMTP_ASSERT(at != all.end() && name == at->name);
  return *at;
}

// Images of a module for a GPU, the best first: machine code of its generation, then PTX, newest
// first.
std::vector<const KernelImage*> images_for(int module, int capability) {
  std::vector<const KernelImage*> out;
  for (const KernelImage& image : kernel_images())
    if (image.module == module && image.capability <= capability &&
        (image.ptx || image.capability / 10 == capability / 10))
      out.push_back(&image);
  std::sort(out.begin(), out.end(), [](const KernelImage* a, const KernelImage* b) {
    return a->ptx != b->ptx ? b->ptx : a->capability > b->capability;
  });
  return out;
}

class CudaDevice : public GpuDevice {
 public:
  CudaDevice(int number, Found found)
      : driver_(driver()),
        found_(std::move(found)),
        name_("cuda:" + std::to_string(number)),
        where_(name_ + " (" + found_.name + ")"),
        forks_(fork_count()),
        functions_(kernel_entries().size()) {
    open();
  }
  ~CudaDevice() override {
    if (forked()) return;
    if (driver_.push(context_) == kSuccess) {
      driver_.stream_wait(stream_);
      for (const Released& r : released_) free_now(r);
      for (const Module module : modules_)
        if (module) driver_.module_unload(module);
      driver_.stream_destroy(stream_);
      Context popped = nullptr;
      driver_.pop(&popped);
    }
    driver_.release(found_.ordinal);
  }

  std::string name() const override { return name_; }
  std::string identity() const override {
    return where_ + format(", %s, driver for CUDA %d.%d%s%s", found_.capability_text().c_str(),
                           driver_.cuda_version / 1000, driver_.cuda_version % 1000 / 10,
                           driver_.file.empty() ? "" : ", ", driver_.file.c_str());
  }

  Memory memory() const override {
    const Current current(*this);
    return current_memory();
  }

  uint64_t allocate(int64_t bytes) override {
    Address address = 0;
    allocate_or_throw(bytes, "its memory",
                      [&] { return driver_.allocate(&address, static_cast<size_t>(bytes)); });
    return address;
  }
  void release(uint64_t address) override { release({address, nullptr, 0}); }

  void* allocate_host(int64_t bytes) override {
    void* host = nullptr;
    allocate_or_throw(bytes, "host memory for it", [&] {
      return driver_.allocate_host(&host, static_cast<size_t>(bytes), kHostPortable);
    });
    return host;
  }
  void release_host(void* host) override { release({0, host, 0}); }

  void write(uint64_t to, const void* from, int64_t bytes) override {
    if (bytes <= 0) return;
    const Current current(*this);
    enqueue("cuMemcpyHtoDAsync",
            [&] { return driver_.to_device(to, from, static_cast<size_t>(bytes), stream_); });
    synchronize();
  }
  void read(uint64_t from, void* to, int64_t bytes) override {
    if (bytes <= 0) return;
    const Current current(*this);
    enqueue("cuMemcpyDtoHAsync",
            [&] { return driver_.to_host(to, from, static_cast<size_t>(bytes), stream_); });
    synchronize();
  }

  void send(uint64_t to, const void* from, int64_t bytes) override {
    if (bytes <= 0) return;
    const Current current(*this);
    if (graph_) return record_copy({kHostMemory, from, 0}, {kDeviceMemory, nullptr, to}, bytes);
    enqueue("cuMemcpyHtoDAsync",
            [&] { return driver_.to_device(to, from, static_cast<size_t>(bytes), stream_); });
  }
  void fetch(uint64_t from, void* to, int64_t bytes) override {
    if (bytes <= 0) return;
    const Current current(*this);
    if (graph_) return record_copy({kDeviceMemory, nullptr, from}, {kHostMemory, to, 0}, bytes);
    enqueue("cuMemcpyDtoHAsync",
            [&] { return driver_.to_host(to, from, static_cast<size_t>(bytes), stream_); });
  }

  void launch(const std::string& kernel, int64_t blocks, int64_t rows, const void* arguments,
              int64_t bytes) override {
    const KernelEntry& entry = entry_of(kernel);
    GEMTP_ASSERT(entry.argument_bytes == bytes && blocks <= INT32_MAX && rows <= INT32_MAX);
    const Current current(*this);
    KernelNode node{};
    node.function = function_of(entry);
    node.grid_x = static_cast<unsigned>(blocks);
    node.grid_z = node.block_y = node.block_z = 1;
    node.block_x = static_cast<unsigned>(entry.threads);
    for (int64_t first = 0; first < rows; first += kMostGridRows) {
      int first_row = static_cast<int>(first);
      void* parameters[] = {const_cast<void*>(arguments), &first_row};
      node.grid_y = static_cast<unsigned>(std::min(kMostGridRows, rows - first));
      node.parameters = parameters;
      if (graph_) {
        const GraphNode before = last_node_;
        check(driver_.graph_kernel(&last_node_, graph_, &before, before ? 1 : 0, &node),
              "cuGraphAddKernelNode");
      } else {
        enqueue("cuLaunchKernel", [&] {
          return driver_.launch(node.function, node.grid_x, node.grid_y, node.grid_z, node.block_x,
                                node.block_y, node.block_z, 0, stream_, parameters, nullptr);
        });
      }
    }
  }

  void wait() override {
    const Current current(*this);
    synchronize();
  }

  void begin_recording() override {
    GEMTP_ASSERT(!graph_);
    const Current current(*this);
    last_node_ = nullptr;
    check(driver_.graph_create(&graph_, 0), "cuGraphCreate");
  }
  std::unique_ptr<Recording> end_recording() override {
    const Graph graph = std::exchange(graph_, nullptr);
    const Current current(*this);
    GraphExec exec = nullptr;
    const Result result = driver_.graph_instantiate(&exec, graph, 0);
    driver_.graph_destroy(graph);
    check(result, "cuGraphInstantiate");
    return std::make_unique<CudaRecording>(*this, exec);
  }
  void repeat(Recording& recording) override {
    GEMTP_ASSERT(!graph_);
    const Current current(*this);
    const GraphExec exec = static_cast<CudaRecording&>(recording).exec;
    enqueue("cuGraphLaunch", [&] { return driver_.graph_launch(exec, stream_); });
  }

  // As in cuda/gpu.h.
  int64_t quant_bytes() const override { return 1; }

 private:
  // A graph, ready to be launched. The backend destroys recordings before their device.
  struct CudaRecording : Recording {
    CudaRecording(const CudaDevice& of, GraphExec made) : device(of), exec(made) {}
    ~CudaRecording() override {
      if (!device.forked()) device.driver_.graph_exec_destroy(exec);
    }
    const CudaDevice& device;
    const GraphExec exec;
  };

  // While it exists, the device's context is the thread's, which keeps its own below it.
  class Current {
   public:
    explicit Current(const CudaDevice& device) : device_(device) {
      device.refuse_lost();
      device.check(device.driver_.push(device.context_), "cuCtxPushCurrent");
    }
    ~Current() {
      Context popped = nullptr;
      device_.driver_.pop(&popped);
    }
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

   private:
    const CudaDevice& device_;
  };

  // Memory that was released when `enqueued` pieces of work had been.
  struct Released {
    Address device = 0;
    void* host = nullptr;
    uint64_t enqueued = 0;
  };

  void open() {
    const Result result = driver_.retain(&context_, found_.ordinal);
    if (result == kDevicesUnavailable)
      throw Error(ErrorKind::kDevice,
                  format("%s is taken by another process, which has it alone; end that process, or "
                         "use the device cpu",
                         where_.c_str()));
    check(result, "cuDevicePrimaryCtxRetain");
    try {
      const Current current(*this);
      check(driver_.stream_create(&stream_, kStreamNonBlocking), "cuStreamCreate");
    } catch (...) {
      driver_.release(found_.ordinal);
      throw;
    }
  }

  // ---- errors ----

  bool forked() const { return fork_count() != forks_; }

  void refuse_lost() const {
    if (forked()) throw used_in_child(where_);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_.empty()) throw Error(ErrorKind::kDevice, failure_);
  }

  void check(Result result, const char* function) const {
    if (result == kSuccess) return;
    if (result == kOutOfMemory)
      throw Error(ErrorKind::kMemory,
                  format("%s has too little memory for %s; use a smaller context or a smaller "
                         "model, close other programs that use the GPU, or use the device cpu",
                         where_.c_str(), function));
    if (result == kInvalidValue || result == kInvalidHandle)
      throw Error(
          ErrorKind::kInternal,
          format("internal error: %s gives %s; please report it with the call that led here",
                 function, driver_.describe(result).c_str()));
    const std::string failure =
        failure_of(where_, std::string(function) + " gives " + driver_.describe(result));
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failure_.empty()) failure_ = failure;
    throw Error(ErrorKind::kDevice, failure_);
  }

  // ---- memory ----

  template <class Allocate>
  void allocate_or_throw(int64_t bytes, const char* what, const Allocate& allocate) {
    const Current current(*this);
    Result result = allocate();
    if (result == kOutOfMemory) {  // what was released and is still in use may suffice
      synchronize();
      result = allocate();
    }
    if (result == kOutOfMemory) throw no_room(where_, what, bytes, current_memory());
    check(result, "an allocation");
  }

  Memory current_memory() const {
    size_t free = 0, total = 0;
    check(driver_.memory_info(&free, &total), "cuMemGetInfo");
    return {static_cast<int64_t>(free), static_cast<int64_t>(total)};
  }

  // Called by destructors: what cannot be freed now is freed with the context.
  void release(Released memory) noexcept {
    if (forked()) return;
    bool done = false;
    try {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_.empty()) return;
      memory.enqueued = enqueued_;
      done = completed_ == enqueued_;
      if (!done) released_.push_back(memory);
    } catch (const std::bad_alloc&) {
    }
    if (done && driver_.push(context_) == kSuccess) {
      free_now(memory);
      Context popped = nullptr;
      driver_.pop(&popped);
    }
  }
  void free_now(const Released& memory) const noexcept {
    if (memory.host)
      driver_.free_host(memory.host);
    else
      driver_.free(memory.device);
  }

  // ---- work ----

  // Gives the stream a piece of work.
  template <class Call>
  void enqueue(const char* function, const Call& call) {
    Result result;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++enqueued_;
      result = call();
    }
    check(result, function);
  }

  // Waits for all work that has been enqueued, then frees what it used.
  void synchronize() {
    uint64_t before;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      before = enqueued_;
    }
    check(driver_.stream_wait(stream_), "cuStreamSynchronize");
    std::vector<Released> unused;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      completed_ = std::max(completed_, before);
      const auto used = std::partition(released_.begin(), released_.end(),
                                       [&](const Released& r) { return r.enqueued > completed_; });
      unused.assign(used, released_.end());
      released_.erase(used, released_.end());
    }
    for (const Released& r : unused) free_now(r);
  }

  struct End {
    int memory;
    const void* host;
    Address device;
  };
  void record_copy(const End& from, const End& to, int64_t bytes) {
    CopyNode copy{};
    const auto n = static_cast<size_t>(bytes);
    copy.from.memory = from.memory;
    copy.from.host = from.host;
    copy.from.device = from.device;
    copy.to.memory = to.memory;
    copy.to.host = to.host;
    copy.to.device = to.device;
    copy.from.pitch = copy.to.pitch = copy.width = n;
    copy.height = copy.depth = 1;
    const GraphNode before = last_node_;
    check(driver_.graph_copy(&last_node_, graph_, &before, before ? 1 : 0, &copy, context_),
          "cuGraphAddMemcpyNode");
  }

  // ---- kernels ----

  Function function_of(const KernelEntry& entry) {
    Function& function = functions_[static_cast<size_t>(&entry - kernel_entries().data())];
    if (!function)
      check(driver_.module_function(&function, module_of(entry.module),
                                    (std::string("gemtp_") + entry.name).c_str()),
            "cuModuleGetFunction");
    return function;
  }

  // Modules are loaded when a kernel of them is first launched.
  Module module_of(int index) {
    const auto at = static_cast<size_t>(index);
    if (modules_.size() <= at) modules_.resize(at + 1);
    if (modules_[at]) return modules_[at];
    Result result = kNoBinaryForGpu;
    for (const KernelImage* image : images_for(index, found_.capability)) {
      result = driver_.module_load(&modules_[at], image->data);
      // An older driver may know this GPU, but not how a newer compiler writes code for it.
      if (result != kInvalidImage && result != kNoBinaryForGpu && result != kInvalidSource &&
          result != kUnsupportedPtxVersion)
        break;
    }
    check(result, "loading the kernels");
    return modules_[at];
  }

  const Driver& driver_;
  const Found found_;
  const std::string name_, where_;
  const uint32_t forks_;
  Context context_ = nullptr;
  Stream stream_ = nullptr;
  std::vector<Function> functions_;  // by kernel_entries()
  std::vector<Module> modules_;
  Graph graph_ = nullptr;  // that is being recorded
  GraphNode last_node_ = nullptr;

  mutable std::mutex mutex_;
  uint64_t enqueued_ = 0, completed_ = 0;  // pieces of work
  std::vector<Released> released_;         // memory that enqueued work may use
  mutable std::string failure_;            // what ended the device
};

}  // namespace

bool cuda_is_built() { return !kernel_entries().empty(); }

std::vector<CudaGpu> cuda_gpus() {
  std::vector<CudaGpu> out;
  const int count = count_gpus();
  for (int i = 0; i < count; ++i) {
    const Found gpu = find_gpu(i);
    std::string about = format("%s, %.1f GB, %s", gpu.name.c_str(), gigabytes(gpu.memory),
                               gpu.capability_text().c_str());
    if (gpu.capability < kOldestCapability) about += ", too old";
    out.push_back({"cuda:" + std::to_string(i), about});
  }
  return out;
}

void check_cuda_gpu(int number) { static_cast<void>(find_usable(number)); }

std::unique_ptr<GpuDevice> make_cuda_device(int number) {
  return std::make_unique<CudaDevice>(number, find_usable(number));
}

}  // namespace gemtp::gpu
