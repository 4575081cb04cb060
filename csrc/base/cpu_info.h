// How much of the machine this process may use.
#pragma once

#include <cstdint>

namespace gemtp {

/// Logical processors that this process may run on: its affinity mask, capped by a cgroup CPU
/// quota. At least 1.
int available_cores();

/// Number of threads, out of these processors, that computation benefits from; see topology.h. At
/// least 1.
int default_threads();

/// Bytes of physical memory; 0 if unknown.
uint64_t physical_memory();

/// Bytes of memory that this process may use: physical memory, capped by a cgroup's limit. 0 if
/// unknown.
uint64_t available_memory();

}  // namespace gemtp
