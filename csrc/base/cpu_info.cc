#include "base/cpu_info.h"

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

#include "base/cgroup.h"
#include "base/topology.h"

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#endif

namespace gemtp {

namespace {

#if defined(__linux__)
// The processors of the affinity mask; empty if it cannot be read.
std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  // Machines with more than 1024 processors need a larger set than the default one.
  for (int size = CPU_SETSIZE; size <= 1 << 16 && cpus.empty(); size *= 4) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(size));
    if (!set) break;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(size));
    if (sched_getaffinity(0, bytes, set) == 0)
      for (int i = 0; i < size; ++i)
        if (CPU_ISSET_S(static_cast<size_t>(i), bytes, set)) cpus.push_back(i);
    CPU_FREE(set);
  }
  return cpus;
}
#endif

// `cores` capped by the cgroup's quota.
int within_quota(int cores) {
#if defined(__linux__)
  if (const double quota = cgroup_limits().cores; quota > 0)
    cores = std::min(cores, static_cast<int>(std::ceil(quota)));
#endif
  return std::max(cores, 1);
}

}  // namespace

int available_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  if (const std::vector<int> cpus = allowed_cpus(); !cpus.empty())
    cores = static_cast<int>(cpus.size());
#endif
  return within_quota(cores);
}

int default_threads() {
#if defined(__linux__)
  if (const std::vector<int> cpus = allowed_cpus(); !cpus.empty())
    return within_quota(worthwhile_threads(read_topology(cpus)));
#elif defined(__APPLE__)
  // perflevel0 are the performance cores; efficiency cores are several times slower.
  for (const char* name : {"hw.perflevel0.physicalcpu", "hw.physicalcpu"}) {
    int cores = 0;
    size_t length = sizeof cores;
    if (sysctlbyname(name, &cores, &length, nullptr, 0) == 0 && cores > 0) return cores;
  }
#elif defined(_WIN32)
  std::vector<LogicalCpu> cpus;
  DWORD_PTR allowed = 0, system = 0;
  DWORD bytes = 0;
  GetLogicalProcessorInformation(nullptr, &bytes);
  std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> all(bytes / sizeof all[0]);
  if (GetProcessAffinityMask(GetCurrentProcess(), &allowed, &system) &&
      GetLogicalProcessorInformation(all.data(), &bytes))
    for (const auto& core : all)
      if (core.Relationship == RelationProcessorCore)
        for (int i = 0; i < static_cast<int>(8 * sizeof allowed); ++i)
          if (core.ProcessorMask & allowed & (DWORD_PTR{1} << i))
            cpus.push_back({std::to_string(core.ProcessorMask), 0});
  if (!cpus.empty()) return worthwhile_threads(cpus);
#endif
  return available_cores();
}

uint64_t physical_memory() {
#if defined(__linux__)
  const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  return pages > 0 && size > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(size) : 0;
#elif defined(__APPLE__)
  uint64_t bytes = 0;
  size_t length = sizeof bytes;
  return sysctlbyname("hw.memsize", &bytes, &length, nullptr, 0) == 0 ? bytes : 0;
#elif defined(_WIN32)
  MEMORYSTATUSEX status;
  status.dwLength = sizeof status;
  return GlobalMemoryStatusEx(&status) ? status.ullTotalPhys : 0;
#else
  return 0;
#endif
}

uint64_t available_memory() {
  const uint64_t memory = physical_memory(), limit = cgroup_limits().memory;
  return limit && (memory == 0 || limit < memory) ? limit : memory;
}

}  // namespace gemtp
