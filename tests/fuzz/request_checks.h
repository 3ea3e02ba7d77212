#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>

#include "bridges/wire/json_parser.h"
#include "bridges/wire/json_slice.h"
#include "runnel/v1/inference.pb.h"
#include "services/base/call_name.h"
#include "services/base/request_limits.h"
#include "tests/fuzz/fuzz_check.h"

// What holds for the tools and messages of every request that a bridge accepts, whatever its API.
namespace runnel::fuzz {

inline void CheckTools(const v1::GenerateRequest& request) {
  FUZZ_CHECK(static_cast<size_t>(request.tools_size()) <= base::kMaxTools);
  std::set<std::string> names;
  size_t bytes = 0;
  for (const v1::Tool& tool : request.tools()) {
    FUZZ_CHECK(base::IsValidCallName(tool.name()) && names.insert(tool.name()).second);
    FUZZ_CHECK(tool.parameters().size() <= base::kMaxToolSchemaBytes);
    FUZZ_CHECK(tool.parameters().empty() || nlohmann::json::parse(tool.parameters(), nullptr, false).is_object());
    bytes += tool.name().size() + tool.description().size() + tool.parameters().size();
  }
  FUZZ_CHECK(bytes <= base::kMaxToolsBytes);
  const v1::ToolChoice& choice = request.tool_choice();
  FUZZ_CHECK(!request.has_tool_choice() || !names.empty());
  FUZZ_CHECK(!request.has_parallel_tool_calls() || !names.empty());
  FUZZ_CHECK((choice.mode() == v1::TOOL_CHOICE_MODE_NAMED) == !choice.name().empty());
  FUZZ_CHECK(choice.name().empty() || names.contains(choice.name()));
  for (const std::string& name : choice.allowed()) FUZZ_CHECK(names.contains(name));
  FUZZ_CHECK(request.reasoning_effort().size() <= base::kMaxReasoningEffortBytes);
}

inline void CheckImage(const v1::Image& image) {
  const std::string head = "data:" + image.media_type() + ";base64,";
  std::string lower = image.data_url().substr(0, head.size());
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  FUZZ_CHECK(image.media_type().starts_with("image/") && lower == head);
  FUZZ_CHECK((image.data_url().size() - head.size()) % 4 == 0 && image.data_url().size() > head.size());
  FUZZ_CHECK(image.detail().size() <= base::kMaxImageDetailBytes);
}

inline void CheckMessages(const v1::GenerateRequest& request) {
  for (const v1::ChatMessage& message : request.messages()) {
    const bool assistant = message.role() == v1::CHAT_ROLE_ASSISTANT;
    FUZZ_CHECK(v1::ChatRole_IsValid(message.role()) && message.role() != v1::CHAT_ROLE_UNSPECIFIED);
    FUZZ_CHECK(assistant || (message.tool_calls().empty() && message.reasoning().empty()));
    FUZZ_CHECK(static_cast<size_t>(message.tool_calls_size()) <= base::kMaxToolCalls);
    for (const v1::CalledTool& call : message.tool_calls()) {
      FUZZ_CHECK(base::IsValidCallName(call.id()) && base::IsValidCallName(call.name()));
    }
    const bool result = message.role() == v1::CHAT_ROLE_TOOL;
    FUZZ_CHECK(result ? base::IsValidCallName(message.tool_call_id()) : message.tool_call_id().empty());
    FUZZ_CHECK(message.parts().empty() || message.content().empty());
    FUZZ_CHECK(static_cast<size_t>(message.parts_size()) <= base::kMaxContentParts);
    for (const v1::ContentPart& part : message.parts()) {
      if (!part.has_image()) continue;
      FUZZ_CHECK(result || message.role() == v1::CHAT_ROLE_USER);
      CheckImage(part.image());
    }
  }
}

// The bytes that json_slice.h finds are those of the values that the parser finds.
inline void CheckSlices(std::string_view body) {
  const auto object = bridge::ParseJsonObject(body);
  if (!object.ok()) return;
  for (const auto& [key, value] : object->items()) {
    const std::string_view bytes = bridge::FindMember(body, key);
    FUZZ_CHECK(nlohmann::json::parse(bytes, nullptr, false) == value);
    FUZZ_CHECK(nlohmann::json::parse(bridge::Compact(bytes), nullptr, false) == value);
    if (value.is_array()) FUZZ_CHECK(bridge::ElementsOf(bytes).size() == value.size());
  }
}

}  // namespace runnel::fuzz
