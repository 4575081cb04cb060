// Chooses the logical processors that are worth a thread.
#pragma once

#include <string>
#include <vector>

namespace gemtp {

struct LogicalCpu {
  std::string core;  // equal for the siblings of one physical core
  int capacity = 0;  // speed relative to the others, 0: unknown
};

/// Returns the number of threads that computes fastest on `cpus`, at least 1:
///  - One for each physical core: siblings share its arithmetic and its memory requests. Up to four
///    logical processors are all used, because one or two cores do not saturate the memory
///    channels.
///  - None for cores less than half as fast as the fastest (big.LITTLE), because a section lasts as
///    long as its slowest piece. Slightly slower cores (Intel's E cores) take fewer pieces and
///    still help.
int worthwhile_threads(const std::vector<LogicalCpu>& cpus);

/// Reads the topology of these processors from /sys (Linux). A missing file leaves its field
/// unknown; a processor without a known core counts as a core of its own.
std::vector<LogicalCpu> read_topology(const std::vector<int>& cpus,
                                      const std::string& root = "/sys/devices/system/cpu");

}  // namespace gemtp
