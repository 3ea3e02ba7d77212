#pragma once

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/base/metrics.h"
#include "services/base/mutex.h"
#include "services/inference/generation/generation.h"
#include "services/inference/generation/generation_id.h"
#include "services/inference/journal/journaled_log.h"
#include "services/inference/journal/redis_journal.h"
#include "tests/testing/wait.h"

namespace runnel::testing {

// Holds back commands or replies between a journal and its client, as a test asks for. Thread-safe.
class HeldLink final : public inference::StoreLink {
 public:
  explicit HeldLink(inference::StoreLink* client) : client_(client) {}

  void Send(std::span<const std::string_view> args, ReplyCallback done) override;
  void Post(absl::AnyInvocable<void()> function) override { client_->Post(std::move(function)); }

  // Commands with this name, and all that follow them, are not sent until Release.
  void Hold(std::string command);
  // Sends what was held.
  void Release();
  size_t held() const;
  // Commands with this name that were sent or held.
  size_t count(const std::string& command) const;
  // Runs `function` on the journal's thread right before the next command with this name is sent.
  void Before(std::string command, std::function<void()> function);

 private:
  struct Command {
    std::vector<std::string> args;
    ReplyCallback done;
  };
  inference::StoreLink* const client_;
  mutable base::Mutex mu_;
  std::string hold_ GUARDED_BY(mu_);
  std::vector<Command> held_ GUARDED_BY(mu_);
  std::vector<std::string> names_ GUARDED_BY(mu_);
  std::string before_ GUARDED_BY(mu_);
  std::function<void()> function_ GUARDED_BY(mu_);
};

// A replica without engine and manager: a journal, and generations that the test appends to.
class JournalReplica final : public inference::GenerationObserver {
 public:
  struct Options {
    int port = 0;
    std::string prefix = {};
    absl::Duration wait = absl::Seconds(20);  // so that a slow machine does not make logs unprotected
    std::function<void(inference::RedisJournal::Options*)> change = nullptr;
  };
  explicit JournalReplica(Options options);
  ~JournalReplica() override;

  inference::RedisJournal& journal() { return *journal_; }
  HeldLink& link() { return *link_; }
  base::Metrics& metrics() { return metrics_; }
  // The value of a metric without labels, or with them as in the exposition.
  double Metric(const std::string& name);

  using GenerationPtr = std::shared_ptr<inference::Generation>;
  GenerationPtr Make(std::string id = {}, const std::string& principal = "ann", bool discard_stored_log = false);
  using Created = absl::StatusOr<inference::Journal::Created>;
  Created Create(const GenerationPtr& generation, const std::string& request_id = {}, uint64_t fingerprint = 7);
  std::future<Created> CreateLater(const GenerationPtr& generation, const std::string& request_id = {},
                                   uint64_t fingerprint = 7);
  // Made and created.
  GenerationPtr Start(const std::string& request_id = {});
  absl::Status Verify(const GenerationPtr& generation);

  using Loaded = absl::StatusOr<inference::Journal::Loaded>;
  Loaded Load(const std::string& id, inference::Journal::Claim claim = inference::Journal::Claim::kRead,
              std::optional<std::string> principal = "ann");
  absl::Status Forget(const std::string& id, const std::string& principal = "ann");
  absl::Status HandOver(const GenerationPtr& generation);
  // A generation with a log that was taken over.
  GenerationPtr Continue(const std::string& id, const inference::Journal::Loaded& loaded);

  void OnDetached(inference::Generation*, absl::Duration) override {}
  void OnEnded(inference::Generation*, bool) override {}
  void OnSettled(inference::Generation*) override { settled_.fetch_add(1); }
  void OnCancelRequested(inference::Generation*) override {}
  uint32_t QueuePosition(const inference::Generation*) const override { return 0; }
  int settled() const { return settled_.load(); }

 private:
  base::Metrics metrics_;
  inference::GenerationMetrics generation_metrics_{&metrics_};
  HeldLink* link_ = nullptr;
  std::unique_ptr<inference::RedisJournal> journal_;
  std::vector<GenerationPtr> generations_;
  std::atomic<int> settled_ = 0;
};

void Append(const std::shared_ptr<inference::Generation>& generation, const std::string& text);
void End(const std::shared_ptr<inference::Generation>& generation);
// What readers see.
std::string TextOf(const std::shared_ptr<inference::Generation>& generation);
bool WaitForText(const std::shared_ptr<inference::Generation>& generation, const std::string& text);
bool WaitUntilSettled(const std::shared_ptr<inference::Generation>& generation);
bool WaitUntilFenced(const std::shared_ptr<inference::Generation>& generation);

}  // namespace runnel::testing
