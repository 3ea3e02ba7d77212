#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace runnel::inference {

enum class ChatRole { kSystem, kUser, kAssistant };

struct ChatMessage {
  ChatRole role = ChatRole::kUser;
  std::string content;
};

// Absent = the engine's default.
struct Sampling {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<uint32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::map<uint32_t, float> logit_bias;  // by token
};

// A form that the text must have.
struct OutputFormat {
  enum class Kind { kText, kJsonObject, kJsonSchema };
  Kind kind = Kind::kText;
  std::string json_schema;  // of kJsonSchema: a JSON object or boolean, nested at most kMaxSchemaDepth deep
};

// A GenerateRequest after validation (request_from_proto.h), with the service's defaults filled in: an engine need not
// check ranges again.
struct GenerationRequest {
  std::string model;                  // never empty
  std::vector<ChatMessage> messages;  // empty if prompt is meant
  std::string prompt;
  Sampling sampling;
  uint64_t seed = 0;  // resolved: random if the caller gave none
  uint32_t max_tokens = 0;
  uint32_t choice_count = 1;
  std::vector<std::string> stop;
  std::optional<uint32_t> top_logprobs;  // absent: no log-probabilities are wanted
  OutputFormat output_format;
  absl::Duration detach_timeout;  // InfiniteDuration: never cancelled for want of readers
  std::string request_id;
  std::string principal;  // whose it is
  std::map<std::string, std::string> metadata;
  std::string annotation;                           // for whoever asks later; no engine looks at it
  std::map<std::string, std::string> extra_fields;  // that have no place here, by name, as JSON: see RefuseExtraFields
};

}  // namespace runnel::inference
