// Limits that a Linux control group (a container, a service, a batch job) puts on this process.
#pragma once

#include <cstdint>
#include <string>

namespace gemtp {

struct CgroupLimits {
  double cores = 0;     // CPU time per time that the quota allows, 0: no quota
  uint64_t memory = 0;  // bytes, 0: no limit
};

/// Returns the tightest limits of this process's groups and their parents, for cgroup versions 1
/// and 2. `mount`: where the hierarchies are mounted; `self`: the file that names this process's
/// groups. Files that cannot be read impose no limit.
CgroupLimits cgroup_limits(const std::string& mount = "/sys/fs/cgroup",
                           const std::string& self = "/proc/self/cgroup");

}  // namespace gemtp
