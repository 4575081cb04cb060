// What a kernel that runs on the emulated device asks of the launch it belongs to.
#pragma once

namespace gemtp::gpu {

/// All threads of the block come here before any goes on.
void block_barrier(int line);

/// All lanes of the warp come here before any goes on, and see what the others wrote.
void order_warp(int line);

/// All lanes of a warp come here, each with a value, before any goes on. The last one to come calls
/// `work`, if there is one, with the 32 values; every lane then has them until it next meets.
void* const* warp_meeting(void* value, int line, void (*work)(void* const*));

}  // namespace gemtp::gpu
