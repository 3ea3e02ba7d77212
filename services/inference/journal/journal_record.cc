#include "services/inference/journal/journal_record.h"

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"

namespace runnel::inference {
namespace {

absl::Status Damaged() { return absl::DataLossError("a record of the stored log is damaged"); }

}  // namespace

absl::StatusOr<std::string_view> OpenRecord(std::string_view bytes, const RecordLimits& limits) {
  if (bytes.size() > limits.max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a record of the stored log has ", bytes.size(), " bytes, expected at most ", limits.max_bytes));
  }
  if (bytes.size() < 3) return Damaged();
  // First, because a newer release may have another check.
  const auto version = static_cast<uint8_t>(bytes.front());
  if (version > kRecordVersion) {
    return absl::UnimplementedError(absl::StrCat("a record of the stored log has version ", version,
                                                 ", this release reads up to ", kRecordVersion,
                                                 ": upgrade this replica first"));
  }
  const std::string_view check = bytes.substr(bytes.size() - 2);
  bytes.remove_suffix(2);
  const uint16_t expected = RecordCheck(bytes);
  const bool same =
      static_cast<uint8_t>(check[0]) == (expected & 0xFF) && static_cast<uint8_t>(check[1]) == expected >> 8;
  if (version == 0 || !same) return Damaged();
  bytes.remove_prefix(1);
  return bytes;
}

void SealRecord(size_t begin, std::string* out) {
  const uint16_t check = RecordCheck(std::string_view(*out).substr(begin));
  out->push_back(static_cast<char>(check & 0xFF));
  out->push_back(static_cast<char>(check >> 8));
}

void EncodeRecord(const LogSegment& segment, std::string* out) {
  const size_t begin = out->size();
  RecordBytesWriter writer(out);
  writer.Byte(kRecordVersion);
  EncodeSegment(segment, &writer);
  SealRecord(begin, out);
}

absl::StatusOr<LogSegment> DecodeRecord(std::string_view bytes, const RecordLimits& limits) {
  ASSIGN_OR_RETURN(const std::string_view body, OpenRecord(bytes, limits));
  RecordBytesReader reader(body);
  return DecodeSegment(&reader, limits);
}

}  // namespace runnel::inference
