// What a store returns: a record, a finished log, or the description or the claim of a generation. Then the records of
// the input, one after the other, as one stream that is read and restored. Random bytes never have the right check, so
// it is made right first.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "services/inference/generation/event_log.h"
#include "services/inference/journal/finished_log.h"
#include "services/inference/journal/journal_record.h"
#include "services/inference/journal/record_id.h"
#include "services/inference/journal/record_reader.h"
#include "services/inference/journal/stored_meta.h"
#include "tests/fuzz/fuzz_check.h"

namespace {

using runnel::inference::DecodeFinished;
using runnel::inference::DecodeRecord;
using runnel::inference::EncodeFinished;
using runnel::inference::EncodeRecord;
using runnel::inference::EventLog;
using runnel::inference::LogSegment;
using runnel::inference::RecordId;
using runnel::inference::RecordReader;

std::string Sealed(std::string_view bytes) {
  std::string sealed(bytes);
  runnel::inference::SealRecord(0, &sealed);
  return sealed;
}

void CheckSegment(const LogSegment& segment) {
  size_t length = 0;
  for (const auto& delta : segment.deltas) length += delta.length;
  FUZZ_CHECK(length == segment.content.size());
  FUZZ_CHECK(segment.first_seq > 0 && segment.last_seq() + 1 >= segment.first_seq);
}

// What was decoded is encoded to a record that means the same.
void CheckRecord(const std::string& bytes) {
  const auto decoded = DecodeRecord(bytes);
  if (!decoded.ok()) return;
  CheckSegment(*decoded);
  std::string encoded;
  EncodeRecord(*decoded, &encoded);
  const auto again = DecodeRecord(encoded);
  FUZZ_CHECK(again.ok());
  std::string encoded_again;
  EncodeRecord(*again, &encoded_again);
  FUZZ_CHECK(encoded == encoded_again);
}

void CheckFinished(const std::string& bytes) {
  const auto decoded = DecodeFinished(bytes);
  if (!decoded.ok()) return;
  CheckSegment(decoded->log);
  std::string encoded;
  EncodeFinished(*decoded, &encoded);
  FUZZ_CHECK(DecodeFinished(encoded).ok());
}

void CheckMeta(const std::string& bytes) {
  const auto decoded = runnel::inference::DecodeMeta(bytes);
  if (!decoded.ok()) return;
  std::string encoded;
  runnel::inference::EncodeMeta(*decoded, &encoded);
  FUZZ_CHECK(encoded == bytes);
}

void CheckClaim(const std::string& bytes) {
  const auto decoded = runnel::inference::DecodeClaim(bytes);
  if (decoded.ok()) FUZZ_CHECK(runnel::inference::EncodeClaim(*decoded) == bytes);
}

void CheckId(std::string_view text) {
  const auto id = runnel::inference::ParseRecordId(text);
  if (id.has_value()) FUZZ_CHECK(id->ToString() == text);
}

void CheckRestored(const LogSegment& log) {
  if (!log.started.has_value()) return;
  EventLog restored(*log.started, log.choice_count, 0, EventLog::Visibility::kOnRelease);
  if (!restored.Restore(log).ok()) return;
  const EventLog::State state = restored.Snapshot();
  FUZZ_CHECK(state.last_seq == log.last_seq() && state.ended == log.end.has_value());
  LogSegment again;
  restored.ReadSegment({}, SIZE_MAX, &again);
  FUZZ_CHECK(again.content == log.content && again.last_seq() == log.last_seq());
}

// Two bytes before each record: how much its id goes up, and its length.
void CheckStream(std::string_view bytes) {
  RecordReader reader({.max_bytes = 1 << 16, .max_events = 1 << 10});
  RecordId id;
  while (bytes.size() > 2) {
    const auto up = static_cast<uint8_t>(bytes[0]);
    const size_t size = std::min<size_t>(static_cast<uint8_t>(bytes[1]), bytes.size() - 2);
    id = up >= 0x80 ? RecordId{id.epoch + (up & 3), 0} : RecordId{id.epoch, id.n + up % 4};
    auto record = DecodeRecord(Sealed(bytes.substr(2, size)));
    bytes.remove_prefix(2 + size);
    if (!record.ok()) continue;
    const bool added = reader.Add(id, *std::move(record)).ok();
    CheckSegment(reader.log());
    FUZZ_CHECK(reader.log().last_seq() == 0 || reader.log().started.has_value());
    FUZZ_CHECK(!added || reader.epoch() <= id.epoch);
  }
  CheckRestored(reader.log());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  CheckRecord(std::string(bytes));
  CheckRecord(Sealed(bytes));
  CheckFinished(Sealed(bytes));
  CheckMeta(Sealed(bytes));
  CheckClaim(Sealed(bytes));
  CheckId(bytes);
  CheckStream(bytes);
  return 0;
}
