#include "services/base/exit_deadline.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"

namespace runnel::base {

ExitDeadline::~ExitDeadline() {
  MutexLock lock(&mu_);
  done_ = true;
  wake_.NotifyAll();
}

void ExitDeadline::Begin(absl::Duration timeout) {
  thread_ = std::jthread([this, timeout] { Run(timeout); });
}

void ExitDeadline::Doing(std::string what) {
  MutexLock lock(&mu_);
  doing_ = std::move(what);
}

void ExitDeadline::Run(absl::Duration timeout) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  MutexLock lock(&mu_);
  while (!done_) {
    if (wake_.WaitUntil(&mu_, deadline) || std::chrono::steady_clock::now() < deadline) continue;
    if (done_) return;
    spdlog::critical("shutdown takes longer than {}: still {}; exiting with {}", absl::FormatDuration(timeout), doing_,
                     kExitCode);
    spdlog::default_logger()->flush();
    std::_Exit(kExitCode);
  }
}

}  // namespace runnel::base
