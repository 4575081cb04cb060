// Controls of fake_cuda.cc, the stand-in for NVIDIA's driver.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Sets one of the numbers that GEMTP_FAKE_CUDA ("name=value,name=value") sets when the library is
/// loaded. Returns 0 for a name that is unknown.
///   gpus, memory (bytes of each), capability (89), version (12080), init (the result of cuInit):
///     what there is
///   fail_allocation: this allocation from now on fails (1: the next), once; fail_from: all from
///     this one on
///   lose_at: at this call from now on the GPU is lost; lose_with: the error then, 719
///   stays_lost: 1, and the GPU is not there again when it is opened anew
///   refuse_code: 1, and only PTX can be loaded, as in an older driver
///   taken: 1, and another process has the GPU
///   slow: microseconds that a piece of work takes longer, at most; by chance
///   lazy: 1, and work begins when somebody waits for it
int fake_cuda_set(const char* name, int64_t value);

/// calls, allocations, launches, graph_launches, modules_loaded: how many there were. live: objects
/// and allocations that were made and not destroyed. complaints: see below.
int64_t fake_cuda_get(const char* name);

/// The first call that was wrong, as a sentence; "" if there was none. Forgets it.
const char* fake_cuda_complaint(void);

#ifdef __cplusplus
}
#endif
