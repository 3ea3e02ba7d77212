#pragma once

#include <chrono>
#include <functional>
#include <thread>

namespace runnel::testing {

// Waits until `condition` holds, for what a test cannot be told of. False after 10 s, which is a failure and not a
// pace.
inline bool WaitUntil(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace runnel::testing
