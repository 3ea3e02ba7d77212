#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "runnel/v1/inference.pb.h"

// Parts of the JSON of OpenAI-compatible responses. Pure functions that append to `out`.
namespace runnel::openai {

// {"prompt_tokens","completion_tokens","total_tokens","prompt_tokens_details","completion_tokens_details"}
void AppendChatUsage(const v1::Usage& usage, std::string* out);

// The tokens of a choice or of a part of it, in any container of v1::TokenLogprob, which may be empty.
//   {"token","logprob","bytes","top_logprobs":[{"token","logprob","bytes"}]},{...
template <typename Tokens>
void AppendTokenList(const Tokens& tokens, std::string* out);

// {"content":[ the list ],"refusal":[ the list ]}, with null for a list without tokens; null if both are.
template <typename Text, typename Refusal>
void AppendChatLogprobs(const Text& text, const Refusal& refusal, std::string* out);

// {"tokens":[],"token_logprobs":[],"top_logprobs":[{}],"text_offset":[]} or null. `offset` is the number of characters
// of the choice before these tokens; theirs are added.
template <typename Tokens>
void AppendLegacyLogprobs(const Tokens& tokens, uint64_t* offset, std::string* out);

// One token, without the braces: "token":..,"logprob":..,"bytes":[..]
void AppendChatToken(const v1::TokenLogprob& token, std::string* out);
// A token as a string. One that is not valid UTF-8 becomes `bytes:\xe6`, so that two tokens never have the same key.
void AppendLegacyToken(const v1::TokenLogprob& token, std::string* out);
void AppendLogprob(float logprob, std::string* out);
uint64_t CountCharacters(std::string_view text);

template <typename Tokens>
void AppendTokenList(const Tokens& tokens, std::string* out) {
  const char* begin = "{";
  for (const v1::TokenLogprob& token : tokens) {
    out->append(std::exchange(begin, ",{"));
    AppendChatToken(token, out);
    out->append(",\"top_logprobs\":[");
    for (const v1::TokenLogprob& top : token.top()) {
      out->append(out->back() == '}' ? ",{" : "{");
      AppendChatToken(top, out);
      out->push_back('}');
    }
    out->append("]}");
  }
}

template <typename Text, typename Refusal>
void AppendChatLogprobs(const Text& text, const Refusal& refusal, std::string* out) {
  if (text.empty() && refusal.empty()) return void(out->append("null"));
  const auto append = [out](std::string_view key, const auto& tokens) {
    out->append(key);
    if (tokens.empty()) return void(out->append("null"));
    AppendTokenList(tokens, &out->append("["));
    out->push_back(']');
  };
  append("{\"content\":", text);
  append(",\"refusal\":", refusal);
  out->push_back('}');
}

template <typename Tokens>
void AppendLegacyLogprobs(const Tokens& tokens, uint64_t* offset, std::string* out) {
  if (tokens.empty()) return void(out->append("null"));
  std::string logprobs;
  std::string tops;
  std::string offsets;
  out->append("{\"tokens\":[");
  for (const v1::TokenLogprob& token : tokens) {
    const char* const comma = logprobs.empty() ? "" : ",";
    out->append(comma);
    AppendLegacyToken(token, out);
    AppendLogprob(token.logprob(), &logprobs.append(comma));
    tops.append(comma).push_back('{');
    for (const v1::TokenLogprob& top : token.top()) {
      if (tops.back() != '{') tops.push_back(',');
      AppendLegacyToken(top, &tops);
      AppendLogprob(top.logprob(), &tops.append(":"));
    }
    tops.push_back('}');
    offsets.append(comma).append(std::to_string(*offset));
    *offset += CountCharacters(token.token());
  }
  out->append("],\"token_logprobs\":[").append(logprobs).append("],\"top_logprobs\":[").append(tops);
  out->append("],\"text_offset\":[").append(offsets).append("]}");
}

}  // namespace runnel::openai
