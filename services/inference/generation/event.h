#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"

// The entries of a generation's log as plain structs; event_to_proto.h converts them to wire messages, and
// proto/runnel/v1/inference.proto documents them.
namespace runnel::inference {

enum class FinishReason { kNone, kStop, kLength, kCancelled, kContentFilter };

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  uint32_t cached_prompt_tokens = 0;
  uint32_t reasoning_tokens = 0;  // of completion_tokens
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

// The tokens that a text stands for: their number, and their log-probabilities if the request asks for them.
struct Tokens {
  Tokens(uint32_t number) : count(number) {}  // NOLINT(google-explicit-constructor): most are only a number
  Tokens(uint32_t number, std::vector<TokenLogprob> each) : count(number), logprobs(std::move(each)) {}

  uint32_t count = 0;
  std::vector<TokenLogprob> logprobs;
};

struct Delta {
  uint32_t choice = 0;
  std::string text;
  uint32_t tokens = 0;
  std::vector<TokenLogprob> logprobs = {};
};

struct ChoiceEnd {
  uint32_t index = 0;
  FinishReason finish_reason = FinishReason::kNone;
  uint64_t text_bytes = 0;
  uint32_t text_crc32 = 0;
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

struct ChoiceText {
  uint32_t index = 0;
  std::string text;
  FinishReason finish_reason = FinishReason::kNone;
};

struct Gap {
  uint64_t requested_after = 0;
  uint64_t first_available = 0;
  std::vector<ChoiceText> snapshot;
};

struct Event {
  uint64_t seq = 0;
  uint64_t first_seq = 0;
  uint64_t elapsed_us = 0;
  std::variant<Started, Delta, Done, Failed, Gap> payload;

  bool terminal() const { return std::holds_alternative<Done>(payload) || std::holds_alternative<Failed>(payload); }
};

}  // namespace runnel::inference
