#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "bridges/base/byte_budget.h"
#include "bridges/base/connection_set.h"
#include "bridges/base/net.h"
#include "bridges/base/options.h"
#include "bridges/link/known_replicas.h"
#include "bridges/link/replica_set.h"

namespace runnel::bridge {

struct BridgeMetrics;
class InferenceClient;
class ReplicaRouter;

// One thread with its loop, its Links and its connections. A connection never changes its thread.
struct IoThread {
  IoThread(size_t index, InferenceClient* inference_client, BridgeMetrics* bridge_metrics, ByteBudget* budget,
           KnownReplicas* known, const BridgeOptions& options);
  ~IoThread();

  const size_t index;
  net::io_context io;
  InferenceClient* const client;
  BridgeMetrics* const metrics;
  ByteBudget* const unfinished;  // shared by all threads
  // Behind a pointer, because few of those that include this header need the Links. Subscriptions keep the address.
  const std::unique_ptr<ReplicaRouter> router_owner;
  ReplicaRouter& router;
  std::atomic<size_t> attachments = 0;  // on its Links, as of the last tick
  ConnectionSet connections;
  // Returns why the process is not ready, or an empty string. Set before the threads start; callable on any thread.
  std::function<std::string()> not_ready_reason;
};

// The threads of a bridge. Call Start, then DrainFor, then Cut, then the destructor, which joins them.
class IoThreads {
 public:
  // `client` and `metrics` must outlive it.
  IoThreads(const BridgeOptions& options, InferenceClient* client, BridgeMetrics* metrics);
  ~IoThreads();

  void Start();
  size_t size() const { return threads_.size(); }
  IoThread& operator[](size_t i) { return *threads_[i]; }

  // Passes the list of replicas to all threads. Any thread, between Start and the destructor.
  void Update(const ReplicaSet::State& state);
  // The number of Links that are connected.
  size_t links_connected() const;
  // Every thread has a connected Link.
  bool all_connected() const;
  size_t connections() const;
  // Sets the gauges that are cheaper to compute when they are read than to keep up to date.
  void SetGauges(BridgeMetrics* metrics) const;

  // Asks every connection to end. False if some are still open after `timeout`.
  bool DrainFor(absl::Duration timeout);
  // Cuts the remaining connections, ends the Links, and waits up to 5 s for the connections.
  void Cut();

 private:
  struct Runner;
  static void Run(IoThread* thread);
  void Tick(Runner* runner);
  bool WaitUntilEmpty(absl::Duration timeout);

  const absl::Duration tick_;
  ByteBudget unfinished_;
  KnownReplicas known_;
  std::vector<std::unique_ptr<IoThread>> threads_;
  std::vector<std::unique_ptr<Runner>> runners_;
};

}  // namespace runnel::bridge
