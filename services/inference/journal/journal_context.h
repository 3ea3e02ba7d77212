#pragma once

#include <cstddef>
#include <string>

#include "absl/time/time.h"
#include "services/base/clock.h"
#include "services/inference/journal/journal_keys.h"
#include "services/inference/journal/journal_metrics.h"
#include "services/inference/journal/log_options.h"
#include "services/inference/journal/store_link.h"
#include "services/inference/journal/value_cipher.h"

namespace runnel::inference {

// The limits of a RedisJournal that no flag sets.
struct JournalLimits {
  size_t max_record_bytes = size_t{256} << 10;
  // Records without an acknowledgement; what is behind them waits in the logs.
  size_t max_in_flight_per_log = 16;
  size_t max_in_flight = 16384;
  size_t max_in_flight_bytes = size_t{8} << 20;
  // Logs that are read from the store at a time, and those that wait for it.
  size_t max_reads = 32;
  size_t max_waiting_reads = 4096;
  // Generations that were taken over and have not been continued.
  size_t max_taken = 65536;
  // Generations to be removed from the store once it is back.
  size_t max_removals = 65536;
  absl::Duration min_retry = absl::Milliseconds(100);  // after an error of the store
  absl::Duration max_retry = absl::Seconds(1);
  absl::Duration hand_over_timeout = absl::Seconds(1);
  absl::Duration fence_age = absl::Seconds(60);  // how long the stream stays behind a deletion or the end
};

// What the parts of a RedisJournal share. All of it outlives them.
struct JournalContext {
  StoreLink* link = nullptr;
  const JournalKeys* keys = nullptr;
  const ValueCipher* cipher = nullptr;
  const LogOptions* options = nullptr;
  JournalLimits limits;
  JournalMetrics* metrics = nullptr;
  const base::Clock* clock = nullptr;
  // Of this replica. Changes only before the journal has been created.
  std::string id_prefix;

  absl::Duration Now() const { return clock->Monotonic(); }
};

}  // namespace runnel::inference
