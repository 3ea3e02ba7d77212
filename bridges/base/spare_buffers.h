#pragma once

#include <string>

namespace runnel::bridge {

// The memory of connections' output buffers. Most connections wait for most of their life, so one that has nothing to
// write gives its buffer back to its thread, and who writes next gets one that was used a moment ago and is in the
// processor's cache. Each call is about the buffers of the calling thread.

// Gives `out`, if it is empty, memory of the thread's, if there is any.
void BorrowBuffer(std::string* out);

// Takes the memory of `out`, which becomes empty. A thread keeps kMaxSpareBuffers of up to kMaxSpareBytes, and frees
// the rest.
void ReturnBuffer(std::string* out);

inline constexpr size_t kMaxSpareBuffers = 64;
inline constexpr size_t kMaxSpareBytes = 16 << 10;

}  // namespace runnel::bridge
