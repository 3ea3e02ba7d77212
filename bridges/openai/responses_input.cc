#include "bridges/openai/responses_input.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/wire/chat_message.h"
#include "bridges/wire/json_fields.h"
#include "bridges/wire/tool_fields.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::openai {
namespace {

using base::InvalidField;
using bridge::CheckKeys;
using bridge::FindField;
using bridge::PartType;
using bridge::Unsupported;
using nlohmann::json;

constexpr size_t kMaxTextBytes = std::numeric_limits<int32_t>::max();  // the body's limit is lower

const PartType kMessageParts[] = {{"input_text", "text"},
                                  {"output_text", "text"},
                                  {"text", "text"},
                                  {"refusal", "refusal"},
                                  {"input_image", "image_url", PartType::Kind::kImageUrl}};
const PartType kOutputParts[] = {{"input_text", "text"}, {"input_image", "image_url", PartType::Kind::kImageUrl}};

// An id of OpenAI's may have 64 bytes.
constexpr size_t kMaxIdBytes = 256;

// Reads one item after another.
class InputReader {
 public:
  InputReader(v1::GenerateRequest* request, std::vector<ItemReference>* references)
      : request_(request), references_(references) {}

  absl::Status ReadItem(const std::string& path, const json& item) {
    const json* type = FindField(item, "type");
    std::string name = type == nullptr ? "message" : type->is_string() ? type->get<std::string>() : "";
    // The type of a reference may be left out.
    if (type == nullptr && FindField(item, "id") != nullptr && FindField(item, "role") == nullptr) {
      name = "item_reference";
    }
    if (name == "message") return ReadMessage(path, item);
    if (name == "function_call") return ReadCall(path, item);
    if (name == "function_call_output") return ReadOutput(path, item);
    if (name == "reasoning") return ReadReasoning(path, item);
    if (name == "item_reference") return ReadReference(path, item);
    return Unsupported(path + ".type",
                       "must be message, function_call, function_call_output, reasoning or item_reference: others are "
                       "not supported");
  }

 private:
  // Clients repeat id and status from a response; the model does not need them.
  absl::Status ReadMessage(const std::string& path, const json& item) {
    RETURN_IF_ERROR(CheckKeys(path, item, {"type", "role", "content", "id", "status", "phase"}));
    v1::ChatMessage* message = request_->add_messages();
    RETURN_IF_ERROR(bridge::ReadRole(path + ".role", item, message));
    if (message->role() == v1::CHAT_ROLE_TOOL) {
      return Unsupported(path + ".role", "is not supported: use an item of the type function_call_output");
    }
    const json* content = FindField(item, "content");
    if (content == nullptr) return InvalidField(path + ".content", "is missing");
    return bridge::ReadContent(path + ".content", *content, kMessageParts, message);
  }

  absl::Status ReadCall(const std::string& path, const json& item) {
    RETURN_IF_ERROR(CheckKeys(path, item, {"type", "call_id", "name", "arguments", "id", "status"}));
    v1::CalledTool* call = AddOfAssistant()->add_tool_calls();
    RETURN_IF_ERROR(bridge::ReadCallName(path, item, "call_id", call->mutable_id()));
    RETURN_IF_ERROR(bridge::ReadCallName(path, item, "name", call->mutable_name()));
    const json* arguments = FindField(item, "arguments");
    if (arguments == nullptr) return absl::OkStatus();
    return bridge::ReadText(path + ".arguments", *arguments, 0, kMaxTextBytes, call->mutable_arguments());
  }

  absl::Status ReadOutput(const std::string& path, const json& item) {
    RETURN_IF_ERROR(CheckKeys(path, item, {"type", "call_id", "output", "id", "status"}));
    v1::ChatMessage* message = request_->add_messages();
    message->set_role(v1::CHAT_ROLE_TOOL);
    RETURN_IF_ERROR(bridge::ReadCallName(path, item, "call_id", message->mutable_tool_call_id()));
    const json* output = FindField(item, "output");
    if (output == nullptr) return InvalidField(path + ".output", "is missing");
    return bridge::ReadContent(path + ".output", *output, kOutputParts, message);
  }

  // Encrypted reasoning is of other servers: it cannot be read, and is ignored.
  absl::Status ReadReasoning(const std::string& path, const json& item) {
    RETURN_IF_ERROR(CheckKeys(path, item, {"type", "id", "summary", "content", "encrypted_content", "status"}));
    std::string reasoning;
    RETURN_IF_ERROR(JoinTexts(path + ".content", FindField(item, "content"), &reasoning));
    if (reasoning.empty()) RETURN_IF_ERROR(JoinTexts(path + ".summary", FindField(item, "summary"), &reasoning));
    if (!reasoning.empty()) AddOfAssistant()->set_reasoning(std::move(reasoning));
    return absl::OkStatus();
  }

