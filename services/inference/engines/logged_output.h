#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/generation/engine.h"
#include "services/inference/generation/log_segment.h"

namespace runnel::inference {

// The output of one choice as a log has it. Refers to the log, which must outlive it.
struct LoggedOutput {
  struct Piece {
    PartKind kind = PartKind::kText;
    uint32_t call = 0;                  // the number of a tool call
    const ToolCall* opening = nullptr;  // of the piece that opens a call
    std::string_view content;
    uint32_t tokens = 0;
    std::span<const uint32_t> token_ids;
  };
  bool ended() const { return reason != FinishReason::kNone; }

  std::vector<Piece> pieces;
  FinishReason reason = FinishReason::kNone;
};

// The outputs of all choices. FailedPrecondition if the log does not fit the number of choices.
absl::StatusOr<std::vector<LoggedOutput>> OutputsOf(const LogSegment& log, uint32_t choice_count);

// Takes the output of one choice that an engine makes again, and compares it with the log: piece by piece, but
// wherever the pieces are cut. What the output has in addition is kept: it follows the log, in which it is missing
// because the log ends between the pieces of one token. Not thread-safe.
class ReplaySink final : public EventSink {
 public:
  enum class CallIds { kSame, kAny };  // of tool calls: whether they must be those of the log

  // `logged` must outlive it.
  explicit ReplaySink(const LoggedOutput* logged, CallIds call_ids = CallIds::kSame);

  // All of the logged output was made again.
  bool complete() const { return next_ == logged_->pieces.size(); }
  // What was made is not what is logged.
  bool differs() const { return differs_; }
  // Tokens of reasoning that is not in the log, because it is not delivered.
  uint32_t hidden_tokens() const { return hidden_tokens_; }

  // A piece that follows the log.
  struct Rest {
    PartKind kind = PartKind::kText;
    uint32_t call = 0;
    std::optional<ToolCall> opening;
    std::string content;
    uint32_t tokens = 0;

    void AppendTo(uint32_t choice, EventSink* sink, WakeSet* wake) const;
  };
  std::vector<Rest> TakeRest() { return std::exchange(rest_, {}); }

  // EventSink.
  void Begin() override {}
  void SetPromptTokens(uint32_t, uint32_t) override {}
  void SetUsage(const Usage&) override {}
  void SetPrefillShare(float) override {}
  void Append(uint32_t choice, std::string_view text, Tokens tokens, WakeSet* wake) override;
  void AppendPart(uint32_t choice, const PartPiece& piece, Tokens tokens, WakeSet* wake) override;
  void EndChoice(uint32_t, FinishReason, WakeSet*) override {}
  void EndAll(FinishReason, WakeSet*) override {}
  void Fail(Failed, WakeSet*) override { differs_ = true; }
  bool cancelled() const override { return false; }

 private:
  // Removes from `piece` what the next logged piece has. False if they differ.
  bool Match(PartPiece* piece);

  const LoggedOutput* const logged_;
  const CallIds call_ids_;
  const bool has_reasoning_;
  size_t next_ = 0;     // the next logged piece
  bool begun_ = false;  // it was begun to be made again
  size_t matched_ = 0;  // bytes of it that were
  bool differs_ = false;
  uint32_t hidden_tokens_ = 0;
  std::vector<Rest> rest_;
};

}  // namespace runnel::inference
