#include "bridges/wire/chat_message.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bridges/wire/json_fields.h"
#include "bridges/wire/tool_fields.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::bridge {
namespace {

using base::InvalidField;
using nlohmann::json;

constexpr size_t kMaxTextParts = 4096;
constexpr size_t kMaxTextBytes = std::numeric_limits<int32_t>::max();  // the body's limit is lower
constexpr std::string_view kMediaTypes[] = {"image/png", "image/jpeg", "image/webp", "image/gif"};
// The longest part of a data: URL before its comma.
constexpr size_t kMaxUrlHeadBytes = 64;

const PartType kNativeParts[] = {{"text", "text"}, {"image_url", "image_url", PartType::Kind::kImageObject}};
const PartType kOpenAiParts[] = {
    {"text", "text"}, {"refusal", "refusal"}, {"image_url", "image_url", PartType::Kind::kImageObject}};

bool IsBase64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return false;
  for (int padding = 0; padding < 2 && text.back() == '='; ++padding) text.remove_suffix(1);
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '+' || c == '/'; });
}

// The media type of `data:image/png;base64,..`; empty if it is not such a URL.
std::string_view MediaTypeOf(std::string_view url) {
  const size_t comma = url.substr(0, kMaxUrlHeadBytes).find(',');
  if (comma == std::string_view::npos || !IsBase64(url.substr(comma + 1))) return {};
  const std::string head = absl::AsciiStrToLower(base::ToAbsl(url.substr(0, comma)));
  for (const std::string_view type : kMediaTypes) {
    if (head == absl::StrCat("data:", base::ToAbsl(type), ";base64")) return type;
  }
  return {};
}

