#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"

// The entries of a generation's log as plain structs; event_to_proto.h converts them to wire messages, and
// proto/runnel/v1/inference.proto documents them.
namespace runnel::inference {

enum class FinishReason { kNone, kStop, kLength, kCancelled, kContentFilter, kToolCalls };

enum class PartKind { kText, kReasoning, kToolCall, kRefusal };

struct ToolCall {
  std::string id;
  std::string name;

  bool operator==(const ToolCall&) const = default;
};

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  uint32_t cached_prompt_tokens = 0;
  uint32_t reasoning_tokens = 0;  // of completion_tokens

  bool operator==(const Usage&) const = default;
};

struct Started {
  std::string model;
  absl::Time created_at;
  uint32_t prompt_tokens = 0;
  std::string fingerprint = {};
};

struct TokenLogprob {
  std::string token;  // bytes
  float logprob = 0;
  std::vector<TokenLogprob> top;

  bool operator==(const TokenLogprob&) const = default;
};

// The tokens that a text stands for: their number, their log-probabilities if the request asks for them, and their ids
// if the sink wants them (EventSink::wants_token_ids).
struct Tokens {
  Tokens(uint32_t number) : count(number) {}  // NOLINT(google-explicit-constructor): most are only a number
  Tokens(uint32_t number, std::vector<TokenLogprob> each) : count(number), logprobs(std::move(each)) {}

  uint32_t count = 0;
  std::vector<TokenLogprob> logprobs;
  // All tokens drawn for the choice since those of its last append, also those without a text of their own. Valid
  // during the call.
  std::span<const uint32_t> ids = {};
};

struct Delta {
  uint32_t choice = 0;
  std::string text;  // of a part of any kind: on the wire, only that of a text part is called text
  uint32_t tokens = 0;
  std::vector<TokenLogprob> logprobs = {};
  uint32_t part = 0;
  PartKind kind = PartKind::kText;
  std::shared_ptr<const ToolCall> call = nullptr;  // only in the delta that opens a tool call
};

struct PartEnd {
  uint32_t index = 0;
  PartKind kind = PartKind::kText;
  uint64_t bytes = 0;
  uint32_t crc32 = 0;
  ToolCall call;
  bool complete = false;
};

struct ChoiceEnd {
  uint32_t index = 0;
  FinishReason finish_reason = FinishReason::kNone;
  uint64_t text_bytes = 0;
  uint32_t text_crc32 = 0;
  std::vector<PartEnd> parts = {};  // empty for no output or a single text part
};

struct Done {
  uint64_t event_count = 0;
  std::vector<ChoiceEnd> choices;
  Usage usage;
};

// An error of the server behind an engine.
struct ServerError {
  int status = 0;
  std::string type;
  std::string code;
  std::string param;
  absl::Duration retry_after;  // zero: none given
};

struct Failed {
  std::string code;
  std::string message;
  bool retryable = false;
  std::optional<ServerError> server_error = {};
};

struct PartText {
  uint32_t index = 0;
  PartKind kind = PartKind::kText;
  ToolCall call;
  std::string content;
};

struct ChoiceText {
  uint32_t index = 0;
  std::string text;
  FinishReason finish_reason = FinishReason::kNone;
  std::vector<PartText> parts = {};  // empty for no output or a single text part
};

// A part that was opened at or before a reader's cursor.
struct OpenedPart {
  uint32_t choice = 0;
  uint32_t index = 0;
  PartKind kind = PartKind::kText;
  ToolCall call;
  uint64_t bytes = 0;  // up to the cursor
};

struct Gap {
  enum class Reason {
    kAfterBeyondEnd,
    kTailLost,  // the cursor is of an epoch whose tail is not part of the log
  };
  uint64_t requested_after = 0;
  uint64_t first_available = 0;
  std::vector<ChoiceText> snapshot;
  Reason reason = Reason::kAfterBeyondEnd;
};

struct Event {
  uint64_t seq = 0;
  uint64_t first_seq = 0;
  uint64_t elapsed_us = 0;
  std::variant<Started, Delta, Done, Failed, Gap> payload;

  bool terminal() const { return std::holds_alternative<Done>(payload) || std::holds_alternative<Failed>(payload); }
};

}  // namespace runnel::inference
