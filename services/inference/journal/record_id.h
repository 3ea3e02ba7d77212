#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace runnel::inference {

// The id of a record, `epoch-n` as the id of a stream entry. `n` counts the records of an epoch, not events. A takeover
// begins with n = 0; the first record of epoch 0 has n = 1, because the store has no 0-0. Ids only increase, which is
// the fence: after a record of epoch e + 1, the store refuses those of epoch e.
struct RecordId {
  uint32_t epoch = 0;
  uint64_t n = 0;

  auto operator<=>(const RecordId&) const = default;
  RecordId Next() const { return {epoch, n + 1}; }
  std::string ToString() const;
};

// Absent for anything but two decimal numbers in their shortest form.
std::optional<RecordId> ParseRecordId(std::string_view text);

// The epoch of the last entry in the stream of a generation that was deleted. No takeover has it.
inline constexpr uint32_t kDeletedEpoch = UINT32_MAX;

// The epoch of a takeover after `epoch`: the upper half is one more, the lower half is `random`. A server that forgets
// a takeover may let a second replica take over from the same epoch; the two then differ, and so a reader's cursor
// never matches the wrong one. Absent after 65,534 takeovers.
std::optional<uint32_t> NextEpoch(uint32_t epoch, uint16_t random);

}  // namespace runnel::inference
