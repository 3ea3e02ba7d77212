#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "services/inference/generation/log_segment.h"
#include "services/inference/journal/record_id.h"
#include "services/inference/journal/redis/redis_reply.h"
#include "services/inference/journal/value_cipher.h"

namespace runnel::inference {

// The fields of an entry in a generation's stream. An entry has at least one of them; other fields are ignored.
//
// The owner is in the stream so that it changes with the epoch, in one step: an owner that is fenced cannot name itself
// or give the generation away any more.
inline constexpr std::string_view kRecordField = "r";  // a record (journal_record.h), encrypted
inline constexpr std::string_view kOwnerField = "o";   // id prefix of the owner from here on; empty: handed over

// What XRANGE returns of a generation's stream.
struct StoredStream {
  std::optional<RecordId> last;      // absent: there is no such stream
  std::optional<std::string> owner;  // absent: the replica that the id names
  std::vector<std::string> owners;   // all that it has had, beginning with that
  bool deleted = false;              // its last entry is the fence of a deletion
  LogSegment log;                    // as RecordReader joins it
  size_t skipped = 0;                // records that did not count
  size_t bytes = 0;                  // of all records

  uint32_t epoch() const { return log.branches.empty() ? 0 : log.branches.back().epoch; }
};

// `last`, `owner` and `deleted` are set even if it fails. DataLoss: a record is damaged. Unimplemented: a record was
// written by a newer release. Internal: the reply is an error.
absl::Status ReadStream(const RedisReply& entries, std::string_view id, const ValueCipher& cipher,
                        StoredStream* stream);

// Returns the id of the last entry in a reply to XREVRANGE. Absent if the reply has no entry.
std::optional<RecordId> ReadTail(const RedisReply& entries);

}  // namespace runnel::inference
