#include "services/inference/engines/scripted_script.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/inference/engines/extra_fields.h"
#include "services/inference/engines/scripted_words.h"

namespace runnel::inference {
namespace {

// To be changed with the words and how they are chosen.
constexpr char kFingerprint[] = "scripted-1";

constexpr size_t kMaxSaltBytes = 32;

absl::StatusOr<double> ReadNumber(const GenerationRequest& request, const std::string& key, double otherwise,
                                  double least, double most) {
  const auto found = request.metadata.find(key);
  if (found == request.metadata.end()) return otherwise;
  double value = 0;
  if (!absl::SimpleAtod(found->second, &value) || !(value >= least && value <= most)) {
    return base::InvalidField(absl::StrCat("metadata.", key),
                              absl::StrCat("must be a number from ", least, " to ", most));
  }
  return value;
}

absl::StatusOr<Script> ReadScript(const GenerationRequest& request, Script script) {
  ASSIGN_OR_RETURN(script.tokens_per_second,
                   ReadNumber(request, "scripted.tokens_per_second", script.tokens_per_second, 0.001, 1e6));
  ASSIGN_OR_RETURN(const double first_ms, ReadNumber(request, "scripted.first_token_ms",
                                                     absl::ToDoubleMilliseconds(script.first_token), 0, 600'000));
  ASSIGN_OR_RETURN(const double tokens, ReadNumber(request, "scripted.tokens", script.tokens, 0, 1e6));
  ASSIGN_OR_RETURN(const double fail_at,
                   ReadNumber(request, "scripted.fail_at", static_cast<double>(script.fail_at), -1, 1e6));
  ASSIGN_OR_RETURN(const double stall_at,
                   ReadNumber(request, "scripted.stall_at", static_cast<double>(script.stall_at), -1, 1e6));
  ASSIGN_OR_RETURN(const double timestamps,
                   ReadNumber(request, "scripted.timestamps", script.timestamps ? 1 : 0, 0, 1));
  ASSIGN_OR_RETURN(const double stepped, ReadNumber(request, "scripted.stepped", script.stepped ? 1 : 0, 0, 1));
  script.first_token = absl::Milliseconds(first_ms);
  script.tokens = static_cast<uint32_t>(tokens);
  script.fail_at = static_cast<int64_t>(fail_at);
  script.stall_at = static_cast<int64_t>(stall_at);
  script.timestamps = timestamps > 0;
  script.stepped = stepped > 0;
  if (const auto salt = request.metadata.find("scripted.salt"); salt != request.metadata.end()) {
    if (!IsValidSalt(salt->second)) {
      return base::InvalidField("metadata.scripted.salt", "must be up to 32 letters, digits, - and _");
    }
    script.salt = salt->second;
  }
  return script;
}

uint32_t CountWords(const GenerationRequest& request) {
  uint32_t words = 0;
  const auto count = [&words](std::string_view text) {
    bool inside = false;
    for (const char c : text) {
      const bool blank = c == ' ' || c == '\n' || c == '\t' || c == '\r';
      words += !blank && !inside ? 1 : 0;
      inside = !blank;
    }
  };
  count(request.prompt);
  for (const ChatMessage& message : request.messages) {
    count(message.content);
    count(message.reasoning);
  }
  return words;
}

}  // namespace

bool IsValidSalt(std::string_view salt) {
  return salt.size() <= kMaxSaltBytes && std::all_of(salt.begin(), salt.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '-' || c == '_';
         });
}

absl::StatusOr<std::unique_ptr<PreparedScript>> PreparedScript::Create(const GenerationRequest& request,
                                                                       Script defaults) {
  RETURN_IF_ERROR(RejectExtraFields(request));
  RETURN_IF_ERROR(RejectImages(request));
  if (request.output_format.kind != OutputFormat::Kind::kText) {
    return base::InvalidField("output_format", "is not supported by the scripted engine: leave it out");
  }
  if (!request.sampling.logit_bias.empty()) {
    return base::InvalidField("logit_bias", "is not supported by the scripted engine: leave it out");
  }
  auto prepared = std::make_unique<PreparedScript>();
  ASSIGN_OR_RETURN(prepared->script, ReadScript(request, std::move(defaults)));
  if (const auto parts = request.metadata.find("scripted.parts"); parts != request.metadata.end()) {
    ASSIGN_OR_RETURN(prepared->parts, ScriptedParts::Parse(parts->second));
    prepared->script.tokens = prepared->parts->tokens();
  }
  prepared->seed = request.seed;
  prepared->max_tokens = request.max_tokens.value_or(prepared->script.tokens);
  prepared->choice_count = request.choice_count;
  prepared->stop = request.stop;
  prepared->top_logprobs = request.top_logprobs;
  prepared->prompt_tokens_ = CountWords(request);
  return prepared;
}

std::string PreparedScript::fingerprint() const {
  return script.salt.empty() ? kFingerprint : absl::StrCat(kFingerprint, "-", script.salt);
}

FinishReason PreparedScript::finish_reason() const {
  if (script.tokens > max_tokens) return FinishReason::kLength;
  return parts.has_value() && parts->has_calls() ? FinishReason::kToolCalls : FinishReason::kStop;
}

ScriptedPiece PreparedScript::PieceAt(uint32_t choice, uint32_t index, absl::Duration monotonic) const {
  if (parts.has_value()) return parts->At(seed, choice, index, script.salt);
  ScriptedPiece piece;
  piece.content = script.timestamps ? StampedToken(seed, choice, index, monotonic, script.salt)
                                    : ScriptedToken(seed, choice, index, script.salt);
  return piece;
}

Tokens PreparedScript::TokenAt(uint32_t choice, uint32_t index, PartKind kind) const {
  Tokens token = 1;
  if (kind == PartKind::kText && top_logprobs.has_value()) {
    token.logprobs = {ScriptedLogprob(seed, choice, index, *top_logprobs, script.salt)};
  }
  return token;
}

}  // namespace runnel::inference
