#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"

// Messages of a conversation as JSON. Errors are those of json_fields.h. Pure functions.
namespace runnel::bridge {

// system, developer, user, assistant or tool, into `out`. UNSUPPORTED_PARAMETER for function.
absl::Status ReadRole(const std::string& field, const nlohmann::json& message, v1::ChatMessage* out);

// A type of content part.
struct PartType {
  std::string_view type;
  std::string key;  // of its text or image
  enum class Kind {
    kText,
    kImageObject,  // {"url","detail"}
    kImageUrl,     // a string, next to "detail"
  } kind = Kind::kText;
};
// A string, or an array of parts whose types are in `types`, into the content of `out`. If there are images, the parts
// of `out` have everything. UNSUPPORTED_PARAMETER for other types and for unknown keys of a part. An image must be a
// data: URL with one of the media types of v1::Image, and the role that of a user or tool.
absl::Status ReadContent(const std::string& field, const nlohmann::json& value, std::span<const PartType> types,
                         v1::ChatMessage* out);

// Which keys a message has: OpenAI's clients send some that the native API does not know.
enum class MessageForm { kNative, kOpenAi };
// {"role","content","tool_calls","tool_call_id","reasoning_content"}
absl::Status ReadChatMessage(const std::string& path, const nlohmann::json& value, MessageForm form,
                             v1::ChatMessage* out);

}  // namespace runnel::bridge
