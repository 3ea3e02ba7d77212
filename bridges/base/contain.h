#pragma once

#include <exception>
#include <utility>

namespace runnel::bridge {

struct BridgeMetrics;

// Logs and counts an exception that ended a connection.
void ReportException(BridgeMetrics* metrics, const char* what);

// Runs `call`, from which an exception must not get further: what a thread does for one connection must not end the
// others of the process. False if there was one; the caller ends the connection. None of our code throws by intention,
// but the libraries below do, such as for a length that nobody thought of.
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
