#include "services/inference/journal/finished_log.h"

#include <utility>

#include "services/base/message_limits.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"

namespace runnel::inference {

void EncodeFinished(const FinishedLog& finished, std::string* out) {
  const size_t begin = out->size();
  RecordBytesWriter writer(out);
  writer.Byte(kRecordVersion);
  writer.String(finished.principal);
  writer.String(finished.annotation);
  writer.String(finished.kept_input);
  writer.Signed(absl::ToUnixNanos(finished.ended_at));
  EncodeSegment(finished.log, &writer);
  SealRecord(begin, out);
}

absl::StatusOr<FinishedLog> DecodeFinished(std::string_view bytes, const RecordLimits& limits) {
  ASSIGN_OR_RETURN(const std::string_view body, OpenRecord(bytes, limits));
  RecordBytesReader reader(body);
  FinishedLog finished;
  finished.principal = std::string(reader.Text(base::kMaxPrincipalBytes));
  finished.annotation = std::string(reader.Text(base::kMaxAnnotationBytes));
  finished.kept_input = std::string(reader.String(base::kMaxRequestBytes));
  finished.ended_at = absl::FromUnixNanos(reader.Signed());
  ASSIGN_OR_RETURN(finished.log, DecodeSegment(&reader, limits));
  if (!finished.log.started.has_value() || !finished.log.end.has_value()) {
    return absl::DataLossError("a finished log in the store is incomplete");
  }
  return finished;
}

}  // namespace runnel::inference
