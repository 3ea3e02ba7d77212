#pragma once

#include <exception>
#include <utility>

namespace runnel::bridge {

struct BridgeMetrics;

// Logs and counts an exception that ended a connection.
void ReportException(BridgeMetrics* metrics, const char* what);

// Runs `call` and contains its exceptions: what a thread does for one connection must not end the others of the
// process. False if it threw; the caller then ends the connection. Our code throws nothing, but the libraries below do,
// for example for an unexpected length.
template <typename Call>
[[nodiscard]] bool Contain(BridgeMetrics* metrics, Call&& call) {
  try {
    std::forward<Call>(call)();
    return true;
  } catch (const std::exception& error) {
    ReportException(metrics, error.what());
  } catch (...) {
    ReportException(metrics, "an unknown exception");
  }
  return false;
}

}  // namespace runnel::bridge
