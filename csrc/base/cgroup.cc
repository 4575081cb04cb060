#include "base/cgroup.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

namespace gemtp {
namespace {

// Version 1 writes "no limit" as the largest multiple of the page size below 2^63.
constexpr uint64_t kUnlimited = uint64_t{1} << 60;

bool parse(const std::string& text, uint64_t* value) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *value);
  return error == std::errc() && stop == end;
}

// The first two words of a file; empty if the file has fewer or cannot be read.
struct Words {
  std::string first, second;
};
Words read_words(const std::string& path) {
  Words w;
  std::ifstream file(path);
  file >> w.first >> w.second;
  return w;
}

void limit_memory(const std::string& path, CgroupLimits* limits) {
  uint64_t bytes = 0;
  if (!parse(read_words(path).first, &bytes) || bytes >= kUnlimited) return;
  limits->memory = limits->memory ? std::min(limits->memory, bytes) : bytes;
}

void limit_cores(const std::string& quota, const std::string& period, CgroupLimits* limits) {
  uint64_t q = 0, p = 0;
  if (!parse(quota, &q) || !parse(period, &p) || q == 0 || p == 0) return;  // also "max" and "-1"
  const double cores = static_cast<double>(q) / static_cast<double>(p);
  limits->cores = limits->cores > 0 ? std::min(limits->cores, cores) : cores;
}

// Calls visit(folder) for `group` below `root` and for each of its parents, `root` included. If a
// group does not exist (a container sees its own group as the root), its parents are visited all
// the same.
template <class Visit>
void walk(const std::string& root, std::string group, const Visit& visit) {
  while (group.size() > 1) {
    visit(root + group);
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
  visit(root);
}

}  // namespace

CgroupLimits cgroup_limits(const std::string& mount, const std::string& self) {
  CgroupLimits limits;
  std::ifstream groups(self);
  // Lines of the form number:controllers:path; version 2 has number 0 and no controllers.
  for (std::string line; std::getline(groups, line);) {
    const size_t a = line.find(':'), b = line.find(':', a + 1);
    if (a == std::string::npos || b == std::string::npos) continue;
    const std::string controllers = line.substr(a + 1, b - a - 1), group = line.substr(b + 1);
    if (controllers.empty()) {
      for (const std::string& root : {mount, mount + "/unified"})
        walk(root, group, [&](const std::string& folder) {
          limit_memory(folder + "/memory.max", &limits);
          const Words w = read_words(folder + "/cpu.max");
          limit_cores(w.first, w.second, &limits);
        });
      continue;
    }
    std::istringstream list(controllers);
    for (std::string name; std::getline(list, name, ',');) {
      if (name != "memory" && name != "cpu") continue;
      for (const std::string& root : {mount + "/" + name, mount + "/" + controllers})
        walk(root, group, [&](const std::string& folder) {
          if (name == "memory") return limit_memory(folder + "/memory.limit_in_bytes", &limits);
          limit_cores(read_words(folder + "/cpu.cfs_quota_us").first,
                      read_words(folder + "/cpu.cfs_period_us").first, &limits);
        });
    }
  }
  return limits;
}

}  // namespace gemtp
