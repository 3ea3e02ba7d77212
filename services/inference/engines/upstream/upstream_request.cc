#include "services/inference/engines/upstream/upstream_request.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/inference/engines/upstream/upstream_chat.h"

namespace runnel::inference {
namespace {

// Ordered: the same request gives the same bytes, with the fields in the usual order.
using Json = nlohmann::ordered_json;

constexpr uint64_t kSeedMask = 0x7FFFFFFF;

// Fields that UpstreamBody writes, or that would change the form of the output. --upstream_extra_fields=* does not
// forward them.
constexpr std::string_view kOurFields[] = {"audio",
                                           "best_of",
                                           "echo",
                                           "frequency_penalty",
                                           "function_call",
                                           "functions",
                                           "include_stop_str_in_output",
                                           "input",
                                           "logit_bias",
                                           "logprobs",
                                           "max_completion_tokens",
                                           "max_tokens",
                                           "messages",
                                           "min_p",
                                           "modalities",
                                           "model",
                                           "n",
                                           "parallel_tool_calls",
                                           "presence_penalty",
                                           "prompt",
                                           "response_format",
                                           "seed",
                                           "stop",
                                           "stream",
                                           "stream_options",
                                           "suffix",
                                           "temperature",
                                           "tool_choice",
                                           "tools",
                                           "top_k",
                                           "top_logprobs",
                                           "top_p"};

// The double with the float's shortest decimal form: 0.7 and not 0.699999988079071.
double Widen(float value) {
  std::array<char, 32> digits{};
  const auto written = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  double wide = value;
  std::from_chars(digits.data(), written.ptr, wide);
  return wide;
}

void SetSampling(const Sampling& sampling, Json* body) {
  const auto set = [body](const char* name, const std::optional<float>& value) {
    if (value.has_value()) (*body)[name] = Widen(*value);
  };
  set("temperature", sampling.temperature);
  set("top_p", sampling.top_p);
  if (sampling.top_k.has_value()) (*body)["top_k"] = *sampling.top_k;
  set("min_p", sampling.min_p);
  set("presence_penalty", sampling.presence_penalty);
  set("frequency_penalty", sampling.frequency_penalty);
  for (const auto& [token, bias] : sampling.logit_bias) (*body)["logit_bias"][std::to_string(token)] = Widen(bias);
}

void SetLogprobs(const GenerationRequest& request, Json* body) {
  if (!request.top_logprobs.has_value()) return;
  if (request.messages.empty()) {
    (*body)["logprobs"] = *request.top_logprobs;
    return;
  }
  (*body)["logprobs"] = true;
  if (*request.top_logprobs > 0) (*body)["top_logprobs"] = *request.top_logprobs;
}

void SetFormat(const OutputFormat& format, Json* body) {
  switch (format.kind) {
    case OutputFormat::Kind::kText:
      return;
    case OutputFormat::Kind::kJsonObject:
      (*body)["response_format"] = {{"type", "json_object"}};
      return;
    case OutputFormat::Kind::kJsonSchema:
      (*body)["response_format"] = {
          {"type", "json_schema"},
          {"json_schema",
           {{"name", "output"}, {"strict", true}, {"schema", Json::parse(format.json_schema, nullptr, false)}}}};
  }
}

}  // namespace

std::string_view UpstreamRoute(const GenerationRequest& request) {
  return request.messages.empty() ? "/completions" : "/chat/completions";
}

UpstreamBody MakeUpstreamBody(const GenerationRequest& request, std::string_view model,
                              TokenLimitName token_limit_name) {
  Json body;
  body["model"] = model;
  if (request.messages.empty()) {
    body["prompt"] = request.prompt;
  } else {
    body["messages"] = UpstreamMessages(request.messages);
  }
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  if (request.choice_count > 1) body["n"] = request.choice_count;
  if (!request.stop.empty()) body["stop"] = request.stop;
  if (request.seed_given) body["seed"] = request.seed & kSeedMask;
  SetSampling(request.sampling, &body);
  SetLogprobs(request, &body);
  SetFormat(request.output_format, &body);
  if (!request.reasoning_effort.empty()) body["reasoning_effort"] = request.reasoning_effort;
  // Does not throw for strings that are not UTF-8.
  UpstreamBody result{body.dump(-1, ' ', false, Json::error_handler_t::replace), {}, 0};
  result.json.pop_back();
  result.json += UpstreamTools(request);
  for (const auto& [name, value] : request.extra_fields) {
    absl::StrAppend(&result.json, ",", Json(name).dump(-1, ' ', false, Json::error_handler_t::replace), ":", value);
  }
  if (request.max_tokens.has_value()) {
    const bool chosen = request.token_limit_name != TokenLimitName::kUnspecified;
    const bool completion = !request.messages.empty() && (chosen ? request.token_limit_name : token_limit_name) ==
                                                             TokenLimitName::kMaxCompletionTokens;
    const char* const field = completion ? "max_completion_tokens" : "max_tokens";
    const std::string limit = absl::StrCat(",\"", field, "\":", *request.max_tokens);
    result.json += limit;
    result.limit_bytes = limit.size();
    if (!chosen) result.limit_field = field;
  }
  result.json.push_back('}');
  return result;
}

void UpstreamBody::DropTokenLimit() {
  json.erase(json.size() - 1 - limit_bytes, limit_bytes);
  limit_field.clear();
  limit_bytes = 0;
}

absl::Status CheckUpstreamFields(const GenerationRequest& request, const std::vector<std::string>& allowed) {
  const auto is_listed = [&](std::string_view name) {
    return std::any_of(allowed.begin(), allowed.end(), [&](std::string_view pattern) {
      if (pattern.ends_with('*')) return name.starts_with(pattern.substr(0, pattern.size() - 1));
      return name == pattern;
    });
  };
  for (const auto& [name, value] : request.extra_fields) {
    const bool listed = is_listed(name);
    const bool ours = std::find(std::begin(kOurFields), std::end(kOurFields), name) != std::end(kOurFields) ||
                      (name == "reasoning_effort" && !request.reasoning_effort.empty());
    if (!listed || ours) {
      return base::InvalidField(name, "is not supported by this model's engine: leave it out", "UNSUPPORTED_PARAMETER");
    }
    // The parser stops at a NUL, and would ignore the rest.
    if (value.find('\0') != std::string::npos || !Json::accept(value)) {
      return base::InvalidField(name, "must be JSON", "UNSUPPORTED_PARAMETER");
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> DefaultUpstreamExtraFields() {
  return {"bad_words",
          "chat_template_kwargs",
          "dry_*",
          "enable_thinking",
          "ebnf",
          "grammar",
          "guided_*",
          "ignore_eos",
          "length_penalty",
          "max_thinking_tokens",
          "min_tokens",
          "mirostat*",
          "reasoning",
          "reasoning_effort",
          "regex",
          "repeat_last_n",
          "repeat_penalty",
          "repetition_penalty",
          "skip_special_tokens",
          "stop_token_ids",
          "structured_outputs",
          "thinking*",
          "top_a",
          "top_n_sigma",
          "typical_p",
          "verbosity",
          "xtc_*"};
}

}  // namespace runnel::inference
