// NVIDIA's driver, as far as gemtp calls it: the CUDA driver API, whose library is loaded when a
// device is first asked for. Types and functions are declared here, as its manual documents them,
// so that no CUDA SDK is needed to build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace gemtp::gpu::cuda {

using Result = int;        // CUresult
using Ordinal = int;       // CUdevice
using Address = uint64_t;  // CUdeviceptr
using Context = struct ContextObject*;
using Stream = struct StreamObject*;
using Module = struct ModuleObject*;
using Function = struct FunctionObject*;
using Graph = struct GraphObject*;
using GraphNode = struct GraphNodeObject*;
using GraphExec = struct GraphExecObject*;

// Values of CUresult that are told apart.
constexpr Result kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNotInitialized = 3,
                 kNoDevice = 100, kInvalidImage = 200, kNoBinaryForGpu = 209,
                 kUnsupportedPtxVersion = 222, kInvalidSource = 300, kInvalidHandle = 400,
                 kDevicesUnavailable = 46;

// Values of CUdevice_attribute.
constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;

constexpr unsigned kStreamNonBlocking = 1, kHostPortable = 1;

/// CUDA_KERNEL_NODE_PARAMS_v1.
struct KernelNode {
  Function function;
  unsigned grid_x, grid_y, grid_z;
  unsigned block_x, block_y, block_z;
  unsigned shared_bytes;
  void** parameters;
  void** extra;
};

/// One side of a CUDA_MEMCPY3D. memory: 1 for the host's, 2 for the device's.
struct CopyEnd {
  size_t x, y, z, lod;
  int memory;
  const void* host;
  Address device;
  void *array, *reserved;
  size_t pitch, height;
};
/// CUDA_MEMCPY3D.
struct CopyNode {
  CopyEnd from, to;
  size_t width, height, depth;
};
constexpr int kHostMemory = 1, kDeviceMemory = 2;

// X(member, name of the symbol, parameters): the functions, each of which returns a Result.
#define GEMTP_CUDA_FUNCTIONS(X)                                                                   \
  X(init, cuInit, (unsigned flags))                                                               \
  X(version, cuDriverGetVersion, (int* version))                                                  \
  X(error_name, cuGetErrorName, (Result error, const char** name))                                \
  X(error_text, cuGetErrorString, (Result error, const char** text))                              \
  X(device_count, cuDeviceGetCount, (int* count))                                                 \
  X(device, cuDeviceGet, (Ordinal * device, int ordinal))                                         \
  X(device_name, cuDeviceGetName, (char* name, int size, Ordinal device))                         \
  X(device_attribute, cuDeviceGetAttribute, (int* value, int attribute, Ordinal device))          \
  X(device_memory, cuDeviceTotalMem_v2, (size_t* bytes, Ordinal device))                          \
  X(retain, cuDevicePrimaryCtxRetain, (Context * context, Ordinal device))                        \
  X(release, cuDevicePrimaryCtxRelease_v2, (Ordinal device))                                      \
  X(push, cuCtxPushCurrent_v2, (Context context))                                                 \
  X(pop, cuCtxPopCurrent_v2, (Context * context))                                                 \
  X(memory_info, cuMemGetInfo_v2, (size_t* free, size_t* total))                                  \
  X(allocate, cuMemAlloc_v2, (Address * address, size_t bytes))                                   \
  X(free, cuMemFree_v2, (Address address))                                                        \
  X(allocate_host, cuMemHostAlloc, (void** host, size_t bytes, unsigned flags))                   \
  X(free_host, cuMemFreeHost, (void* host))                                                       \
  X(stream_create, cuStreamCreate, (Stream * stream, unsigned flags))                             \
  X(stream_destroy, cuStreamDestroy_v2, (Stream stream))                                          \
  X(stream_wait, cuStreamSynchronize, (Stream stream))                                            \
  X(to_device, cuMemcpyHtoDAsync_v2, (Address to, const void* from, size_t bytes, Stream stream)) \
  X(to_host, cuMemcpyDtoHAsync_v2, (void* to, Address from, size_t bytes, Stream stream))         \
  X(module_load, cuModuleLoadData, (Module * module, const void* image))                          \
  X(module_unload, cuModuleUnload, (Module module))                                               \
  X(module_function, cuModuleGetFunction, (Function * function, Module module, const char* name)) \
  X(launch, cuLaunchKernel,                                                                       \
    (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,      \
     unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream stream, void** parameters, \
     void** extra))                                                                               \
  X(graph_create, cuGraphCreate, (Graph * graph, unsigned flags))                                 \
  X(graph_destroy, cuGraphDestroy, (Graph graph))                                                 \
  X(graph_kernel, cuGraphAddKernelNode,                                                           \
    (GraphNode * node, Graph graph, const GraphNode* before, size_t count,                        \
     const KernelNode* parameters))                                                               \
  X(graph_copy, cuGraphAddMemcpyNode,                                                             \
    (GraphNode * node, Graph graph, const GraphNode* before, size_t count, const CopyNode* copy,  \
     Context context))                                                                            \
  X(graph_instantiate, cuGraphInstantiateWithFlags,                                               \
    (GraphExec * exec, Graph graph, unsigned long long flags))                                    \
  X(graph_launch, cuGraphLaunch, (GraphExec exec, Stream stream))                                 \
  X(graph_exec_destroy, cuGraphExecDestroy, (GraphExec exec))

struct Driver {
#define X(member, symbol, parameters) Result(*member) parameters = nullptr;
  GEMTP_CUDA_FUNCTIONS(X)
#undef X
  int cuda_version = 0;  // the newest CUDA that it supports: 1000 major + 10 minor
  /// Names its release, several of which support the same CUDA: the library's file, which Linux
  /// calls "libcuda.so.570.86.15"; "" on Windows.
  std::string file;

  /// E.g. "CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)".
  std::string describe(Result error) const;
};

/// Loads the driver the first time. The environment variable GEMTP_CUDA_DRIVER may name another
/// library than the system's; tests name one that stands in for it. Throws Error{kArgument} where
/// there is none, and Error{kDevice} for one that is too old or does not work.
const Driver& driver();

}  // namespace gemtp::gpu::cuda
