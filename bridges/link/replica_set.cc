#include "bridges/link/replica_set.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "bridges/link/grpc_stub.h"
#include "services/base/host_port.h"
#include "services/base/status_macros.h"

namespace runnel::bridge {
namespace {

constexpr absl::string_view kDns = "dns:///";
// The minimum between two rounds, however often requests need a refresh.
constexpr auto kMinInterval = std::chrono::milliseconds(200);

std::string AddressOf(const sockaddr& address, int port) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text.data(), text.size());
    return absl::StrCat(text.data(), ":", port);
  }
  inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, text.data(), text.size());
  return absl::StrCat("[", text.data(), "]:", port);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ReplicaSet::ResolveByDns(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  // The name exists but has no address: no replica is ready.
  if (error == EAI_NODATA) return std::vector<std::string>();
  if (error == EAI_NONAME) return absl::NotFoundError(absl::StrCat(host, ": ", gai_strerror(error)));
  if (error != 0) return absl::UnavailableError(absl::StrCat(host, ": ", gai_strerror(error)));
  std::set<std::string> addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    if (each->ai_family == AF_INET || each->ai_family == AF_INET6) addresses.insert(AddressOf(*each->ai_addr, port));
  }
  freeaddrinfo(found);
  return std::vector<std::string>(addresses.begin(), addresses.end());
}

absl::StatusOr<std::unique_ptr<ReplicaSet>> ReplicaSet::Create(Options options) {
  std::unique_ptr<ReplicaSet> set(new ReplicaSet(std::move(options)));
  RETURN_IF_ERROR(set->ParseTargets());
  return set;
}

ReplicaSet::ReplicaSet(Options options) : options_(std::move(options)), poller_(std::make_shared<GrpcPoller>()) {}

ReplicaSet::~ReplicaSet() { Stop(); }

absl::Status ReplicaSet::ParseTargets() {
  for (const absl::string_view target : absl::StrSplit(options_.targets, ',')) {
    absl::string_view address = target;
    const bool is_name = absl::ConsumePrefix(&address, kDns);
    auto parsed = base::ParseHostPort(std::string(address));
    // Any other form would be looked up in DNS for as long as the bridge runs, without success.
    if (!parsed.ok() || parsed->host.empty() || parsed->port == 0 || absl::StrContains(parsed->host, '/')) {
      return absl::InvalidArgumentError(absl::StrCat("--inference has '", target,
                                                     "': expected HOST:PORT or dns:///NAME:PORT, several separated by "
                                                     "commas, without http://"));
    }
    if (is_name) {
      names_.push_back({std::move(parsed->host), parsed->port, {}});
    } else {
      fixed_.emplace_back(address);
    }
  }
  return absl::OkStatus();
}

void ReplicaSet::Start(OnChange on_change) {
  on_change_ = std::move(on_change);
  if (names_.empty()) return on_change_(MakeState(0));
  thread_ = std::jthread([this] { Run(); });
}

void ReplicaSet::Stop() {
  {
    base::MutexLock lock(&mu_);
    stopped_ = true;
    wake_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

uint64_t ReplicaSet::Refresh() {
  if (!thread_.joinable()) return 0;
  base::MutexLock lock(&mu_);
  refresh_ = true;
  wake_.NotifyAll();
  return round_ + (resolving_ ? 2 : 1);
}

void ReplicaSet::Run() {
  base::MutexLock lock(&mu_);
  while (!stopped_) {
    resolving_ = true;
    refresh_ = false;
    const uint64_t round = round_ + 1;
    mu_.Unlock();
    ResolveNames();
    on_change_(MakeState(round));
    mu_.Lock();
    resolving_ = false;
    round_ = round;
    const auto now = std::chrono::steady_clock::now();
    const auto due = now + absl::ToChronoNanoseconds(options_.interval);
    while (!stopped_ && std::chrono::steady_clock::now() < (refresh_ ? now + kMinInterval : due)) {
      wake_.WaitUntil(&mu_, refresh_ ? now + kMinInterval : due);
    }
  }
}

void ReplicaSet::ResolveNames() {
  for (Name& name : names_) {
    absl::StatusOr<std::vector<std::string>> addresses = options_.resolve(name.host, name.port);
    // CoreDNS returns NXDOMAIN for a headless Service without endpoints. A name that was never resolved may be wrong.
    if (absl::IsNotFound(addresses.status()) && name.resolved) addresses = std::vector<std::string>();
    name.current = addresses.ok();
    if (!addresses.ok()) {
      // A temporary failure of DNS means nothing for the replicas.
      spdlog::warn("cannot resolve --inference: {}", std::string(addresses.status().message()));
      continue;
    }
    name.resolved = true;
    if (*addresses == name.addresses) continue;
    name.addresses = *std::move(addresses);
    if (name.addresses.empty()) {
      spdlog::warn("no replicas at {}: the name has no addresses any more", name.host);
    } else {
      spdlog::info("replicas at {}: {}", name.host, absl::StrJoin(name.addresses, ", "));
    }
  }
}

ReplicaSet::State ReplicaSet::MakeState(uint64_t round) {
  std::set<std::string> addresses(fixed_.begin(), fixed_.end());
  for (const Name& name : names_) addresses.insert(name.addresses.begin(), name.addresses.end());
  std::erase_if(stubs_, [&](const auto& entry) { return !addresses.contains(entry.first); });
  State state;
  state.round = round;
  state.complete = std::all_of(names_.begin(), names_.end(), [](const Name& name) { return name.current; });
  for (const std::string& address : addresses) {
    std::shared_ptr<GrpcStub>& stub = stubs_[address];
    if (stub == nullptr) stub = ConnectTo(address, options_.keepalive, poller_);
    state.replicas.push_back(stub);
  }
  return state;
}

}  // namespace runnel::bridge
