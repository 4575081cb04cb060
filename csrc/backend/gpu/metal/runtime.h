// Apple's Objective-C runtime and Metal, as far as gemtp calls them. Their libraries are loaded
// when the device is first asked for. Messages are declared here, as Apple documents them, so that
// neither an SDK nor a compiler for Objective-C is needed to build.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace gemtp::gpu::metal {

using Id = struct Object*;  // a class, too
using Selector = struct SelectorObject*;

/// MTLSize, and NSOperatingSystemVersion.
struct Size {
  uint64_t width, height, depth;
};
struct Version {
  int64_t major, minor, patch;
};

constexpr int64_t kFamilyApple7 = 1007;  // M1 and A14; values of MTLGPUFamily
constexpr int64_t kFamilyMetal3 = 5001;
constexpr uint64_t kSharedUntracked = 0 | 1 << 8;        // MTLResourceOptions
constexpr uint64_t kLanguage31 = 3 << 16 | 1;            // MTLLanguageVersion
constexpr int64_t kMathSafe = 0, kPreciseFunctions = 1;  // MTLMathMode and its functions
constexpr uint64_t kConcurrent = 1;                      // MTLDispatchType
constexpr uint64_t kBuffers = 1;                         // MTLBarrierScope
constexpr uint64_t kReadWrite = 1 | 2;                   // MTLResourceUsage
constexpr uint64_t kCompleted = 4;                       // MTLCommandBufferStatus

// X(member, selector, result, (parameters)): the messages that are sent.
#define GEMTP_METAL_MESSAGES(X)                                                                    \
  X(make, "new", Id, ())                                                                           \
  X(responds, "respondsToSelector:", bool, (Selector selector))                                    \
  X(string, "stringWithUTF8String:", Id, (const char* text))                                       \
  X(text, "UTF8String", const char*, ())                                                           \
  X(count, "count", uint64_t, ())                                                                  \
  X(element, "objectAtIndex:", Id, (uint64_t index))                                               \
  X(description, "localizedDescription", Id, ())                                                   \
  X(process_info, "processInfo", Id, ())                                                           \
  X(is_at_least, "isOperatingSystemAtLeastVersion:", bool, (Version version))                      \
  X(version_text, "operatingSystemVersionString", Id, ())                                          \
  X(name, "name", Id, ())                                                                          \
  X(supports, "supportsFamily:", bool, (int64_t family))                                           \
  X(most_memory, "recommendedMaxWorkingSetSize", uint64_t, ())                                     \
  X(used_memory, "currentAllocatedSize", uint64_t, ())                                             \
  X(new_queue, "newCommandQueue", Id, ())                                                          \
  X(new_fence, "newFence", Id, ())                                                                 \
  X(new_buffer, "newBufferWithLength:options:", Id, (uint64_t bytes, uint64_t options))            \
  X(new_library, "newLibraryWithSource:options:error:", Id, (Id source, Id options, Id * error))   \
  X(new_pipeline, "newComputePipelineStateWithFunction:error:", Id, (Id function, Id * error))     \
  X(new_residency, "newResidencySetWithDescriptor:error:", Id, (Id descriptor, Id * error))        \
  X(set_language, "setLanguageVersion:", void, (uint64_t version))                                 \
  X(set_math, "setMathMode:", void, (int64_t mode))                                                \
  X(set_functions, "setMathFloatingPointFunctions:", void, (int64_t functions))                    \
  X(set_fast_math, "setFastMathEnabled:", void, (bool enabled))                                    \
  X(new_function, "newFunctionWithName:", Id, (Id name))                                           \
  X(most_threads, "maxTotalThreadsPerThreadgroup", uint64_t, ())                                   \
  X(lanes, "threadExecutionWidth", uint64_t, ())                                                   \
  X(contents, "contents", void*, ())                                                               \
  X(gpu_address, "gpuAddress", uint64_t, ())                                                       \
  X(add_allocation, "addAllocation:", void, (Id allocation))                                       \
  X(remove_allocation, "removeAllocation:", void, (Id allocation))                                 \
  X(add_residency, "addResidencySet:", void, (Id set))                                             \
  X(command_buffer, "commandBufferWithUnretainedReferences", Id, ())                               \
  X(encoder, "computeCommandEncoderWithDispatchType:", Id, (uint64_t type))                        \
  X(use, "useResources:count:usage:", void, (const Id* resources, uint64_t count, uint64_t usage)) \
  X(wait_for_fence, "waitForFence:", void, (Id fence))                                             \
  X(update_fence, "updateFence:", void, (Id fence))                                                \
  X(set_pipeline, "setComputePipelineState:", void, (Id pipeline))                                 \
  X(set_buffer, "setBuffer:offset:atIndex:", void, (Id buffer, uint64_t offset, uint64_t index))   \
  X(barrier, "memoryBarrierWithScope:", void, (uint64_t scope))                                    \
  X(dispatch, "dispatchThreadgroups:threadsPerThreadgroup:", void, (Size groups, Size threads))    \
  X(end_encoding, "endEncoding", void, ())                                                         \
  X(commit, "commit", void, ())                                                                    \
  X(wait, "waitUntilCompleted", void, ())                                                          \
  X(status, "status", uint64_t, ())                                                                \
  X(error, "error", Id, ())

