#include <algorithm>

#include "services/inference/journal/journal_record.h"
#include "services/inference/journal/record_items.h"

namespace runnel::inference {
namespace {

bool SamePart(const LoggedDelta* before, const LoggedDelta& delta) {
  return before != nullptr && before->choice == delta.choice && before->part == delta.part &&
         before->kind == delta.kind;
}

class Encoder {
 public:
  explicit Encoder(RecordBytesWriter* out) : out_(*out) {}

  void Encode(const LogSegment& segment) {
    out_.Number(segment.first_seq);
    for (const LogBranch& branch : segment.branches) {
      Begin(RecordItem::kBranch);
      out_.Number(branch.epoch);
      out_.Number(branch.seq);
      out_.Number(branch.taker);
    }
    if (segment.started.has_value()) EncodeStarted(*segment.started, segment.choice_count);
    auto ended = segment.ended.begin();
    const auto encode_ended = [&](uint64_t seq) {
      for (; ended != segment.ended.end() && ended->after_seq <= seq; ++ended) {
        Begin(RecordItem::kEnded);
        out_.Number(ended->choice);
        out_.Byte(static_cast<uint8_t>(ended->reason));
      }
    };
    uint64_t seq = segment.first_delta_seq();
    std::string_view content = segment.content;
    for (const LoggedDelta& delta : segment.deltas) {
      encode_ended(seq++ - 1);
      EncodeDelta(delta, content.substr(0, delta.length));
      content.remove_prefix(delta.length);
    }
    encode_ended(UINT64_MAX);
    if (segment.usage.has_value()) EncodeUsage(*segment.usage);
    if (segment.cancelled) Begin(RecordItem::kCancelled);
    if (segment.end.has_value()) EncodeEnd(*segment.end);
  }

 private:
  void Begin(RecordItem item) { out_.Byte(static_cast<uint8_t>(static_cast<uint8_t>(item) << 2 | kOtherItem)); }

  void Elapsed(uint64_t elapsed_us) {
    out_.Signed(static_cast<int64_t>(elapsed_us - elapsed_us_));
    elapsed_us_ = elapsed_us;
  }

  void EncodeStarted(const Started& started, uint32_t choice_count) {
    Begin(RecordItem::kStarted);
    out_.Number(choice_count);
    out_.String(started.model);
    out_.Signed(absl::ToUnixNanos(started.created_at));
    out_.Number(started.prompt_tokens);
    out_.String(started.fingerprint);
  }

  void EncodeDelta(const LoggedDelta& delta, std::string_view content) {
    const bool same_part = SamePart(before_, delta);
    if (same_part && delta.tokens == 1 && delta.call == nullptr && delta.logprobs.empty() && delta.token_ids.empty()) {
      const auto length = static_cast<uint8_t>(std::min<size_t>(content.size(), kLongContent));
      out_.Byte(static_cast<uint8_t>(length << 2 | kPlainDelta));
      if (length == kLongContent) out_.Number(content.size() - kLongContent);
    } else {
      EncodeFullDelta(delta, same_part);
      out_.Number(content.size());
    }
    before_ = &delta;
    Elapsed(delta.elapsed_us);
    out_.Bytes(content);
  }

  void EncodeFullDelta(const LoggedDelta& delta, bool same_part) {
    const int fields = (same_part ? kSamePart : 0) | (delta.call != nullptr ? kHasCall : 0) |
                       (delta.logprobs.empty() ? 0 : kHasLogprobs) | (delta.token_ids.empty() ? 0 : kHasTokenIds) |
                       (delta.tokens == 1 ? 0 : kHasTokens);
    out_.Byte(static_cast<uint8_t>(fields << 2 | kFullDelta));
    if (!same_part) {
      out_.Number(delta.choice);
      out_.Number(delta.part);
      out_.Byte(static_cast<uint8_t>(delta.kind));
    }
    if (delta.call != nullptr) {
      out_.String(delta.call->id);
      out_.String(delta.call->name);
    }
    if (delta.tokens != 1) out_.Number(delta.tokens);
    if (!delta.logprobs.empty()) EncodeLogprobs(delta.logprobs);
    if (!delta.token_ids.empty()) {
      out_.Number(delta.token_ids.size());
      for (const uint32_t id : delta.token_ids) out_.Number(id);
    }
  }

  void EncodeLogprobs(const std::vector<TokenLogprob>& logprobs) {
    out_.Number(logprobs.size());
    for (const TokenLogprob& token : logprobs) {
      out_.String(token.token);
      out_.Float(token.logprob);
      out_.Number(token.top.size());
      for (const TokenLogprob& each : token.top) {
        out_.String(each.token);
        out_.Float(each.logprob);
      }
    }
  }

  void EncodeUsage(const Usage& usage) {
    Begin(RecordItem::kUsage);
    out_.Number(usage.prompt_tokens);
    out_.Number(usage.completion_tokens);
    out_.Number(usage.cached_prompt_tokens);
    out_.Number(usage.reasoning_tokens);
  }

  void EncodeEnd(const LogEnd& end) {
    Begin(end.failed.has_value() ? RecordItem::kFailed : RecordItem::kDone);
    Elapsed(end.elapsed_us);
    if (!end.failed.has_value()) return;
    out_.String(end.failed->code);
    out_.String(end.failed->message);
    const auto& server = end.failed->server_error;
    out_.Byte(
        static_cast<uint8_t>((end.failed->retryable ? kRetryable : 0) | (server.has_value() ? kHasServerError : 0)));
    if (!server.has_value()) return;
    out_.Signed(server->status);
    out_.String(server->type);
    out_.String(server->code);
    out_.String(server->param);
    out_.Signed(absl::ToInt64Nanoseconds(server->retry_after));
  }

  RecordBytesWriter& out_;
  uint64_t elapsed_us_ = 0;              // of the event before
  const LoggedDelta* before_ = nullptr;  // the delta before
};

}  // namespace

void EncodeSegment(const LogSegment& segment, RecordBytesWriter* out) { Encoder(out).Encode(segment); }

}  // namespace runnel::inference
