#include "services/inference/engines/upstream/upstream_resolver.h"

#include <chrono>
#include <deque>
#include <map>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/lookup_host.h"
#include "services/base/mutex.h"

namespace runnel::inference {
namespace {

using SteadyClock = std::chrono::steady_clock;

}  // namespace

struct UpstreamResolver::State {
  struct Name {
    std::string host;
    int port = 0;
    std::vector<Endpoint> addresses;  // empty: not known
    SteadyClock::time_point since;
    std::vector<OnResolved> waiting;
    bool queued = false;
  };

  explicit State(absl::Duration refresh_after) : refresh(absl::ToChronoNanoseconds(refresh_after)) {}

  void Run() EXCLUDES(mu);
  void EnqueueLocked(Name* name) REQUIRES(mu) {
    if (std::exchange(name->queued, true)) return;
    queue.push_back(name);
    wake.NotifyOne();
  }

  const std::chrono::nanoseconds refresh;
  base::Mutex mu;
  base::CondVar wake;
  std::map<std::string, Name> names GUARDED_BY(mu);  // by host:port; as many as there are upstreams
  std::deque<Name*> queue GUARDED_BY(mu);
  bool started GUARDED_BY(mu) = false;
  bool closed GUARDED_BY(mu) = false;
};

void UpstreamResolver::State::Run() {
  base::MutexLock lock(&mu);
  while (!closed) {
    if (queue.empty()) {
      wake.Wait(&mu);
      continue;
    }
    Name* name = queue.front();
    queue.pop_front();
    mu.Unlock();
    std::vector<Endpoint> addresses = base::LookUpHost(name->host, name->port);
    mu.Lock();
    name->queued = false;
    if (!addresses.empty()) name->addresses = std::move(addresses);
    name->since = SteadyClock::now();
    const std::vector<OnResolved> waiting = std::exchange(name->waiting, {});
    if (closed) return;
    // With the lock, so that the destructor waits: what `done` posts to exists until then.
    for (const OnResolved& done : waiting) done(name->addresses);
  }
}

UpstreamResolver::UpstreamResolver(absl::Duration refresh) : state_(std::make_shared<State>(refresh)) {}

UpstreamResolver::~UpstreamResolver() {
  base::MutexLock lock(&state_->mu);
  state_->closed = true;
  for (auto& [key, name] : state_->names) name.waiting.clear();
  state_->wake.NotifyOne();
}

void UpstreamResolver::Resolve(const std::string& host, int port, OnResolved done) {
  ErrorCode ec;
  const auto address = net::ip::make_address(host, ec);
  if (!ec) return done({Endpoint(address, static_cast<uint16_t>(port))});
  std::vector<Endpoint> known;
  {
    base::MutexLock lock(&state_->mu);
    if (!state_->started) {
      try {
        std::thread([state = state_] { state->Run(); }).detach();
        state_->started = true;
      } catch (const std::system_error&) {
      }
    }
    if (state_->started) {
      State::Name& name = state_->names[absl::StrCat(host, ":", port)];
      if (name.host.empty()) {
        name.host = host;
        name.port = port;
      }
      const bool old = SteadyClock::now() - name.since >= state_->refresh;
      if (name.addresses.empty() || old) state_->EnqueueLocked(&name);
      if (name.addresses.empty()) {
        name.waiting.push_back(std::move(done));
        return;
      }
      known = name.addresses;
    }
  }
  done(std::move(known));
}

}  // namespace runnel::inference
