#include "services/inference/journal/create_journal.h"

#include <utility>

#include "services/base/status_macros.h"
#include "services/inference/journal/redis_journal.h"

namespace runnel::inference {

absl::StatusOr<std::unique_ptr<Journal>> CreateJournal(const LogOptions& options, base::Metrics* metrics) {
  if (!options.store.has_value()) return nullptr;
  RedisJournal::Options journal;
  journal.log = options;
  journal.metrics = metrics;
  journal.redis.url = *options.store;
  journal.redis.user = options.user;
  journal.redis.password_file = options.password_file;
  journal.redis.ca_file = options.ca_file;
  journal.redis.cert_file = options.cert_file;
  journal.redis.cert_key_file = options.cert_key_file;
  ASSIGN_OR_RETURN(std::unique_ptr<Journal> redis, RedisJournal::Create(std::move(journal)));
  return redis;
}

}  // namespace runnel::inference