absl::Status ReadDetail(const std::string& field, const json& holder, v1::Image* image) {
  const json* detail = FindField(holder, "detail");
  if (detail == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(ReadText(field, *detail, 1, base::kMaxImageDetailBytes, image->mutable_detail()));
  const bool sound =
      std::all_of(image->detail().begin(), image->detail().end(), [](char c) { return c >= 'a' && c <= 'z'; });
  return sound ? absl::OkStatus() : InvalidField(field, "must have only lower-case letters");
}

// `path` is that of the part, `value` what it has at the key of `type`.
absl::Status ReadImage(const std::string& path, const json& part, const json& value, const PartType& type,
                       v1::Image* image) {
  std::string field = absl::StrCat(path, ".", type.key);
  const bool object = type.kind == PartType::Kind::kImageObject;
  if (object && !value.is_object()) return InvalidField(field, "must be an object with a url");
  if (object) RETURN_IF_ERROR(CheckKeys(field, value, {"url", "detail"}));
  RETURN_IF_ERROR(ReadDetail(absl::StrCat(object ? field : path, ".detail"), object ? value : part, image));
  const json* url = object ? FindField(value, "url") : &value;
  if (object) field += ".url";
  if (url == nullptr || !url->is_string()) return InvalidField(field, "must be a string");
  image->set_media_type(std::string(MediaTypeOf(url->get_ref<const std::string&>())));
  if (image->media_type().empty()) {
    return InvalidField(field,
                        "must be a data: URL in base64 of image/png, image/jpeg, image/webp or image/gif: images are "
                        "not fetched");
  }
  image->set_data_url(url->get<std::string>());
  return absl::OkStatus();
}

absl::Status ReadPart(const std::string& field, const std::string& path, const json& part,
                      std::span<const PartType> types, v1::ChatMessage* out) {
  const json* name = part.is_object() ? FindField(part, "type") : nullptr;
  if (name == nullptr || !name->is_string()) return InvalidField(field, "each part must be an object with a type");
  const auto type = std::find_if(types.begin(), types.end(), [name](const PartType& each) {
    return each.type == name->get_ref<const std::string&>();
  });
  if (type == types.end()) return Unsupported(field, "a part of this type is not supported");
  // Clients repeat annotations and logprobs from a response; cache_control is a hint to other servers. All are ignored.
  const std::string_view detail = type->kind == PartType::Kind::kImageUrl ? "detail" : "type";
  RETURN_IF_ERROR(CheckKeys(path, part, {"type", type->key, detail, "annotations", "logprobs", "cache_control"}));
  const json* value = FindField(part, type->key);
  if (type->kind == PartType::Kind::kText) {
    if (value == nullptr || !value->is_string()) {
      return InvalidField(field, absl::StrCat("the part must have its ", type->key, " as a string"));
    }
    out->add_parts()->set_text(value->get_ref<const std::string&>());
    return absl::OkStatus();
  }
  if (value == nullptr) return InvalidField(absl::StrCat(path, ".", type->key), "is missing");
  if (out->role() != v1::CHAT_ROLE_USER && out->role() != v1::CHAT_ROLE_TOOL) {
    return InvalidField(path, "only messages of the roles user and tool may have images");
  }
  return ReadImage(path, part, *value, *type, out->add_parts()->mutable_image());
}

absl::Status ReadCall(const std::string& path, const json& value, v1::CalledTool* call) {
  // Clients repeat the index from a stream.
  RETURN_IF_ERROR(CheckKeys(path, value, {"id", "type", "function", "index"}));
  if (const json* type = FindField(value, "type"); type != nullptr && *type != "function") {
    return Unsupported(path + ".type", "only functions are supported");
  }
  RETURN_IF_ERROR(ReadCallName(path, value, "id", call->mutable_id()));
  const std::string field = path + ".function";
  const json* function = FindField(value, "function");
  if (function == nullptr || !function->is_object()) return InvalidField(field, "must be an object");
  RETURN_IF_ERROR(CheckKeys(field, *function, {"name", "arguments"}));
  RETURN_IF_ERROR(ReadCallName(field, *function, "name", call->mutable_name()));
  const json* arguments = FindField(*function, "arguments");
  if (arguments == nullptr) return absl::OkStatus();
  return ReadText(field + ".arguments", *arguments, 0, kMaxTextBytes, call->mutable_arguments());
}

absl::Status ReadToolCalls(const std::string& path, const json& message, v1::ChatMessage* out) {
  const json* calls = FindField(message, "tool_calls");
  // Clients send an empty array in place of nothing.
  if (calls == nullptr || (calls->is_array() && calls->empty())) return absl::OkStatus();
  const std::string field = path + ".tool_calls";
  if (out->role() != v1::CHAT_ROLE_ASSISTANT) return InvalidField(field, "only the assistant calls tools");
  return ReadEach(field, *calls, base::kMaxToolCalls, [out](const std::string& each, const json& call) {
    return ReadCall(each, call, out->add_tool_calls());
  });
}

absl::Status ReadReasoning(const std::string& path, const json& message, v1::ChatMessage* out) {
  for (const char* key : {"reasoning_content", "reasoning"}) {
    const json* reasoning = FindField(message, key);
    if (reasoning == nullptr || *reasoning == "") continue;
    const std::string field = absl::StrCat(path, ".", key);
    if (out->role() != v1::CHAT_ROLE_ASSISTANT) return InvalidField(field, "only the assistant reasons");
    return ReadText(field, *reasoning, 0, kMaxTextBytes, out->mutable_reasoning());
  }
  return absl::OkStatus();
}

absl::Status ReadToolCallId(const std::string& path, const json& message, v1::ChatMessage* out) {
  if (out->role() == v1::CHAT_ROLE_TOOL) {
    return ReadCallName(path, message, "tool_call_id", out->mutable_tool_call_id());
  }
  if (FindField(message, "tool_call_id") == nullptr) return absl::OkStatus();
  return InvalidField(path + ".tool_call_id", "belongs to the role tool");
}

absl::Status CheckMessageKeys(const std::string& path, const json& value, MessageForm form) {
  if (form == MessageForm::kNative) {
    return CheckKeys(path, value, {"role", "content", "tool_calls", "tool_call_id", "reasoning_content"});
  }
  if (const json* call = FindField(value, "function_call"); call != nullptr && !IsNothing(*call)) {
    return Unsupported(path + ".function_call", "is not supported: use tool_calls");
  }
  if (const json* audio = FindField(value, "audio"); audio != nullptr) {
    return Unsupported(path + ".audio", "is not supported: leave it out");
  }
  // Chat templates have no place for names and annotations, which are ignored. LiteLLM repeats the fields of a response
  // that it does not know, which is the second name of reasoning, in provider_specific_fields.
  return CheckKeys(path, value,
                   {"role", "content", "refusal", "name", "annotations", "tool_calls", "tool_call_id", "function_call",
                    "reasoning_content", "reasoning", "provider_specific_fields"});
}

// Whether a message needs no content. OpenAI's clients send null for empty content.
bool MayLackContent(const json& value, MessageForm form, const v1::ChatMessage& out) {
  if (form == MessageForm::kOpenAi && (value.contains("content") || FindField(value, "refusal") != nullptr)) {
    return true;
  }
  if (out.role() != v1::CHAT_ROLE_ASSISTANT) return false;
  return form == MessageForm::kOpenAi || out.tool_calls_size() > 0;
}

}  // namespace

