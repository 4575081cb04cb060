// How much of the machine this process may use.
#pragma once

#include <cstdint>

namespace gemtp {

/// Logical processors this process may run on: its affinity mask, capped by a cgroup CPU quota. At
/// least 1.
int available_cores();

/// Of these, as many as computing profits from; see topology.h. At least 1.
int default_threads();

/// Bytes of physical memory, 0 when unknown.
uint64_t physical_memory();

/// Bytes this process may use: physical memory, capped by a cgroup's limit. 0 when unknown.
uint64_t available_memory();

}  // namespace gemtp
