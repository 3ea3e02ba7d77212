#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "services/inference/generation/generation.h"
#include "services/inference/generation/journal.h"
#include "services/inference/journal/record_id.h"
#include "services/inference/journal/stored_meta.h"

namespace runnel::inference {

// What a RedisJournal keeps with each generation. Confined to the journal's thread, except for `grown`.
struct JournaledLog final : public JournalEntry {
  enum class Phase : uint8_t {
    kNew,        // not created, or taken over and not continued yet
    kStoring,    // its first record is being written
    kWriting,    // records are appended
    kChecking,   // waits until its stream has been read, because the store may have lost something, or has it read
    kFinishing,  // its end is stored, and the finished log is being written
    kOver,       // nothing is written any more
  };

  // The generation is among those to write. Set by any thread.
  std::atomic<bool> grown = false;

  Phase phase = Phase::kNew;
  std::string stream;  // the key
  StoredMeta meta;
  LogBranches branches;
  RecordId last;         // the highest id that was used or seen
  LogPosition sent;      // everything before was sent
  LogPosition released;  // what readers may see
  size_t in_flight = 0;  // records without an answer
  size_t stored_bytes = 0;
  // When the oldest unsent event was appended. InfiniteDuration if everything was sent.
  absl::Duration unsent_since = absl::InfiniteDuration();
  bool broken = false;  // the fate of a record is not known, so what follows it must not count
  bool check_queued = false;
  bool blocked = false;      // in the queue of those that wait for room
  bool overwrite = false;    // the store's description of it is damaged
  bool names_owner = false;  // the next record says who the owner is
  bool final_sent = false;   // the record with the end was sent
  bool final_stored = false;
  bool discard_sent = false;  // its end is stored, and its removal was sent
  bool too_large = false;
  bool counted = false;  // as unprotected, in this period

  // Of Create: null once it was called.
  Journal::CreateCallback created;
  absl::Duration created_since;
  uint32_t attempt = 0;     // counts its calls
  bool keyed = false;       // its answer depends on the claim
  bool claiming = false;    // the reply is awaited
  bool claimed = false;     // nothing is to be done about the claim
  bool owns_claim = false;  // it names this generation

  Journal::HandOverCallback handed_over;
  absl::Duration hand_over_since;
  uint64_t hand_over_seq = 0;  // what was in the log then; nothing after it is written
  bool hand_over_sent = false;

  static JournaledLog& Of(const Generation& generation) {
    return static_cast<JournaledLog&>(*generation.journal_entry());
  }
};

}  // namespace runnel::inference