absl::Status ReadRole(const std::string& field, const json& message, v1::ChatMessage* out) {
  const json* role = FindField(message, "role");
  const std::string name = role != nullptr && role->is_string() ? role->get<std::string>() : "";
  if (name == "system") {
    out->set_role(v1::CHAT_ROLE_SYSTEM);
  } else if (name == "developer") {
    out->set_role(v1::CHAT_ROLE_DEVELOPER);
  } else if (name == "user") {
    out->set_role(v1::CHAT_ROLE_USER);
  } else if (name == "assistant") {
    out->set_role(v1::CHAT_ROLE_ASSISTANT);
  } else if (name == "tool") {
    out->set_role(v1::CHAT_ROLE_TOOL);
  } else if (name == "function") {
    return Unsupported(field, "is not supported: use the role tool");
  } else {
    return InvalidField(field, "must be system, developer, user, assistant or tool");
  }
  return absl::OkStatus();
}

absl::Status ReadContent(const std::string& field, const json& value, std::span<const PartType> types,
                         v1::ChatMessage* out) {
  if (value.is_string()) {
    out->mutable_content()->append(value.get_ref<const std::string&>());
    return absl::OkStatus();
  }
  if (!value.is_array() || value.size() > kMaxTextParts) {
    return InvalidField(field, absl::StrCat("must be a string or an array of at most ", kMaxTextParts, " parts"));
  }
  for (size_t i = 0; i < value.size(); ++i) {
    RETURN_IF_ERROR(ReadPart(field, absl::StrCat(field, "[", i, "]"), value[i], types, out));
  }
  const auto& parts = out->parts();
  const bool images =
      std::any_of(parts.begin(), parts.end(), [](const v1::ContentPart& part) { return part.has_image(); });
  if (images && static_cast<size_t>(parts.size()) > base::kMaxContentParts) {
    return InvalidField(field, absl::StrCat("with images it must have at most ", base::kMaxContentParts, " parts"));
  }
  if (images) return absl::OkStatus();
  for (const v1::ContentPart& part : parts) out->mutable_content()->append(part.text());
  out->clear_parts();
  return absl::OkStatus();
}

absl::Status ReadChatMessage(const std::string& path, const json& value, MessageForm form, v1::ChatMessage* out) {
  RETURN_IF_ERROR(CheckMessageKeys(path, value, form));
  RETURN_IF_ERROR(ReadRole(path + ".role", value, out));
  RETURN_IF_ERROR(ReadToolCalls(path, value, out));
  RETURN_IF_ERROR(ReadToolCallId(path, value, out));
  RETURN_IF_ERROR(ReadReasoning(path, value, out));
  const json* content = FindField(value, "content");
  if (content == nullptr && !MayLackContent(value, form, *out)) return InvalidField(path + ".content", "is missing");
  const bool native = form == MessageForm::kNative;
  if (content != nullptr) {
    RETURN_IF_ERROR(
        ReadContent(path + ".content", *content, native ? std::span<const PartType>(kNativeParts) : kOpenAiParts, out));
  }
  const json* refusal = native ? nullptr : FindField(value, "refusal");
  if (refusal == nullptr) return absl::OkStatus();
  if (!refusal->is_string()) return InvalidField(path + ".refusal", "must be a string");
  if (out->parts().empty()) out->mutable_content()->append(refusal->get_ref<const std::string&>());
  return absl::OkStatus();
}

}  // namespace runnel::bridge
