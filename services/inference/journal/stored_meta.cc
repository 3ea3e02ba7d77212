#include "services/inference/journal/stored_meta.h"

#include "services/base/message_limits.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"
#include "services/inference/generation/generation_id.h"
#include "services/inference/journal/journal_record.h"
#include "services/inference/journal/record_bytes.h"

namespace runnel::inference {
namespace {

constexpr size_t kMaxClaimBytes = 64;
// A request is stored with what its validation adds.
constexpr size_t kMaxStoredRequestBytes = base::kMaxRequestBytes + (size_t{1} << 20);
constexpr RecordLimits kMetaLimits = {.max_bytes = kMaxStoredRequestBytes + (size_t{1} << 10)};

absl::Status Damaged() { return absl::DataLossError("the stored description of a generation is damaged"); }

}  // namespace

void EncodeMeta(const StoredMeta& meta, std::string* out) {
  const size_t begin = out->size();
  RecordBytesWriter writer(out);
  writer.Byte(kRecordVersion);
  writer.Byte(static_cast<uint8_t>(meta.state));
  writer.String(meta.meta.principal);
  writer.String(meta.claim);
  if (meta.state == StoredMeta::State::kRunning) {
    writer.String(meta.meta.request_id);
    writer.Number(meta.meta.request_fingerprint);
    writer.String(meta.meta.request);
  }
  SealRecord(begin, out);
}

absl::StatusOr<StoredMeta> DecodeMeta(std::string_view bytes) {
  ASSIGN_OR_RETURN(const std::string_view body, OpenRecord(bytes, kMetaLimits));
  RecordBytesReader reader(body);
  StoredMeta meta;
  const uint8_t state = reader.Byte();
  if (state > static_cast<uint8_t>(StoredMeta::State::kDeleted)) return Damaged();
  meta.state = static_cast<StoredMeta::State>(state);
  meta.meta.principal = std::string(reader.Text(base::kMaxPrincipalBytes));
  meta.claim = std::string(reader.Text(kMaxClaimBytes));
  if (meta.state == StoredMeta::State::kRunning) {
    meta.meta.request_id = std::string(reader.Text(base::kMaxRequestIdBytes));
    meta.meta.request_fingerprint = reader.Number();
    meta.meta.request = std::string(reader.String(kMaxStoredRequestBytes));
  }
  if (!reader.ok() || !reader.empty()) return Damaged();
  return meta;
}

std::string EncodeClaim(const StoredClaim& claim) {
  std::string bytes;
  RecordBytesWriter writer(&bytes);
  writer.Byte(kRecordVersion);
  writer.Number(claim.fingerprint);
  writer.String(claim.id);
  SealRecord(0, &bytes);
  return bytes;
}

absl::StatusOr<StoredClaim> DecodeClaim(std::string_view bytes) {
  ASSIGN_OR_RETURN(const std::string_view body, OpenRecord(bytes, {}));
  RecordBytesReader reader(body);
  StoredClaim claim;
  claim.fingerprint = reader.Number();
  claim.id = std::string(reader.Text(kMaxClaimBytes));
  if (!reader.ok() || !reader.empty() || !IsGenerationId(claim.id)) return Damaged();
  return claim;
}

}  // namespace runnel::inference
