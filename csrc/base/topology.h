// Which of the logical processors are worth a thread.
#pragma once

#include <string>
#include <vector>

namespace gemtp {

struct LogicalCpu {
  std::string core;  // equal for the siblings of one physical core
  int capacity = 0;  // speed relative to the others, 0: unknown
};

/// Threads that compute fastest on `cpus`, at least 1:
///  - one for each physical core: siblings share its arithmetic and its memory requests. But up to
///    four logical processors are all used: one or two cores do not fill the memory's channels.
///  - none for cores less than half as fast as the fastest (big.LITTLE): sections end with their
///    slowest piece. Cores a little slower (Intel's E) take fewer pieces and pay.
int worthwhile_threads(const std::vector<LogicalCpu>& cpus);

/// Linux: what /sys says of these processors. A file that is not there leaves its field unknown,
/// and a processor without a core is one of its own.
std::vector<LogicalCpu> read_topology(const std::vector<int>& cpus,
                                      const std::string& root = "/sys/devices/system/cpu");

}  // namespace gemtp
