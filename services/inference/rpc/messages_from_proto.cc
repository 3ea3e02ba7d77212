#include "services/inference/rpc/messages_from_proto.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"
#include "services/inference/generation/part_piece.h"

namespace runnel::inference {
namespace {

using base::InvalidField;

constexpr std::string_view kImageTypes[] = {"image/png", "image/jpeg", "image/gif", "image/webp"};

bool IsImageType(std::string_view type) {
  return std::find(std::begin(kImageTypes), std::end(kImageTypes), type) != std::end(kImageTypes);
}

// The beginning of a data: URL, up to its comma, is this long at most.
constexpr size_t kMaxUrlHeadBytes = 128;

// `data:image/png;base64,...`, possibly with more parameters. What follows the comma is not checked.
bool IsImageUrl(std::string_view url) {
  constexpr std::string_view kScheme = "data:";
  const size_t comma = url.substr(0, kMaxUrlHeadBytes).find(',');
  if (comma == std::string_view::npos) return false;
  const std::string head = absl::AsciiStrToLower(base::ToAbsl(url.substr(0, comma)));
  if (!head.starts_with(kScheme) || !head.ends_with(";base64")) return false;
  return IsImageType(std::string_view(head).substr(kScheme.size(), head.find(';') - kScheme.size()));
}

std::optional<ChatRole> RoleFromProto(v1::ChatRole role) {
  switch (role) {
    case v1::CHAT_ROLE_SYSTEM:
      return ChatRole::kSystem;
    case v1::CHAT_ROLE_USER:
      return ChatRole::kUser;
    case v1::CHAT_ROLE_ASSISTANT:
      return ChatRole::kAssistant;
    case v1::CHAT_ROLE_DEVELOPER:
      return ChatRole::kDeveloper;
    case v1::CHAT_ROLE_TOOL:
      return ChatRole::kTool;
    default:
      return std::nullopt;
  }
}

absl::Status CheckName(const std::string& path, const std::string& name) {
  if (IsValidCallName(name)) return absl::OkStatus();
  return InvalidField(path,
                      absl::StrCat("must have 1 to ", base::kMaxCallNameBytes, " bytes and no control characters"));
}

absl::Status ReadImage(const std::string& path, const v1::Image& proto, ContentPart* part) {
  const auto is_lower = [](char c) { return c >= 'a' && c <= 'z'; };
  part->kind = ContentPart::Kind::kImage;
  part->detail = proto.detail();
  if (part->detail.size() > base::kMaxImageDetailBytes ||
      !std::all_of(part->detail.begin(), part->detail.end(), is_lower)) {
    return InvalidField(absl::StrCat(path, ".detail"),
                        absl::StrCat("must have at most ", base::kMaxImageDetailBytes, " lower-case letters"));
  }
  switch (proto.source_case()) {
    case v1::Image::kDataUrl:
      if (!IsImageUrl(proto.data_url())) {
        return InvalidField(absl::StrCat(path, ".data_url"),
                            "must be a data: URL in base64 of a PNG, JPEG, GIF or WebP image; images are not fetched");
      }
      part->value = proto.data_url();
      return absl::OkStatus();
    case v1::Image::kData:
      if (!IsImageType(proto.media_type())) {
        return InvalidField(absl::StrCat(path, ".media_type"),
                            "must be image/png, image/jpeg, image/gif or image/webp");
      }
      part->value = absl::StrCat("data:", proto.media_type(), ";base64,", absl::Base64Escape(proto.data()));
      return absl::OkStatus();
    case v1::Image::SOURCE_NOT_SET:
      break;
  }
  return InvalidField(path, "set data_url or data");
}

absl::Status ReadPart(const std::string& path, const v1::ContentPart& proto, ChatMessage* message) {
  ContentPart part;
  switch (proto.part_case()) {
    case v1::ContentPart::kText:
      part.value = proto.text();
      break;
    case v1::ContentPart::kRefusal:
      if (message->role != ChatRole::kAssistant) {
        return InvalidField(absl::StrCat(path, ".refusal"), "only the assistant refuses");
      }
      part.value = proto.refusal();
      break;
    case v1::ContentPart::kImage:
      if (message->role != ChatRole::kUser && message->role != ChatRole::kTool) {
        return InvalidField(absl::StrCat(path, ".image"), "only messages of the roles user and tool may have images");
      }
      RETURN_IF_ERROR(ReadImage(absl::StrCat(path, ".image"), proto.image(), &part));
      break;
    case v1::ContentPart::PART_NOT_SET:
      return InvalidField(path, "set text, image or refusal");
  }
  message->parts.push_back(std::move(part));
  return absl::OkStatus();
}

absl::Status ReadParts(const std::string& path, const v1::ChatMessage& proto, ChatMessage* message) {
  if (static_cast<size_t>(proto.parts_size()) > base::kMaxContentParts) {
    return InvalidField(absl::StrCat(path, ".parts"), absl::StrCat("must have at most ", base::kMaxContentParts));
  }
  if (proto.parts_size() > 0 && !proto.content().empty()) {
    return InvalidField(absl::StrCat(path, ".parts"), "set either content or parts");
  }
  for (int i = 0; i < proto.parts_size(); ++i) {
    RETURN_IF_ERROR(ReadPart(absl::StrCat(path, ".parts[", i, "]"), proto.parts(i), message));
  }
  if (std::any_of(message->parts.begin(), message->parts.end(),
                  [](const ContentPart& part) { return part.kind == ContentPart::Kind::kImage; })) {
    return absl::OkStatus();
  }
  for (const ContentPart& part : message->parts) message->content += part.value;
  message->parts.clear();
  return absl::OkStatus();
}

// Nearly every message: there is no need to build the paths for errors.
bool IsOnlyContent(const v1::ChatMessage& proto) {
  return proto.parts_size() == 0 && proto.tool_calls_size() == 0 && proto.reasoning().empty() &&
         proto.tool_call_id().empty();
}

absl::Status ReadCalls(const std::string& path, const v1::ChatMessage& proto, ChatMessage* message) {
  if (message->role != ChatRole::kAssistant && (proto.tool_calls_size() > 0 || !proto.reasoning().empty())) {
    return InvalidField(absl::StrCat(path, proto.tool_calls_size() > 0 ? ".tool_calls" : ".reasoning"),
                        "only messages of the role assistant may have it");
  }
  message->reasoning = proto.reasoning();
  if (static_cast<size_t>(proto.tool_calls_size()) > base::kMaxToolCalls) {
    return InvalidField(absl::StrCat(path, ".tool_calls"), absl::StrCat("must have at most ", base::kMaxToolCalls));
  }
  for (int i = 0; i < proto.tool_calls_size(); ++i) {
    const v1::CalledTool& call = proto.tool_calls(i);
    const std::string call_path = absl::StrCat(path, ".tool_calls[", i, "]");
    RETURN_IF_ERROR(CheckName(absl::StrCat(call_path, ".id"), call.id()));
    RETURN_IF_ERROR(CheckName(absl::StrCat(call_path, ".name"), call.name()));
    message->tool_calls.push_back({call.id(), call.name(), call.arguments()});
  }
  if (message->role == ChatRole::kTool) {
    RETURN_IF_ERROR(CheckName(absl::StrCat(path, ".tool_call_id"), proto.tool_call_id()));
  } else if (!proto.tool_call_id().empty()) {
    return InvalidField(absl::StrCat(path, ".tool_call_id"), "only messages of the role tool may have it");
  }
  message->tool_call_id = proto.tool_call_id();
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadMessages(const v1::GenerateRequest& proto, GenerationRequest* request) {
  if (proto.messages().empty() == proto.prompt().empty()) {
    return InvalidField("messages", "set either messages or prompt");
  }
  request->prompt = proto.prompt();
  for (int i = 0; i < proto.messages_size(); ++i) {
    const std::optional<ChatRole> role = RoleFromProto(proto.messages(i).role());
    if (!role.has_value()) {
      return InvalidField(absl::StrCat("messages[", i, "].role"), "must be system, developer, user, assistant or tool");
    }
    ChatMessage message{*role, proto.messages(i).content()};
    if (*role != ChatRole::kTool && IsOnlyContent(proto.messages(i))) {
      request->messages.push_back(std::move(message));
      continue;
    }
    const std::string path = absl::StrCat("messages[", i, "]");
    RETURN_IF_ERROR(ReadParts(path, proto.messages(i), &message));
    RETURN_IF_ERROR(ReadCalls(path, proto.messages(i), &message));
    request->messages.push_back(std::move(message));
  }
  return absl::OkStatus();
}

}  // namespace runnel::inference
