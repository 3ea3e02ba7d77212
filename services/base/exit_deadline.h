#pragma once

#include <string>
#include <thread>

#include "absl/time/time.h"
#include "services/base/mutex.h"

namespace runnel::base {

// Ends the process if stopping it takes too long: an engine that is stuck, in a library or on a device, would keep it
// until it is killed. To be declared before everything whose end may take long.
class ExitDeadline {
 public:
  // Neither success nor an error at the start.
  static constexpr int kExitCode = 70;

  ExitDeadline() = default;
  // In time.
  ~ExitDeadline();

  // From now on the process has `timeout`. Then the log says what it was doing, and it ends with kExitCode, without
  // destructors. Once.
  void Begin(absl::Duration timeout) EXCLUDES(mu_);
  void Doing(std::string what) EXCLUDES(mu_);

 private:
  void Run(absl::Duration timeout) EXCLUDES(mu_);

  Mutex mu_;
  CondVar wake_;
  std::string doing_ GUARDED_BY(mu_) = "nothing";
  bool done_ GUARDED_BY(mu_) = false;
  std::jthread thread_;
};

}  // namespace runnel::base
