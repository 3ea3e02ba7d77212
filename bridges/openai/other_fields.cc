#include "bridges/openai/other_fields.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/wire/json_fields.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"

namespace runnel::openai {
namespace {

using bridge::Unsupported;
using nlohmann::json;

enum class Rule { kIgnore, kReject, kForEngine };

struct OtherField {
  std::string_view name;
  Rule rule;
  std::string_view neutral = "[]";  // a JSON array of the values that request nothing
};

constexpr OtherField kOtherFields[] = {
    // About accounts, prices and caches of OpenAI, about its own tools, or about the client.
    {"client_metadata", Rule::kIgnore},
    {"max_tool_calls", Rule::kIgnore},
    {"parallel_tool_calls", Rule::kIgnore},
    {"prompt_cache_key", Rule::kIgnore},
    {"prompt_cache_retention", Rule::kIgnore},
    {"safety_identifier", Rule::kIgnore},
    {"service_tier", Rule::kIgnore},
    {"store", Rule::kIgnore},
    {"user", Rule::kIgnore},
    // Speeds up the same text.
    {"prediction", Rule::kIgnore},
    // Not supported by any engine.
    {"audio", Rule::kReject},
    {"best_of", Rule::kReject, "[0,1]"},
    {"conversation", Rule::kReject},
    {"echo", Rule::kReject, "[false]"},
    {"function_call", Rule::kReject, R"(["none","auto"])"},
    {"functions", Rule::kReject, "[[]]"},
    {"modalities", Rule::kReject, R"([["text"]])"},
    {"previous_response_id", Rule::kReject, R"([""])"},
    {"prompt", Rule::kReject},
    {"suffix", Rule::kReject, R"([""])"},
    {"truncation", Rule::kReject, R"(["disabled"])"},
    {"web_search_options", Rule::kReject},
    // Supported by some engines.
    {"chat_template_kwargs", Rule::kForEngine, "[{}]"},
    {"guided_choice", Rule::kForEngine},
    {"guided_grammar", Rule::kForEngine},
    {"guided_json", Rule::kForEngine},
    {"guided_regex", Rule::kForEngine},
    {"ignore_eos", Rule::kForEngine, "[false]"},
    {"min_tokens", Rule::kForEngine, "[0]"},
    {"reasoning", Rule::kForEngine, "[{}]"},
    {"reasoning_effort", Rule::kForEngine},
    {"repeat_penalty", Rule::kForEngine, "[1,1.0]"},
    {"repetition_penalty", Rule::kForEngine, "[1,1.0]"},
    {"structured_outputs", Rule::kForEngine},
    {"thinking", Rule::kForEngine},
    {"verbosity", Rule::kForEngine},
};

// Whether `value` is in `neutral`. An object that has only nulls counts as empty.
bool IsNeutral(const json& value, std::string_view neutral) {
  json plain = value;
  if (plain.is_object()) {
    for (auto each = plain.begin(); each != plain.end();) each->is_null() ? each = plain.erase(each) : ++each;
  }
  const json values = json::parse(neutral);
  return std::find(values.begin(), values.end(), plain) != values.end();
}

absl::Status HandToEngine(const std::string& name, const json& value, v1::GenerateRequest* request) {
  std::string text = value.dump();
  size_t bytes = text.size();
  for (const auto& [other, other_value] : request->extra_fields()) bytes += other_value.size();
  if (name.empty() || name.size() > base::kMaxExtraNameBytes || bytes > base::kMaxExtraBytes ||
      request->extra_fields().size() >= base::kMaxExtraFields) {
    return Unsupported(bridge::ShownKey(name), "is not supported");
  }
  (*request->mutable_extra_fields())[name] = std::move(text);
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadOtherField(const std::string& name, const json& value, v1::GenerateRequest* request) {
  const auto* row = std::find_if(std::begin(kOtherFields), std::end(kOtherFields),
                                 [&](const OtherField& each) { return each.name == name; });
  if (row == std::end(kOtherFields)) return HandToEngine(name, value, request);
  if (row->rule == Rule::kIgnore || IsNeutral(value, row->neutral)) return absl::OkStatus();
  if (row->rule == Rule::kReject) return Unsupported(name, "is not supported: leave it out");
  return HandToEngine(name, value, request);
}

absl::Status ReadOtherFields(const json& body, const std::vector<std::string_view>& read,
                             v1::GenerateRequest* request) {
  for (const auto& [name, value] : body.items()) {
    if (value.is_null() || std::find(read.begin(), read.end(), name) != read.end()) continue;
    RETURN_IF_ERROR(ReadOtherField(name, value, request));
  }
  return absl::OkStatus();
}

std::vector<std::string_view> OtherFieldNames() {
  std::vector<std::string_view> names;
  for (const OtherField& row : kOtherFields) names.push_back(row.name);
  return names;
}

}  // namespace runnel::openai
