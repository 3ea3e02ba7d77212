#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/metrics.h"
#include "services/inference/generation/journal.h"
#include "services/inference/journal/journal_context.h"
#include "services/inference/journal/log_options.h"
#include "services/inference/journal/redis/redis_options.h"
#include "services/inference/journal/store_link.h"

namespace runnel::inference {

// A Journal in Redis or Valkey. Everything happens on the thread of its RedisClient; calls of other threads are posted
// to it.
class RedisJournal final : public Journal {
 public:
  struct Options {
    LogOptions log;
    RedisOptions redis;
    JournalLimits limits;
    base::Metrics* metrics = nullptr;  // must outlive the journal
    // For tests.
    const base::Clock* clock = nullptr;  // null: the system's
    // Puts an object between the journal and its client, which outlives the object.
    std::function<std::unique_ptr<StoreLink>(StoreLink* client)> intercept = nullptr;
    std::string id_prefix = {};  // the first to try; empty: random
    // The longest wait of Create for the store.
    absl::Duration start_timeout = absl::Seconds(3);
  };

  // Connects, and waits until this replica has a lease, so that its id prefix is its own. A store that cannot be
  // reached is not an error: logs are unprotected until it can be. InvalidArgument if the options cannot work.
  static absl::StatusOr<std::unique_ptr<RedisJournal>> Create(Options options);
  // Stops.
  ~RedisJournal() override;

  std::unique_ptr<JournalEntry> NewEntry() override;
  void Create(std::shared_ptr<Generation> generation, JournalMeta meta, CreateCallback done) override;
  void Grown(Generation* generation, WakeSet* wake) override;
  void Load(std::string id, std::optional<std::string> principal, Claim claim, LoadCallback done) override;
  void Verify(std::shared_ptr<Generation> generation, VerifyCallback done) override;
  void HandOver(std::shared_ptr<Generation> generation, HandOverCallback done) override;
  const std::string& id_prefix() const override;
  void Forget(std::string id, std::string principal, ForgetCallback done) override;
  void Watch(absl::AnyInvocable<void(Gone)> on_gone) override;
  void Stop() override;

 private:
  class Core;

  explicit RedisJournal(std::shared_ptr<Core> core);

  const std::shared_ptr<Core> core_;
};

}  // namespace runnel::inference
