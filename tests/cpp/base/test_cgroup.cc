#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/cgroup.h"
#include "base/cpu_info.h"

using namespace gemtp;

namespace {

// A folder tree of files as the kernel shows them.
class Tree {
 public:
  Tree() {
    static int counter = 0;
    root_ = std::filesystem::temp_directory_path() /
            ("gemtp-cgroup-" + std::to_string(reinterpret_cast<uintptr_t>(this)) + "-" +
             std::to_string(counter++));
  }
  ~Tree() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  Tree& file(const std::string& path, const std::string& text) {
    const auto full = root_ / path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
    return *this;
  }
  CgroupLimits limits() const {
    return cgroup_limits((root_ / "fs").string(), (root_ / "self").string());
  }

 private:
  std::filesystem::path root_;
};

}  // namespace

TEST_CASE("cgroup version 2: the tightest of a group and its parents") {
  Tree t;
  t.file("self", "0::/box/inner\n");
  CHECK(t.limits().memory == 0);
  CHECK(t.limits().cores == 0);
  t.file("fs/box/memory.max", "3000000\n").file("fs/box/inner/memory.max", "max\n");
  t.file("fs/box/cpu.max", "max 100000\n").file("fs/box/inner/cpu.max", "150000 100000\n");
  CHECK(t.limits().memory == 3000000);
  CHECK(t.limits().cores == 1.5);
  t.file("fs/box/inner/memory.max", "2000000").file("fs/cpu.max", "50000 100000");
  CHECK(t.limits().memory == 2000000);
  CHECK(t.limits().cores == 0.5);
}

TEST_CASE("cgroup version 2 in a container: the group's own path is not there, its limits are") {
  Tree t;
  t.file("self", "0::/system.slice/docker-1234.scope\n");
  t.file("fs/memory.max", "1073741824\n").file("fs/cpu.max", "200000 100000\n");
  CHECK(t.limits().memory == uint64_t{1} << 30);
  CHECK(t.limits().cores == 2);
}

TEST_CASE("cgroup version 1, joint controllers, and no limit") {
  Tree t;
  t.file("self", "9:name=systemd:/\n4:cpu,cpuacct:/job/7\n2:memory:/job/7\n0::/\n");
  t.file("fs/memory/job/7/memory.limit_in_bytes", "9223372036854771712\n");
  t.file("fs/cpu,cpuacct/job/7/cpu.cfs_quota_us", "-1\n");
  t.file("fs/cpu,cpuacct/job/7/cpu.cfs_period_us", "100000\n");
  CHECK(t.limits().memory == 0);
  CHECK(t.limits().cores == 0);
  t.file("fs/memory/job/memory.limit_in_bytes", "5000\n");
  t.file("fs/cpu,cpuacct/job/7/cpu.cfs_quota_us", "300000\n");
  CHECK(t.limits().memory == 5000);
  CHECK(t.limits().cores == 3);
}

TEST_CASE("cgroup files that make no sense limit nothing") {
  Tree t;
  t.file("self", "nonsense\n::\n0:\n0::\n0::/x\n1:memory\n");
  t.file("fs/x/memory.max", "12 monkeys").file("fs/memory.max", "-5").file("fs/x/cpu.max", "1 0");
  t.file("fs/cpu.max", "");
  CHECK(t.limits().memory == 12);  // "12" is a number; what follows is not looked at
  CHECK(t.limits().cores == 0);
  CHECK(cgroup_limits("/nowhere", "/nowhere").memory == 0);
}

TEST_CASE("this machine has cores and memory") {
  CHECK(available_cores() >= 1);
  CHECK(available_memory() <= physical_memory());
}
