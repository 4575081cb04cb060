#include "base/cpu_info.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "base/cgroup.h"

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

int available_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  if (const double quota = cgroup_limits().cores; quota > 0)
    cores = std::min(cores, static_cast<int>(std::ceil(quota)));
#endif
  return std::max(cores, 1);
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
