#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "services/inference/generation/journal.h"

namespace runnel::inference {

// The value of a generation's key `m`, which outlives its log and says then that there was one. It does not name the
// owner: that is in the stream, where a replica that is fenced cannot write any more.
struct StoredMeta {
  enum class State : uint8_t {
    kRunning,
    kEnded,    // `meta` has only the principal from here on
    kDeleted,  // its log is gone, or is being removed
  };
  State state = State::kRunning;
  JournalMeta meta;
  std::string claim = {};  // the name of the key that names this generation (JournalKeys::Claim); empty: none

  // What stays once the generation has ended.
  StoredMeta WithState(State ended) const { return {ended, {.principal = meta.principal}, claim}; }
};

// As a record: a version, the fields, and a check.
void EncodeMeta(const StoredMeta& meta, std::string* out);
// Fails as DecodeRecord does.
absl::StatusOr<StoredMeta> DecodeMeta(std::string_view bytes);

// The value of a claim: the generation, and the fingerprint of its request.
struct StoredClaim {
  std::string id;
  uint64_t fingerprint = 0;

  bool operator==(const StoredClaim&) const = default;
};
std::string EncodeClaim(const StoredClaim& claim);
absl::StatusOr<StoredClaim> DecodeClaim(std::string_view bytes);

}  // namespace runnel::inference
