#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/mutex.h"

namespace runnel::bridge {

class GrpcPoller;
struct GrpcStub;

// The replicas of the inference service, as fixed addresses or as DNS lists them at each interval, and the one
// connection of the process to each. Thread-safe; resolves names on a separate thread.
class ReplicaSet {
 public:
  // Returns the addresses of a name, as ip:port. Blocks; may fail temporarily. NotFound if the name does not exist.
  using Resolve = std::function<absl::StatusOr<std::vector<std::string>>(const std::string& host, int port)>;

  struct Options {
    // Addresses separated by commas. `dns:///host:port` means every address of the name: a headless Service of
    // Kubernetes has one per pod. Any other address is one replica.
    std::string targets;
    // The time between two rounds of resolving all names.
    absl::Duration interval = absl::Seconds(5);
    absl::Duration keepalive = absl::Seconds(10);  // see ConnectTo
    Resolve resolve = &ResolveByDns;
  };

  // A snapshot. A replica that stays has the same stub as before.
  struct State {
    std::vector<std::shared_ptr<GrpcStub>> replicas;
    uint64_t round = 0;    // how often all names have been resolved
    bool complete = true;  // every name could be resolved in this round
  };
  using OnChange = std::function<void(const State& state)>;

  // InvalidArgument if the targets are malformed.
  static absl::StatusOr<std::unique_ptr<ReplicaSet>> Create(Options options);
  ~ReplicaSet();

  // Calls `on_change` after every round, on this set's thread; without names once, before it returns. Call it once.
  void Start(OnChange on_change);
  // `on_change` is not called after this returns.
  void Stop();

  // Resolves the names again soon, if there are any. Returns a round that begins after this call: once State.round has
  // reached it, the replicas are as recent as the call.
  uint64_t Refresh() EXCLUDES(mu_);

  static absl::StatusOr<std::vector<std::string>> ResolveByDns(const std::string& host, int port);

 private:
  struct Name {
    std::string host;
    int port = 0;
    std::vector<std::string> addresses;  // as of the last successful attempt
    bool current = true;                 // the last attempt was successful
    bool resolved = false;               // any attempt was successful
  };

  explicit ReplicaSet(Options options);
  absl::Status ParseTargets();
  void Run() EXCLUDES(mu_);
  void ResolveNames();
  State MakeState(uint64_t round);

  const Options options_;
  const std::shared_ptr<GrpcPoller> poller_;  // shared by all replicas
  std::vector<std::string> fixed_;
  // Confined to the thread once it runs.
  std::vector<Name> names_;
  std::map<std::string, std::shared_ptr<GrpcStub>> stubs_;
  OnChange on_change_;

  base::Mutex mu_;
  base::CondVar wake_;
  uint64_t round_ GUARDED_BY(mu_) = 0;      // the last complete one
  bool resolving_ GUARDED_BY(mu_) = false;  // the next one is in progress
  bool refresh_ GUARDED_BY(mu_) = false;
  bool stopped_ GUARDED_BY(mu_) = false;
  std::jthread thread_;
};

}  // namespace runnel::bridge
