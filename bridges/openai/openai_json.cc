#include "bridges/openai/openai_json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bridges/wire/event_json.h"

namespace runnel::openai {
namespace {

using nlohmann::json;

// OpenAI's value for a token that is too unlikely to have a finite one.
constexpr float kLeastLogprob = -9999.0f;

std::string Quoted(const std::string& bytes, json::error_handler_t if_invalid) {
  return json(bytes).dump(-1, ' ', false, if_invalid);
}

}  // namespace

void AppendChatUsage(const v1::Usage& usage, std::string* out) {
  absl::StrAppend(out, "{\"prompt_tokens\":", usage.prompt_tokens(),
                  ",\"completion_tokens\":", usage.completion_tokens(),
                  ",\"total_tokens\":", uint64_t{usage.prompt_tokens()} + usage.completion_tokens(),
                  ",\"prompt_tokens_details\":{\"cached_tokens\":", usage.cached_prompt_tokens(),
                  "},\"completion_tokens_details\":{\"reasoning_tokens\":", usage.reasoning_tokens(), "}}");
}

void AppendLogprob(float logprob, std::string* out) {
  // Neither NaN nor infinity is JSON.
  absl::StrAppend(out, std::isfinite(logprob) ? std::max(logprob, kLeastLogprob) : kLeastLogprob);
}

void AppendChatToken(const v1::TokenLogprob& token, std::string* out) {
  out->append("\"token\":").append(Quoted(token.token(), json::error_handler_t::replace)).append(",\"logprob\":");
  AppendLogprob(token.logprob(), out);
  out->append(",\"bytes\":[");
  for (const char c : token.token()) {
    absl::StrAppend(out, out->back() == '[' ? "" : ",", static_cast<int>(static_cast<unsigned char>(c)));
  }
  out->push_back(']');
}

void AppendLegacyToken(const v1::TokenLogprob& token, std::string* out) {
  const std::string replaced = Quoted(token.token(), json::error_handler_t::replace);
  if (replaced == Quoted(token.token(), json::error_handler_t::ignore)) return void(out->append(replaced));
  std::string text = "bytes:";
  for (const char c : token.token()) absl::StrAppendFormat(&text, "\\x%02x", static_cast<unsigned char>(c));
  bridge::AppendJsonString(text, out);
}

uint64_t CountCharacters(std::string_view text) {
  return static_cast<uint64_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace runnel::openai
