#include "bridges/server/io_threads.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <thread>

#include "bridges/base/bridge_metrics.h"
#include "bridges/base/contain.h"
#include "bridges/link/grpc_stub.h"
#include "bridges/link/replica_router.h"
#include "bridges/server/inference_client.h"
#include "services/base/mutex.h"

namespace runnel::bridge {
namespace {

// How long connections may take to end after they were cut.
constexpr absl::Duration kAfterCut = absl::Seconds(5);

Link::Options LinkOptionsOf(const BridgeOptions& options) {
  return {.backlog = options.link_backlog,
          .open_timeout = options.open_timeout,
          .recovery_timeout = options.recovery_timeout,
          .reconnect_backoff = options.reconnect_backoff,
          .max_reconnect_backoff = options.max_reconnect_backoff};
}

}  // namespace

IoThread::IoThread(size_t thread_index, InferenceClient* inference_client, BridgeMetrics* bridge_metrics,
                   ByteBudget* budget, KnownReplicas* known, const BridgeOptions& options)
    : index(thread_index),
      io(1),
      client(inference_client),
      metrics(bridge_metrics),
      unfinished(budget),
      router_owner(std::make_unique<ReplicaRouter>(&io, bridge_metrics, known, LinkOptionsOf(options))),
      router(*router_owner),
      connections(bridge_metrics) {}

IoThread::~IoThread() = default;

struct IoThreads::Runner {
  explicit Runner(IoThread* io_thread) : thread(io_thread), work(io_thread->io.get_executor()), timer(io_thread->io) {}

  IoThread* const thread;
  net::executor_work_guard<Executor> work;
  net::steady_timer timer;
  std::jthread jthread;
};

IoThreads::IoThreads(const BridgeOptions& options, InferenceClient* client, BridgeMetrics* metrics)
    : tick_(options.tick),
      unfinished_(options.max_unfinished_bytes),
      known_({.recovery_timeout = options.recovery_timeout, .max_runs = options.max_known_replicas}) {
  const size_t count = options.io_threads == 0 ? 1 : options.io_threads;
  for (size_t i = 0; i < count; ++i) {
    threads_.push_back(std::make_unique<IoThread>(i, client, metrics, &unfinished_, &known_, options));
    threads_.back()->connections.Tick(base::Clock::System().Monotonic());
    runners_.push_back(std::make_unique<Runner>(threads_.back().get()));
  }
}

IoThreads::~IoThreads() {
  Cut();
  for (auto& runner : runners_) {
    runner->thread->io.stop();
    if (runner->jthread.joinable()) runner->jthread.join();
  }
  runners_.clear();
}

void IoThreads::Start() {
  for (auto& runner : runners_) {
    net::post(runner->thread->io, [this, raw = runner.get()] { Tick(raw); });
    runner->jthread = std::jthread([thread = runner->thread] { Run(thread); });
  }
}

// The last resort: a handler that throws loses what it owned, usually its connection, and the loop continues.
void IoThreads::Run(IoThread* thread) {
  while (!Contain(thread->metrics, [thread] { thread->io.run(); })) {
  }
}

void IoThreads::Tick(Runner* runner) {
  runner->timer.expires_after(absl::ToChronoNanoseconds(tick_));
  runner->timer.async_wait([this, runner](ErrorCode ec) {
    if (ec) return;
    // First, so that the next tick is scheduled whatever happens below.
    Tick(runner);
    runner->thread->connections.Tick(base::Clock::System().Monotonic());
    runner->thread->router.OnTick();
    runner->thread->attachments = runner->thread->router.attachments();
  });
}

void IoThreads::Update(const ReplicaSet::State& state) {
  std::vector<std::string> addresses;
  for (const auto& stub : state.replicas) addresses.push_back(stub->address);
  known_.OnListed(addresses);
  for (const auto& thread : threads_) {
    net::post(thread->io, [raw = thread.get(), state] { raw->router.Update(state); });
  }
}

size_t IoThreads::links_connected() const {
  size_t count = 0;
  for (const auto& thread : threads_) count += thread->router.connected();
  return count;
}

bool IoThreads::all_connected() const {
  return std::all_of(threads_.begin(), threads_.end(),
                     [](const auto& thread) { return thread->router.connected() > 0; });
}

size_t IoThreads::connections() const {
  size_t count = 0;
  for (const auto& thread : threads_) count += thread->connections.size();
  return count;
}

void IoThreads::SetGauges(BridgeMetrics* metrics) const {
  size_t pending = 0;
  size_t attachments = 0;
  for (const auto& thread : threads_) {
    pending += thread->connections.pending_bytes();
    attachments += thread->attachments;
  }
  metrics->connections.Set(static_cast<double>(connections()));
  metrics->pending_bytes.Set(static_cast<double>(pending));
  metrics->unfinished_bytes.Set(static_cast<double>(unfinished_.used()));
  metrics->link_attachments.Set(static_cast<double>(attachments));
  metrics->known_replicas.Set(static_cast<double>(known_.runs()));
}

bool IoThreads::WaitUntilEmpty(absl::Duration timeout) {
  const absl::Duration deadline = base::Clock::System().Monotonic() + timeout;
  base::Mutex mutex;
  base::CondVar never;
  base::MutexLock lock(&mutex);
  while (connections() > 0) {
    if (base::Clock::System().Monotonic() > deadline) return false;
    never.WaitUntil(&mutex, std::chrono::steady_clock::now() + std::chrono::milliseconds(5));
  }
  return true;
}

bool IoThreads::DrainFor(absl::Duration timeout) {
  for (auto& thread : threads_) {
    net::post(thread->io, [raw = thread.get()] { raw->connections.Drain(); });
  }
  return WaitUntilEmpty(timeout);
}

void IoThreads::Cut() {
  bool running = false;
  for (auto& runner : runners_) {
    if (!runner->jthread.joinable()) continue;
    running = true;
    net::post(runner->thread->io, [raw = runner->thread] {
      raw->connections.Cut();
      raw->router.Stop();
    });
  }
  if (running && !WaitUntilEmpty(kAfterCut)) spdlog::warn("{} connections did not end when cut", connections());
}

}  // namespace runnel::bridge
