// Controls of fake_metal.cc, the stand-in for Metal.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Sets one of the numbers that GEMTP_FAKE_METAL ("name=value,name=value") sets when the library is
/// loaded. Returns 0 for a name that is unknown.
///   gpus, memory (bytes that a GPU should use at most), macos (15), family (7, of Apple's; 0: of
///     another maker), lanes (32), threads (1024, of a block): what there is
///   refuse_source: 1, and the compiler finds an error in every source
///   fail_allocation: this allocation from now on fails (1: the next), once; fail_from: all from
///     this one on
///   lose_at: at this message from now on the work of all queues fails, and all later work on them
///   slow: microseconds that a command buffer takes longer, at most; by chance
///   lazy: 1, and work begins when somebody waits for it
int fake_metal_set(const char* name, int64_t value);

/// calls, allocations, launches, command_buffers, libraries: how many there were. live: objects
/// that were made and not released. complaints: see below.
int64_t fake_metal_get(const char* name);

/// The first message that was wrong, as a sentence; "" if there was none. Forgets it.
const char* fake_metal_complaint(void);

#ifdef __cplusplus
}
#endif
