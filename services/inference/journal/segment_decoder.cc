#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/call_name.h"
#include "services/base/message_limits.h"
#include "services/base/request_limits.h"
#include "services/inference/journal/journal_record.h"
#include "services/inference/journal/record_items.h"

namespace runnel::inference {
namespace {

constexpr size_t kMaxNameBytes = 4096;         // of a model, a fingerprint and the code of an error
constexpr size_t kMaxMessageBytes = 64 << 10;  // of an error
constexpr uint32_t kMaxChoiceIndex = UINT16_MAX;
constexpr size_t kMaxBranches = 4096;

absl::Status Damaged() { return absl::DataLossError("a record of the stored log is damaged"); }

class Decoder {
 public:
  Decoder(RecordBytesReader* in, const RecordLimits& limits) : in_(*in), limits_(limits) {}

  absl::StatusOr<LogSegment> Decode() {
    segment_.first_seq = in_.Number(UINT64_MAX - limits_.max_events - 2);
    if (segment_.first_seq == 0) return Damaged();
    while (in_.ok() && !in_.empty()) {
      if (segment_.end.has_value()) return Damaged();
      if (segment_.deltas.size() > limits_.max_events) {
        return absl::ResourceExhaustedError(
            absl::StrCat("a record of the stored log has more than ", limits_.max_events, " events"));
      }
      const uint8_t byte = in_.Byte();
      const auto upper = static_cast<uint8_t>(byte >> 2);
      switch (byte & 3) {
        case kPlainDelta:
          DecodePlainDelta(upper);
          break;
        case kFullDelta:
          DecodeFullDelta(upper);
          break;
        case kOtherItem:
          DecodeOther(static_cast<RecordItem>(upper));
          break;
        default:
          in_.Fail();
      }
    }
    const bool started = segment_.started.has_value();
    if (!in_.ok() || (segment_.first_seq == 1 && !started && segment_.event_count() > 0)) return Damaged();
    return std::move(segment_);
  }

 private:
  uint64_t Elapsed() {
    elapsed_us_ += static_cast<uint64_t>(in_.Signed());
    return elapsed_us_;
  }

  void DecodePlainDelta(uint8_t length) {
    if (segment_.deltas.empty()) return in_.Fail();
    LoggedDelta delta;
    delta.choice = segment_.deltas.back().choice;
    delta.part = segment_.deltas.back().part;
    delta.kind = segment_.deltas.back().kind;
    delta.tokens = 1;
    const uint64_t more = length == kLongContent ? in_.Number(base::kMaxEventBytes) : 0;
    FinishDelta(length + more, std::move(delta));
  }

  void DecodeFullDelta(uint8_t fields) {
    LoggedDelta delta;
    if ((fields & ~kKnownFields) != 0 || ((fields & kSamePart) != 0 && segment_.deltas.empty())) return in_.Fail();
    if ((fields & kSamePart) != 0) {
      delta.choice = segment_.deltas.back().choice;
      delta.part = segment_.deltas.back().part;
      delta.kind = segment_.deltas.back().kind;
    } else {
      delta.choice = in_.Number32(kMaxChoiceIndex);
      delta.part = in_.Number32(base::kMaxParts - 1);
      const uint8_t kind = in_.Byte();
      if (kind > static_cast<uint8_t>(PartKind::kRefusal)) return in_.Fail();
      delta.kind = static_cast<PartKind>(kind);
    }
    if ((fields & kHasCall) != 0) DecodeCall(&delta);
    delta.tokens = (fields & kHasTokens) != 0 ? in_.Number32() : 1;
    if ((fields & kHasLogprobs) != 0) DecodeLogprobs(&delta.logprobs);
    if ((fields & kHasTokenIds) != 0) {
      // Each takes at least a byte.
      for (size_t left = in_.Number(in_.left()); left > 0 && in_.ok(); --left) {
        delta.token_ids.push_back(in_.Number32());
      }
      if (delta.token_ids.empty()) return in_.Fail();
    }
    FinishDelta(in_.Number(base::kMaxEventBytes), std::move(delta));
  }

  void DecodeCall(LoggedDelta* delta) {
    ToolCall call;
    call.id = std::string(in_.Text(base::kMaxCallNameBytes));
    call.name = std::string(in_.Text(base::kMaxCallNameBytes));
    if (delta->kind != PartKind::kToolCall || !base::IsValidCallName(call.id) || !base::IsValidCallName(call.name)) {
      return in_.Fail();
    }
    delta->call = std::make_shared<const ToolCall>(std::move(call));
  }

  void DecodeLogprobs(std::vector<TokenLogprob>* logprobs) {
    const size_t left_before = in_.left();
    const auto decode_token = [this] {
      TokenLogprob token;
      token.token = std::string(in_.String(base::kMaxEventBytes));
      token.logprob = in_.Float();
      return token;
    };
    for (size_t left = in_.Number(in_.left()); left > 0 && in_.ok(); --left) {
      logprobs->push_back(decode_token());
      const auto top = in_.Number(base::kMaxTopLogprobs);
      for (size_t i = 0; i < top && in_.ok(); ++i) logprobs->back().top.push_back(decode_token());
      // An event must fit into a message.
      if (left_before - in_.left() > base::kMaxEventBytes) return in_.Fail();
    }
    if (logprobs->empty()) in_.Fail();
  }

