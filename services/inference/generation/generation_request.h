#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace runnel::inference {

enum class ChatRole { kSystem, kUser, kAssistant, kDeveloper, kTool };

struct ContentPart {
  enum class Kind { kText, kImage };
  Kind kind = Kind::kText;
  std::string value;   // the text, or a data: URL
  std::string detail;  // of an image; empty: the engine's default
};

// A tool call in an earlier turn.
struct CalledTool {
  std::string id;
  std::string name;
  std::string arguments;
};

struct ChatMessage {
  ChatRole role = ChatRole::kUser;
  std::string content;
  std::vector<ContentPart> parts = {};  // in place of content, if there are images
  std::vector<CalledTool> tool_calls = {};
  std::string reasoning = {};
  std::string tool_call_id = {};  // of kTool
};

struct Tool {
  std::string name;
  std::string description;
  std::string parameters;  // a JSON object, or empty
  std::optional<bool> strict;
};

struct ToolChoice {
  enum class Mode { kNone, kAuto, kRequired, kNamed };
  Mode mode = Mode::kAuto;
  std::string name;                  // of kNamed
  std::vector<std::string> allowed;  // of kAuto and kRequired; empty: all
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

// The name under which the client gave max_tokens.
enum class TokenLimitName { kUnspecified, kMaxTokens, kMaxCompletionTokens };

// The form that the text must have.
struct OutputFormat {
  enum class Kind { kText, kJsonObject, kJsonSchema };
  Kind kind = Kind::kText;
  std::string json_schema;  // for kJsonSchema: a JSON object or boolean, nested at most kMaxSchemaDepth deep
};

// What v1::GenerateRequest becomes once it is validated and the service's defaults are filled in
// (request_from_proto.h): engines see only this, and need not check ranges again.
struct GenerationRequest {
  std::string model;                  // never empty
  std::vector<ChatMessage> messages;  // empty: prompt is used
  std::string prompt;
  Sampling sampling;
  uint64_t seed = 0;  // random if the caller set none
  bool seed_given = false;
  std::optional<uint32_t> max_tokens;  // absent: as many as the engine can make
  TokenLimitName token_limit_name = TokenLimitName::kUnspecified;
  uint32_t choice_count = 1;
  std::vector<std::string> stop;
  std::optional<uint32_t> top_logprobs;  // absent: no log-probabilities
  OutputFormat output_format;
  std::vector<Tool> tools;                // not with a prompt
  std::optional<ToolChoice> tool_choice;  // names only tools of `tools`
  std::optional<bool> parallel_tool_calls;
  std::string reasoning_effort;   // empty: the engine's default
  absl::Duration detach_timeout;  // InfiniteDuration: not cancelled without readers
  std::string request_id;
  std::string principal;  // the owner
  std::map<std::string, std::string> metadata;
  std::string annotation;                           // returned to readers as it is; engines ignore it
  std::string kept_input;                           // a serialized v1::KeptInput, likewise; empty: none
  bool discard_stored_log = false;                  // nothing of it stays in a shared log once it has ended
  std::map<std::string, std::string> extra_fields;  // other fields by name, as JSON: see RejectExtraFields
};

}  // namespace runnel::inference