// X(member, name of the symbol, result, (parameters)): the functions that are called.
#define GEMTP_METAL_FUNCTIONS(X)                              \
  X(find_class, objc_getClass, Id, (const char* name))        \
  X(selector, sel_registerName, Selector, (const char* name)) \
  X(send, objc_msgSend, void, ())                             \
  X(retain, objc_retain, Id, (Id object))                     \
  X(release, objc_release, void, (Id object))                 \
  X(push_pool, objc_autoreleasePoolPush, void*, ())           \
  X(pop_pool, objc_autoreleasePoolPop, void, (void* pool))    \
  X(copy_devices, MTLCopyAllDevices, Id, ())

/// A message of one signature. To nil it does nothing, and gives 0.
template <class F>
class Message;
template <class R, class... A>
class Message<R(A...)> {
 public:
  Message() = default;
  Message(void (*send)(), Selector selector) : selector(selector), send_(send) {}
  R operator()(Id to, A... arguments) const {
    return reinterpret_cast<R (*)(Id, Selector, A...)>(send_)(to, selector, arguments...);
  }
  Selector selector = nullptr;

 private:
  void (*send_)() = nullptr;
};

struct Runtime {
#define X(member, symbol, result, parameters) result(*member) parameters = nullptr;
  GEMTP_METAL_FUNCTIONS(X)
#undef X
#define X(member, selector, result, parameters) Message<result parameters> member;
  GEMTP_METAL_MESSAGES(X)
#undef X

  /// The text of an NSString, or of what an NSError says; "" for nil.
  std::string text_of(Id string) const;
  std::string text_of_error(Id error) const;
  /// An NSString, which the current pool releases.
  Id string_of(const std::string& text) const;
};

/// Loads the libraries the first time. The environment variable GEMTP_METAL_RUNTIME may name one
/// that stands in for all of them; tests name theirs. Throws Error{kArgument} where there is none.
const Runtime& runtime();

/// A reference to an object, which it releases.
class Owned {
 public:
  Owned() = default;
  explicit Owned(Id retained) : id_(retained) {}
  Owned(Owned&& other) noexcept : id_(std::exchange(other.id_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  ~Owned() {
    if (id_) runtime().release(id_);
  }
  /// Of an object that somebody else owns, or a pool.
  static Owned retained(Id id) { return Owned(id ? runtime().retain(id) : nullptr); }

  operator Id() const { return id_; }
  /// Gives up the reference without releasing it.
  void abandon() { id_ = nullptr; }

 private:
  Id id_ = nullptr;
};

/// Objects that a message returns without giving them away are released when it ends.
class Pool {
 public:
  Pool() : pool_(runtime().push_pool()) {}
  ~Pool() { runtime().pop_pool(pool_); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

 private:
  void* const pool_;
};

}  // namespace gemtp::gpu::metal