  void FinishDelta(uint64_t length, LoggedDelta delta) {
    if (segment_.first_seq == 1 && !segment_.started.has_value()) return in_.Fail();
    if (length > base::kMaxEventBytes) return in_.Fail();
    delta.length = static_cast<uint32_t>(length);
    delta.elapsed_us = Elapsed();
    const std::string_view content = in_.Bytes(length);
    if (!IsUtf8(content)) return in_.Fail();
    segment_.content += content;
    segment_.deltas.push_back(std::move(delta));
  }

  void DecodeOther(RecordItem item) {
    switch (item) {
      case RecordItem::kStarted:
        return DecodeStarted();
      case RecordItem::kBranch:
        return DecodeBranch();
      case RecordItem::kEnded:
        return DecodeEnded();
      case RecordItem::kDone:
        segment_.end = LogEnd{Elapsed(), std::nullopt};
        return;
      case RecordItem::kFailed:
        return DecodeFailed();
      case RecordItem::kUsage:
        return DecodeUsage();
      case RecordItem::kCancelled:
        if (std::exchange(segment_.cancelled, true)) in_.Fail();
        return;
    }
    in_.Fail();
  }

  void DecodeStarted() {
    if (segment_.first_seq != 1 || segment_.started.has_value() || !segment_.ended.empty()) return in_.Fail();
    segment_.choice_count = in_.Number32(kMaxChoiceIndex);
    Started started;
    started.model = std::string(in_.Text(kMaxNameBytes));
    started.created_at = absl::FromUnixNanos(in_.Signed());
    started.prompt_tokens = in_.Number32();
    started.fingerprint = std::string(in_.Text(kMaxNameBytes));
    if (segment_.choice_count == 0) return in_.Fail();
    segment_.started = std::move(started);
  }

  void DecodeBranch() {
    LogBranch branch;
    branch.epoch = in_.Number32();
    branch.seq = in_.Number();
    branch.taker = in_.Number32();
    const uint32_t before = segment_.branches.empty() ? 0 : segment_.branches.back().epoch;
    const bool first = !segment_.started.has_value() && segment_.deltas.empty() && segment_.ended.empty();
    if (!first || branch.epoch <= before || segment_.branches.size() == kMaxBranches) return in_.Fail();
    segment_.branches.push_back(branch);
  }

  void DecodeEnded() {
    EndedChoice ended;
    ended.choice = in_.Number32(kMaxChoiceIndex);
    const uint8_t reason = in_.Byte();
    ended.after_seq = segment_.last_seq();
    const bool again = std::any_of(segment_.ended.begin(), segment_.ended.end(),
                                   [&](const EndedChoice& each) { return each.choice == ended.choice; });
    if (again || segment_.ended.size() >= base::kMaxChoices || reason == 0 ||
        reason > static_cast<uint8_t>(FinishReason::kToolCalls) || (segment_.first_seq == 1 && !HasStarted())) {
      return in_.Fail();
    }
    ended.reason = static_cast<FinishReason>(reason);
    segment_.ended.push_back(ended);
  }
  bool HasStarted() const { return segment_.started.has_value(); }

  void DecodeUsage() {
    if (segment_.usage.has_value()) return in_.Fail();
    Usage usage;
    usage.prompt_tokens = in_.Number32();
    usage.completion_tokens = in_.Number32();
    usage.cached_prompt_tokens = in_.Number32();
    usage.reasoning_tokens = in_.Number32();
    segment_.usage = usage;
  }

  void DecodeFailed() {
    LogEnd end{Elapsed(), Failed()};
    end.failed->code = std::string(in_.Text(kMaxNameBytes));
    end.failed->message = std::string(in_.Text(kMaxMessageBytes));
    const uint8_t flags = in_.Byte();
    if (flags > (kRetryable | kHasServerError)) return in_.Fail();
    end.failed->retryable = (flags & kRetryable) != 0;
    if ((flags & kHasServerError) != 0) {
      ServerError server;
      const int64_t status = in_.Signed();
      if (status < INT32_MIN || status > INT32_MAX) return in_.Fail();
      server.status = static_cast<int>(status);
      server.type = std::string(in_.Text(kMaxMessageBytes));
      server.code = std::string(in_.Text(kMaxMessageBytes));
      server.param = std::string(in_.Text(kMaxMessageBytes));
      server.retry_after = absl::Nanoseconds(in_.Signed());
      end.failed->server_error = std::move(server);
    }
    segment_.end = std::move(end);
  }

  RecordBytesReader& in_;
  const RecordLimits& limits_;
  uint64_t elapsed_us_ = 0;  // of the event before
  LogSegment segment_;
};

}  // namespace

absl::StatusOr<LogSegment> DecodeSegment(RecordBytesReader* in, const RecordLimits& limits) {
  return Decoder(in, limits).Decode();
}

}  // namespace runnel::inference
