#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "bridges/base/byte_budget.h"
#include "bridges/base/connection_set.h"
#include "bridges/base/net.h"
#include "bridges/base/options.h"
#include "bridges/link/known_replicas.h"
#include "bridges/link/replica_router.h"

namespace runnel::bridge {

struct BridgeMetrics;
class InferenceClient;

// One thread with all that belongs to it: its loop, its Links and its connections. A connection never changes thread.
struct IoThread {
  IoThread(size_t index, InferenceClient* inference_client, BridgeMetrics* bridge_metrics, ByteBudget* budget,
           KnownReplicas* known, const Link::Options& link_options);

  const size_t index;
  net::io_context io;
  InferenceClient* const client;
  BridgeMetrics* const metrics;
  ByteBudget* const unfinished;  // of all threads
  ReplicaRouter router;
  std::atomic<size_t> attachments = 0;  // of its Links, as of the last tick
  ConnectionSet connections;
  // Why the process is not ready, or empty. Set before the threads start; any thread.
  std::function<std::string()> not_ready_reason;
};

// The threads of a bridge. Start, then Drain, then Cut, then the destructor, which joins them.
class IoThreads {
 public:
  // `client` and `metrics` must outlive it.
  IoThreads(const BridgeOptions& options, InferenceClient* client, BridgeMetrics* metrics);
  ~IoThreads();

  void Start();
  size_t size() const { return threads_.size(); }
  IoThread& operator[](size_t i) { return *threads_[i]; }

  // Tells all threads of the replicas there are. Any thread, between Start and the destructor.
  void Update(const ReplicaSet::State& state);
  // How many Links are connected.
  size_t links_connected() const;
  size_t connections() const;
  // Sets the gauges that are cheaper to read than to keep.
  void SetGauges(BridgeMetrics* metrics) const;

  // Tells every connection to end. False if some are still there after `timeout`.
  bool DrainFor(absl::Duration timeout);
  // Cuts those that are left, ends the Links, and waits a moment for both.
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
