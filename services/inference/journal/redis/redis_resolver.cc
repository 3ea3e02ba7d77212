#include "services/inference/journal/redis/redis_resolver.h"

#include <boost/asio/post.hpp>
#include <map>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/lookup_host.h"
#include "services/base/mutex.h"

namespace runnel::inference {
namespace {

// Names that are being looked up: those of the options, and a few that Sentinels named before.
constexpr size_t kMaxLookups = 64;

}  // namespace

// Outlives the resolver if a lookup takes longer.
struct RedisResolver::State {
  base::Mutex mu;
  // By host:port; absent: being looked up.
  std::map<std::string, std::optional<std::vector<Endpoint>>> lookups GUARDED_BY(mu);
  RedisResolver* resolver GUARDED_BY(mu) = nullptr;  // null once it has been destroyed
};

RedisResolver::RedisResolver(net::io_context* io)
    : io_(io), state_(std::make_shared<State>()), arrived_(*io, Timer::time_point::max()) {
  base::MutexLock lock(&state_->mu);
  state_->resolver = this;
}

RedisResolver::~RedisResolver() {
  base::MutexLock lock(&state_->mu);
  state_->resolver = nullptr;
}

void RedisResolver::Cancel() {
  cancelled_ = true;
  arrived_.cancel();
}

Awaitable<std::vector<Endpoint>> RedisResolver::Resolve(std::string host, int port) {
  std::vector<Endpoint> addresses;
  ErrorCode ec;
  const auto address = net::ip::make_address(host, ec);
  if (!ec) {
    addresses.emplace_back(address, static_cast<uint16_t>(port));
    co_return addresses;
  }
  cancelled_ = false;
  const std::string key = absl::StrCat(host, ":", port);
  bool begin = false;
  {
    base::MutexLock lock(&state_->mu);
    if (state_->lookups.size() >= kMaxLookups && !state_->lookups.contains(key)) co_return addresses;
    begin = state_->lookups.try_emplace(key).second;
  }
  if (begin) {
    try {
      std::thread([state = state_, key, host, port] {
        std::vector<Endpoint> found = base::LookUpHost(host, port);
        // With the lock, so that the destructor waits: the loop exists until then.
        base::MutexLock lock(&state->mu);
        state->lookups[key] = std::move(found);
        if (state->resolver == nullptr) return;
        net::post(*state->resolver->io_, [state] {
          base::MutexLock again(&state->mu);
          if (state->resolver != nullptr) state->resolver->arrived_.cancel();
        });
      }).detach();
    } catch (const std::system_error&) {
      base::MutexLock lock(&state_->mu);
      state_->lookups.erase(key);
      co_return addresses;
    }
  }
  while (!cancelled_) {
    {
      base::MutexLock lock(&state_->mu);
      const auto found = state_->lookups.find(key);
      if (found->second.has_value()) {
        addresses = *std::move(found->second);
        state_->lookups.erase(found);
        break;
      }
    }
    arrived_.expires_at(Timer::time_point::max());
    co_await arrived_.async_wait(kAwait);
  }
  co_return addresses;
}

}  // namespace runnel::inference
