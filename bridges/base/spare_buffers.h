#pragma once

#include <string>

namespace runnel::bridge {

// The memory of the connections' output buffers. Most connections are idle most of the time, so one with nothing to
// write returns its buffer to its thread, and the next one that writes gets a buffer that was used recently and is in
// the processor's cache. Each call uses the buffers of the calling thread.

// Moves a spare buffer of the thread, if there is one, into `out`, if that is empty.
void BorrowBuffer(std::string* out);

// Takes the memory of `out`, which becomes empty. A thread keeps up to kMaxSpareBuffers of up to kMaxSpareBytes each
// and frees the rest.
void ReturnBuffer(std::string* out);

inline constexpr size_t kMaxSpareBuffers = 64;
inline constexpr size_t kMaxSpareBytes = 16 << 10;

}  // namespace runnel::bridge
