#include "services/inference/journal/stored_stream.h"

#include <algorithm>
#include <utility>

#include "services/base/status_macros.h"
#include "services/inference/generation/generation_id.h"
#include "services/inference/journal/journal_record.h"
#include "services/inference/journal/record_reader.h"

namespace runnel::inference {
namespace {

absl::Status AddRecord(std::string_view value, const RecordId& record_id, std::string_view id,
                       const ValueCipher& cipher, RecordReader* reader) {
  LogSegment record;
  if (cipher.encrypts()) {
    ASSIGN_OR_RETURN(const std::string bytes, cipher.Decrypt(id, "e", value));
    ASSIGN_OR_RETURN(record, DecodeRecord(bytes));
  } else {
    ASSIGN_OR_RETURN(record, DecodeRecord(value));
  }
  return reader->Add(record_id, std::move(record));
}

void AddOwner(std::string_view owner, StoredStream* stream) {
  stream->owner = std::string(owner);
  const auto& owners = stream->owners;
  if (!owner.empty() && std::find(owners.begin(), owners.end(), owner) == owners.end()) {
    stream->owners.emplace_back(owner);
  }
}

}  // namespace

absl::Status ReadStream(const RedisReply& entries, std::string_view id, const ValueCipher& cipher,
                        StoredStream* stream) {
  RETURN_IF_ERROR(entries.status());
  RecordReader reader;
  absl::Status result;
  stream->owners = {std::string(PrefixOf(id))};
  for (size_t i = 0; i < entries.size(); ++i) {
    const RedisReply entry = entries[i];
    const std::optional<RecordId> record_id = ParseRecordId(entry[0].text());
    if (!record_id.has_value()) {
      if (result.ok()) result = absl::DataLossError("an entry of the stored log has an id that is not a record's");
      continue;
    }
    stream->last = record_id;
    const RedisReply fields = entry[1];
    for (size_t field = 0; field + 1 < fields.size(); field += 2) {
      const std::string_view value = fields[field + 1].text();
      if (fields[field].text() == kOwnerField) AddOwner(value, stream);
      if (fields[field].text() != kRecordField) continue;
      stream->bytes += value.size();
      if (result.ok()) result = AddRecord(value, *record_id, id, cipher, &reader);
    }
  }
  stream->deleted = stream->last.has_value() && stream->last->epoch == kDeletedEpoch;
  stream->skipped = reader.skipped();
  stream->log = reader.TakeLog();
  return result;
}

std::optional<RecordId> ReadTail(const RedisReply& entries) { return ParseRecordId(entries[0][0].text()); }

}  // namespace runnel::inference
