#pragma once

#include <string>
#include <thread>

#include "absl/time/time.h"
#include "services/base/mutex.h"

namespace runnel::base {

// Ends the process if its shutdown takes too long: an engine that is stuck, in a library or on a device, would
// otherwise keep it alive until it is killed. Declare it before every object whose destruction may take long.
class ExitDeadline {
 public:
  // Differs from success and from an error at the start.
  static constexpr int kExitCode = 70;

  ExitDeadline() = default;
  // The shutdown was in time.
  ~ExitDeadline();

  // After `timeout` the process logs what it was doing, and exits with kExitCode without running destructors. To be
  // called once.
  void Begin(absl::Duration timeout) EXCLUDES(mu_);
  // What the process does now, for the log.
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
