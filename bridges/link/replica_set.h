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

// The replicas of the inference service: who they are, as the name service says again and again, and the one
// connection of the process to each. Thread-safe; asks on a thread of its own.
class ReplicaSet {
 public:
  // The addresses, as ip:port, of a name. Blocks; may fail for a while. NotFound if the name service says that there is
  // no such name.
  using Resolve = std::function<absl::StatusOr<std::vector<std::string>>(const std::string& host, int port)>;

  struct Options {
    // Addresses separated by commas. `dns:///host:port` stands for every address of the name, as a headless Service of
    // Kubernetes has one for each pod; any other is one replica.
    std::string targets;
    // How often names are asked again.
    absl::Duration interval = absl::Seconds(5);
    absl::Duration keepalive = absl::Seconds(10);  // see ConnectTo
    Resolve resolve = &ResolveByDns;
  };

  // What is known at one time. A replica that stays has the same stub as before.
  struct State {
    std::vector<std::shared_ptr<GrpcStub>> replicas;
    uint64_t round = 0;    // how often all names have been asked
    bool complete = true;  // every name was answered the last time
  };
  using OnChange = std::function<void(const State& state)>;

  // InvalidArgument for targets of another form.
  static absl::StatusOr<std::unique_ptr<ReplicaSet>> Create(Options options);
  ~ReplicaSet();

  // Calls `on_change` with the present state, and from then on after every round, on this set's thread. Once.
  void Start(OnChange on_change);
  // `on_change` is not called any more once this returns.
  void Stop();

  // Asks the names again now, if there are any. Returns the round that will have begun after this call: when
  // State.round has reached it, the replicas are those of a moment not before the call.
  uint64_t Refresh() EXCLUDES(mu_);

  static absl::StatusOr<std::vector<std::string>> ResolveByDns(const std::string& host, int port);

 private:
  struct Name {
    std::string host;
    int port = 0;
    std::vector<std::string> addresses;  // as of the last time that it could be asked
    bool answered = true;                // the last time
    bool resolved = false;               // ever
  };

  explicit ReplicaSet(Options options);
  absl::Status ParseTargets();
  void Run() EXCLUDES(mu_);
  void AskNames();
  State MakeState(uint64_t round);

  const Options options_;
  const std::shared_ptr<GrpcPoller> poller_;  // of all replicas
  std::vector<std::string> fixed_;
  // Of the thread, once it runs.
  std::vector<Name> names_;
  std::map<std::string, std::shared_ptr<GrpcStub>> stubs_;
  OnChange on_change_;

  base::Mutex mu_;
  base::CondVar wake_;
  uint64_t round_ GUARDED_BY(mu_) = 0;   // done
  bool asking_ GUARDED_BY(mu_) = false;  // the next is under way
  bool refresh_ GUARDED_BY(mu_) = false;
  bool stopped_ GUARDED_BY(mu_) = false;
  std::jthread thread_;
};

}  // namespace runnel::bridge