  absl::Status ReadReference(const std::string& path, const json& item) {
    RETURN_IF_ERROR(CheckKeys(path, item, {"type", "id"}));
    ItemReference reference;
    reference.path = path + ".id";
    const json* id = FindField(item, "id");
    if (id == nullptr) return InvalidField(reference.path, "is missing");
    RETURN_IF_ERROR(bridge::ReadText(reference.path, *id, 1, kMaxIdBytes, &reference.id));
    std::optional<ItemName> name = ParseItemId(reference.id);
    if (!name.has_value()) return MissingItem(reference.path, reference.id);
    reference.name = *std::move(name);
    reference.message = request_->messages_size();
    references_->push_back(std::move(reference));
    AddOfAssistant();
    return absl::OkStatus();
  }

  static absl::Status JoinTexts(const std::string& field, const json* texts, std::string* out) {
    if (texts == nullptr || texts->empty()) return absl::OkStatus();
    return bridge::ReadEach(field, *texts, base::kMaxContentParts, [out](const std::string& path, const json& each) {
      std::string text;
      const json* value = FindField(each, "text");
      if (value == nullptr) return InvalidField(path + ".text", "is missing");
      RETURN_IF_ERROR(bridge::ReadText(path + ".text", *value, 0, kMaxTextBytes, &text));
      out->append(text);
      return absl::OkStatus();
    });
  }

  v1::ChatMessage* AddOfAssistant() {
    v1::ChatMessage* message = request_->add_messages();
    message->set_role(v1::CHAT_ROLE_ASSISTANT);
    return message;
  }

  v1::GenerateRequest* const request_;
  std::vector<ItemReference>* const references_;
};

bool IsEmpty(const v1::ChatMessage& message) {
  return message.content().empty() && message.reasoning().empty() && message.tool_calls().empty();
}

// Whether `next` continues the turn, whose reasoning precedes its content, which precedes its calls.
bool Continues(const v1::ChatMessage& turn, const v1::ChatMessage& next) {
  if (turn.role() != v1::CHAT_ROLE_ASSISTANT || next.role() != v1::CHAT_ROLE_ASSISTANT) return false;
  if (IsEmpty(next)) return !IsEmpty(turn);
  const bool only_calls = next.content().empty() && next.reasoning().empty();
  return only_calls || (turn.content().empty() && turn.tool_calls().empty());
}

}  // namespace

absl::Status ReadResponsesInput(const std::string& field, const json& value, v1::GenerateRequest* request,
                                std::vector<ItemReference>* references) {
  if (value.is_string()) {
    v1::ChatMessage* message = request->add_messages();
    message->set_role(v1::CHAT_ROLE_USER);
    return bridge::ReadText(field, value, 1, kMaxTextBytes, message->mutable_content());
  }
  if (!value.is_array()) return InvalidField(field, "must be a string or an array of items");
  InputReader reader(request, references);
  return bridge::ReadEach(field, value, base::kMaxMessages,
                          [&reader](const std::string& path, const json& item) { return reader.ReadItem(path, item); });
}

absl::Status JoinTurns(v1::GenerateRequest* request) {
  auto& messages = *request->mutable_messages();
  int last = -1;  // of those that stay
  for (int i = 0; i < messages.size(); ++i) {
    v1::ChatMessage* next = messages.Mutable(i);
    v1::ChatMessage* turn = last < 0 ? nullptr : messages.Mutable(last);
    if (turn == nullptr || !Continues(*turn, *next)) {
      messages.SwapElements(++last, i);
      continue;
    }
    turn->mutable_reasoning()->append(next->reasoning());
    turn->mutable_content()->append(next->content());
    for (v1::CalledTool& call : *next->mutable_tool_calls()) *turn->add_tool_calls() = std::move(call);
    if (static_cast<size_t>(turn->tool_calls_size()) > base::kMaxToolCalls) {
      return InvalidField("input", absl::StrCat("a turn must have at most ", base::kMaxToolCalls, " calls"));
    }
  }
  messages.DeleteSubrange(last + 1, messages.size() - last - 1);
  return absl::OkStatus();
}

absl::Status MissingItem(std::string_view field, std::string_view id) {
  base::ErrorDetail detail;
  detail.reason = "ITEM_NOT_FOUND";
  detail.field = std::string(field);
  return base::MakeError(absl::StatusCode::kNotFound,
                         absl::StrCat(base::ToAbsl(field), ": there is no item ", bridge::ShownKey(id),
                                      ": it does not exist, has expired or was not stored. Send the items themselves "
                                      "with store: false"),
                         std::move(detail));
}

absl::Status MissingResponse(std::string_view id) {
  base::ErrorDetail detail;
  detail.reason = "PREVIOUS_RESPONSE_NOT_FOUND";
  detail.field = "previous_response_id";
  return base::MakeError(absl::StatusCode::kNotFound,
                         absl::StrCat("previous_response_id: there is no response ", bridge::ShownKey(id),
                                      ": it does not exist, has expired or was not stored. Send the whole conversation "
                                      "as input with store: false"),
                         std::move(detail));
}

}  // namespace runnel::openai
