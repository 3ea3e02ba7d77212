#pragma once

#include <cstdint>

// The numbers in records that the encoder and the decoder share: see journal_record.h.
namespace runnel::inference {

// The low two bits of an item's first byte.
enum RecordForm : uint8_t { kPlainDelta = 0, kFullDelta = 1, kOtherItem = 2 };
// In the upper six bits of a plain delta: its length follows.
inline constexpr uint8_t kLongContent = 63;

// The fields of a full delta, in the upper six bits.
inline constexpr uint8_t kSamePart = 1;
inline constexpr uint8_t kHasCall = 2;
inline constexpr uint8_t kHasLogprobs = 4;
inline constexpr uint8_t kHasTokenIds = 8;
inline constexpr uint8_t kHasTokens = 16;
inline constexpr uint8_t kKnownFields = 31;

// Of other items, in the upper six bits.
enum class RecordItem : uint8_t { kStarted, kBranch, kEnded, kDone, kFailed, kUsage, kCancelled };

// In the byte of a failure.
inline constexpr uint8_t kRetryable = 1;
inline constexpr uint8_t kHasServerError = 2;

}  // namespace runnel::inference
