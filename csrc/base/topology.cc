#include "base/topology.h"

#include <algorithm>
#include <fstream>
#include <set>

namespace gemtp {

int worthwhile_threads(const std::vector<LogicalCpu>& cpus) {
  constexpr int kAllUpTo = 4;
  int fastest = 0;
  for (const LogicalCpu& c : cpus) fastest = std::max(fastest, c.capacity);
  std::set<std::string> cores;
  int logical = 0;
  for (const LogicalCpu& c : cpus) {
    if (c.capacity > 0 && 2 * c.capacity < fastest) continue;
    cores.insert(c.core);
    ++logical;
  }
  return std::max({1, static_cast<int>(cores.size()), std::min(logical, kAllUpTo)});
}

std::vector<LogicalCpu> read_topology(const std::vector<int>& cpus, const std::string& root) {
  std::vector<LogicalCpu> out;
  for (const int n : cpus) {
    const std::string folder = root + "/cpu" + std::to_string(n);
    LogicalCpu cpu;
    for (const char* name : {"/topology/core_cpus_list", "/topology/thread_siblings_list"})
      if (cpu.core.empty()) std::ifstream(folder + name) >> cpu.core;
    if (cpu.core.empty()) cpu.core = std::to_string(n);
    int capacity = 0;
    if (std::ifstream(folder + "/cpu_capacity") >> capacity && capacity > 0)
      cpu.capacity = capacity;
    out.push_back(cpu);
  }
  return out;
}

}  // namespace gemtp
