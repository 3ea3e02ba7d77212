#include "services/base/shutdown.h"

#include <signal.h>
#include <unistd.h>

namespace runnel::base {
namespace {

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

void ExitAtOnce(int) { _exit(1); }

}  // namespace

ShutdownSignal::ShutdownSignal() {
  const sigset_t set = StopSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int ShutdownSignal::Wait() {
  const sigset_t set = StopSignals();
  int number = 0;
  sigwait(&set, &number);
  signal(SIGTERM, ExitAtOnce);
  signal(SIGINT, ExitAtOnce);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  return number;
}

bool ShutdownSignal::ArrivesWithin(absl::Duration time) {
  const sigset_t set = StopSignals();
  const timespec timeout = absl::ToTimespec(time);
  return sigtimedwait(&set, nullptr, &timeout) > 0;
}

void ShutdownSignal::Raise() { kill(getpid(), SIGTERM); }

}  // namespace runnel::base
