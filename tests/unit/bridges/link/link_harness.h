#pragma once

#include <boost/asio/post.hpp>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bridges/base/bridge_metrics.h"
#include "bridges/link/replica_router.h"
#include "bridges/link/subscription.h"
#include "bridges/server/inference_client.h"
#include "bridges/server/io_threads.h"
#include "services/base/grpc_status.h"
#include "services/base/metrics.h"
#include "services/base/mutex.h"
#include "tests/testing/fake_inference_service.h"
#include "tests/testing/wait.h"

namespace runnel::bridge {

// For every test of this folder.
using testing::DeltaEvent;
using testing::DoneEvent;
using testing::FakeId;
using testing::FakeInferenceService;
using testing::MergedEvent;
using testing::StartedEvent;
using testing::WaitUntil;

inline const std::string kGen = FakeId('a');
inline const std::string kOpened = "opened " + kGen + " 0";  // as RecordingReader writes OnOpened

inline v1::GenerateRequest Prompt() {
  v1::GenerateRequest request;
  request.set_prompt("p");
  return request;
}

// A reader that records its calls: "opened gen_x 5", "event 2", "flush", "progress 3", "end OK". It is called on the io
// thread; its log may be read on any thread.
class RecordingReader final : public Subscription::Handler {
 public:
  void OnOpened(Subscription* subscription, const GenerationInfo& opened) override {
    Add("opened " + subscription->generation_id() + " " + std::to_string(opened.last_seq));
  }
  void OnEvent(Subscription* subscription, v1::GenerationEvent& event) override {
    Add("event " + std::to_string(event.seq()) + (event.has_failed() ? " failed " + event.failed().code() : ""));
    if (pause_at == event.seq()) subscription->Pause();
  }
  void OnProgress(Subscription*, const v1::Progress& progress) override {
    Add("progress " + std::to_string(progress.queue_position()));
  }
  void OnFlush(Subscription*) override {
    if (on_flush) on_flush();
    Add("flush");
  }
  void OnEnd(Subscription*, const absl::Status& status) override {
    {
      base::MutexLock lock(&mu_);
      reason_ = base::DetailOf(status).reason;
    }
    // First, so that who waits for the line knows that it has returned.
    if (on_end) on_end();
    Add("end " + std::string(absl::StatusCodeToString(status.code())));
  }

  std::vector<std::string> log() const {
    base::MutexLock lock(&mu_);
    return log_;
  }
  // Without flushes, whose number depends on how events are batched.
  std::vector<std::string> news() const {
    std::vector<std::string> result;
    for (const std::string& line : log()) {
      if (line != "flush") result.push_back(line);
    }
    return result;
  }
  // The reason of the end; empty if there is none.
  std::string reason() const {
    base::MutexLock lock(&mu_);
    return reason_;
  }
  bool WaitFor(const std::string& line) const {
    return testing::WaitUntil([&] {
      const auto lines = log();
      return std::find(lines.begin(), lines.end(), line) != lines.end();
    });
  }

  // Set before the subscription begins.
  std::optional<uint64_t> pause_at;
  std::function<void()> on_flush;
  std::function<void()> on_end;

 private:
  void Add(std::string line) {
    base::MutexLock lock(&mu_);
    log_.push_back(std::move(line));
  }

  mutable base::Mutex mu_;
  std::vector<std::string> log_ GUARDED_BY(mu_);
  std::string reason_ GUARDED_BY(mu_);
};

// A fake service and one io thread with a Link to it.
class LinkHarness {
 public:
  static BridgeOptions QuickOptions() {
    BridgeOptions options;
    options.io_threads = 1;
    options.tick = absl::Milliseconds(5);
    options.reconnect_backoff = absl::Milliseconds(5);
    options.max_reconnect_backoff = absl::Milliseconds(20);
    return options;
  }

  LinkHarness() : LinkHarness(QuickOptions(), {}) {}
  // `more_replicas`: addresses in addition to the fake's, each with a comma before it.
  LinkHarness(BridgeOptions options, const testing::FakeInferenceService::Options& fake_options,
              const std::string& more_replicas = "")
      : service(fake_options),
        metrics(&registry, "test"),
        client(options.rpc_timeout),
        replicas(*ReplicaSet::Create({.targets = service.target() + more_replicas})),
        threads(std::make_unique<IoThreads>(options, &client, &metrics)) {
    threads->Start();
    replicas->Start([this](const ReplicaSet::State& state) { threads->Update(state); });
  }
  ~LinkHarness() {
    Run([&] { subscriptions.clear(); });
    replicas->Stop();
    threads->Cut();
    client.Shutdown();
    threads.reset();
  }

  IoThread& thread() { return (*threads)[0]; }
  bool Connected() {
    return testing::WaitUntil([&] { return thread().router.connected() == 1; });
  }

  // Runs `call` on the io thread and waits for it.
  void Run(std::function<void()> call) {
    std::promise<void> done;
    boost::asio::post(thread().io, [&] {
      call();
      done.set_value();
    });
    done.get_future().wait();
  }

  // The reader outlives the io thread, which calls it.
  RecordingReader& NewReader() {
    readers.push_back(std::make_unique<RecordingReader>());
    return *readers.back();
  }
  // Subscriptions live on the io thread.
  Subscription* Generate(RecordingReader* reader, v1::GenerateRequest request = {}, LogPosition after = {}) {
    return Begin(reader,
                 [&](Subscription* subscription) { subscription->Generate(std::move(request), after, "tp", "ts"); });
  }
  Subscription* Attach(RecordingReader* reader, const std::string& id, LogPosition after,
                       v1::GapPolicy policy = v1::GAP_POLICY_SIGNAL) {
    return Begin(reader, [&](Subscription* subscription) { subscription->Attach(id, after, "ann", policy); });
  }
  void Destroy(Subscription* subscription) {
    Run([&] { EraseFromThread(subscription); });
  }
  // The same, called on the io thread.
  void EraseFromThread(Subscription* subscription) {
    for (auto& owned : subscriptions) {
      if (owned.get() == subscription) owned.reset();
    }
  }

  testing::FakeInferenceService service;
  base::Metrics registry;
  BridgeMetrics metrics;
  InferenceClient client;
  std::unique_ptr<ReplicaSet> replicas;
  std::vector<std::unique_ptr<RecordingReader>> readers;
  std::unique_ptr<IoThreads> threads;
  std::vector<std::unique_ptr<Subscription>> subscriptions;  // confined to the io thread

 private:
  Subscription* Begin(RecordingReader* reader, const std::function<void(Subscription*)>& begin) {
    Subscription* subscription = nullptr;
    Run([&] {
      subscriptions.push_back(std::make_unique<Subscription>(&thread().router, reader));
      subscription = subscriptions.back().get();
      begin(subscription);
    });
    return subscription;
  }
};

}  // namespace runnel::bridge
