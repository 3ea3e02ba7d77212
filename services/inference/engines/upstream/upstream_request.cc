#include "services/inference/engines/upstream/upstream_request.h"

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string>

namespace runnel::inference {
namespace {

// Ordered: the same request gives the same bytes, with the fields in the usual order.
using Json = nlohmann::ordered_json;

constexpr uint64_t kSeedMask = 0x7FFFFFFF;

const char* RoleName(ChatRole role) {
  switch (role) {
    case ChatRole::kSystem:
      return "system";
    case ChatRole::kUser:
      return "user";
    case ChatRole::kAssistant:
      return "assistant";
  }
  return "user";
}

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
           {{"name", "answer"}, {"strict", true}, {"schema", Json::parse(format.json_schema, nullptr, false)}}}};
  }
}

}  // namespace

std::string_view UpstreamRoute(const GenerationRequest& request) {
  return request.messages.empty() ? "/completions" : "/chat/completions";
}

std::string UpstreamBody(const GenerationRequest& request, std::string_view model) {
  Json body;
  body["model"] = model;
  if (request.messages.empty()) {
    body["prompt"] = request.prompt;
  } else {
    Json messages = Json::array();
    for (const ChatMessage& message : request.messages) {
      messages.push_back({{"role", RoleName(message.role)}, {"content", message.content}});
    }
    body["messages"] = std::move(messages);
  }
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  body["max_tokens"] = request.max_tokens;
  if (request.choice_count > 1) body["n"] = request.choice_count;
  if (!request.stop.empty()) body["stop"] = request.stop;
  body["seed"] = request.seed & kSeedMask;
  SetSampling(request.sampling, &body);
  SetLogprobs(request, &body);
  SetFormat(request.output_format, &body);
  // Does not throw for strings that are not UTF-8.
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace runnel::inference
