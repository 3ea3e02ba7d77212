#pragma once

#include <chrono>
#include <functional>
#include <thread>

namespace runnel::testing {

// Polls until `condition` holds, for conditions that do not notify the test. Returns false after 10 s, which only
// bounds a failure.
inline bool WaitUntil(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace runnel::testing
