#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/inference/generation/log_segment.h"
#include "services/inference/journal/journal_record.h"

namespace runnel::inference {

// Everything that any replica needs to serve a generation that has ended. Stored as one value in place of its records,
// which take two to four times as much.
struct FinishedLog {
  std::string principal;
  std::string annotation;
  std::string kept_input;
  absl::Time ended_at;
  LogSegment log;  // from `started` to the terminal event, with all takeovers
};

// As a record: a version, the fields, and a check.
void EncodeFinished(const FinishedLog& finished, std::string* out);
// Fails as DecodeRecord does. The log has a beginning and an end.
absl::StatusOr<FinishedLog> DecodeFinished(std::string_view bytes, const RecordLimits& limits = {});

}  // namespace runnel::inference
