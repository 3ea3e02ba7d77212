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

}  // namespace runnel::inference
