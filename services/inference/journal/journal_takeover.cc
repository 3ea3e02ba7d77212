// How a JournalReader takes a generation over.
#include <random>
#include <utility>

#include "services/base/random.h"
#include "services/inference/generation/generation_id.h"
#include "services/inference/journal/journal_reader.h"
#include "services/inference/journal/journal_record.h"

namespace runnel::inference {
namespace {

using State = Journal::Loaded::State;

// What the owner of `epoch` begins with, behind what it continues.
LogSegment TakeoverRecord(const LogSegment& log, uint32_t epoch) {
  LogSegment record;
  record.branches = log.branches;
  record.branches.push_back({epoch, log.last_seq(), static_cast<uint32_t>(base::Random()())});
  record.first_seq = log.last_seq() + 1;
  record.ended = log.ended;
  record.usage = log.usage;
  record.cancelled = log.cancelled;
  return record;
}

}  // namespace

void JournalReader::BeginTakeover(const ReadPtr& read) {
  SendAll(context_.link,
          {{"GET", context_.keys->Meta(read->id)},
           {"GET", context_.keys->Finished(read->id)},
           {"XREVRANGE", context_.keys->Stream(read->id), "+", "-", "COUNT", "1"}},
          [this, read](const std::vector<StoreReply>& replies) { OnTail(read, replies); });
}

void JournalReader::OnTail(const ReadPtr& read, const std::vector<StoreReply>& replies) {
  if (FinishIfFailed(read, replies) || FinishByMeta(read, replies[0], replies[1])) return;
  const std::vector<std::string>& tail = replies[2].elements;
  const std::optional<RecordId> last = tail.empty() ? std::nullopt : ParseRecordId(tail[0]);
  // Without a stream there is nothing to continue from.
  if (!last.has_value()) return GiveUpTakeover(read);
  const std::optional<uint32_t> epoch = NextEpoch(last->epoch, static_cast<uint16_t>(base::Random()()));
  if (last->epoch == kDeletedEpoch || !epoch.has_value()) return FinishWith(read, State::kExpired);
  read->epoch = *epoch;
  FenceOwner(read);
}

void JournalReader::FenceOwner(const ReadPtr& read) {
  // Listed first: whatever happens next, the generation is found by those that look for orphans of this replica.
  const std::string running = context_.keys->Running(context_.id_prefix);
  const std::string stream = context_.keys->Stream(read->id);
  const std::string record_id = RecordId{read->epoch, 0}.ToString();
  auto fence = std::make_shared<StoreReply>();
  context_.link->Send({"SADD", running, read->id}, [](const auto&) {});
  context_.link->Send({"XADD", stream, "NOMKSTREAM", record_id, kOwnerField, context_.id_prefix},
                      [fence](const auto& reply) { *fence = CopyReply(reply); });
  context_.link->Send({"XRANGE", stream, "-", "+"},
                      [this, read, fence](const auto& reply) { OnFenced(read, *fence, reply); });
}

void JournalReader::GiveUpTakeover(const ReadPtr& read) {
  SendAll(context_.link, {{"SREM", context_.keys->Running(context_.id_prefix), read->id}}, [](const auto&) {});
  ReadAll(read);
}

void JournalReader::OnFenced(const ReadPtr& read, const StoreReply& fence, const absl::StatusOr<RedisReply>& entries) {
  if (fence.error == "ERR" || (fence.ok() && fence.nil)) return GiveUpTakeover(read);
  if (FinishIfFailed(read, {fence, CopyError(entries)})) return;
  StoredStream stream;
  const absl::Status status = ReadStream(*entries, read->id, *context_.cipher, &stream);
  // Taken over again, or deleted, in between.
  if (stream.last != RecordId{read->epoch, 0}) return GiveUpTakeover(read);
  if (!status.ok()) return Finish(read, status);
  if (stream.log.last_seq() == 0) return GiveUpTakeover(read);
  if (!stream.log.end.has_value()) return TakeOver(read, std::move(stream));
  // Its owner stopped before it could store the finished log. It is read from the stream for as long.
  SendAll(context_.link,
          {{"PEXPIRE", context_.keys->Stream(read->id), Milliseconds(context_.options->retention)},
           {"PEXPIRE", context_.keys->Meta(read->id), Milliseconds(context_.options->retention)},
           {"SREM", context_.keys->Running(context_.id_prefix), read->id}},
          [](const auto&) {});
  ForgetOwners(read->id, stream.owners);
  Finish(read, FinishedFromStream(read, std::move(stream)));
}

void JournalReader::ForgetOwners(const std::string& id, const std::vector<std::string>& owners) {
  std::vector<StoreCommand> commands;
  for (const std::string& owner : owners) {
    if (owner != context_.id_prefix) commands.push_back({"SREM", context_.keys->Running(owner), id});
  }
  SendAll(context_.link, commands, [](const auto&) {});
}

void JournalReader::TakeOver(const ReadPtr& read, StoredStream stream) {
  const LogSegment record = TakeoverRecord(stream.log, read->epoch);
  std::string bytes;
  EncodeRecord(record, &bytes);
  const std::string value = context_.cipher->Encrypt(read->id, "e", bytes);
  JournalWriter::Taken taken;
  taken.meta = read->meta;
  taken.last = {read->epoch, 1};
  taken.branches = record.branches;
  taken.stored_bytes = stream.bytes + value.size();
  auto loaded = std::make_shared<Journal::Loaded>();
  loaded->state = State::kTaken;
  loaded->meta = read->meta.meta;
  loaded->log = std::move(stream.log);
  // As every reader of the stream restores it from here on.
  loaded->log.branches = record.branches;
  for (EndedChoice& ended : loaded->log.ended) ended.after_seq = loaded->log.last_seq();
  taken.position = {loaded->log.last_seq(), static_cast<uint32_t>(loaded->log.ended.size()),
                    static_cast<uint32_t>(record.branches.size()), loaded->log.cancelled, loaded->log.usage};
  std::vector<StoreCommand> commands = {
      {"XADD", context_.keys->Stream(read->id), "NOMKSTREAM", taken.last.ToString(), std::string(kRecordField), value,
       std::string(kOwnerField), context_.id_prefix},
      {"PEXPIRE", context_.keys->Stream(read->id), Milliseconds(context_.options->max_age)},
      {"PEXPIRE", context_.keys->Meta(read->id), Milliseconds(context_.options->max_age)}};
  SendAll(context_.link, commands,
          [this, read, loaded, taken, owners = stream.owners](const std::vector<StoreReply>& replies) {
            if (replies[0].error == "ERR" || (replies[0].ok() && replies[0].nil)) return GiveUpTakeover(read);
            if (FinishIfFailed(read, replies)) return;
            ForgetOwners(read->id, owners);
            writer_.AddTaken(read->id, taken);
            Finish(read, std::move(*loaded));
          });
}

}  // namespace runnel::inference
