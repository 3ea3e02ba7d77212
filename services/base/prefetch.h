#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace runnel::base {

// The processor loads `memory` into its caches while the caller goes on. For a loop over many objects: with thousands
// of streams, each is cold when its turn comes, and waiting for their memory one after another costs more than the
// work. Never faults, so the memory need not be valid any more.
inline void Prefetch(std::span<const std::byte> memory) {
  constexpr size_t kCacheLine = 64;
  // A number, because arithmetic on a pointer is defined within an object only.
  const auto begin = reinterpret_cast<uintptr_t>(memory.data());
  for (size_t i = 0; i < memory.size(); i += kCacheLine) __builtin_prefetch(reinterpret_cast<const void*>(begin + i));
}

// The memory of an object itself, without what it points to.
template <typename T>
std::span<const std::byte> MemoryOf(const T& object) {
  return std::as_bytes(std::span<const T, 1>(&object, 1));
}

}  // namespace runnel::base
